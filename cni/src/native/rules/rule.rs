//! Rules as the plugins of CNI write them, and their text.
//!
//! The text is the one that `iptables-save` prints, which `iptables-restore` takes: so a rule that is there can be
//! found by comparing, and what is written is read back the same.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

use crate::engine::{Engine, Engines};
use crate::result::IpNet;

/// Which of the two sets of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn engine(self, engines: Engines) -> Option<Engine> {
        match self {
            Family::V4 => engines.v4,
            Family::V6 => engines.v6,
        }
    }
}

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    // In the order of their names.
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Protocol::Sctp, Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Sctp => "sctp",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Sctp => 132,
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// What else a packet has to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    Comment(String),
    /// Its destination is an address of the host.
    ToLocal,
    /// One destination port, of the rule's protocol.
    Port(u16),
    /// One of these destination ports.
    Ports(Vec<u16>),
    /// All of these bits of its mark are set.
    Mark(u32),
    /// It belongs to a connection that is known.
    Established,
    /// What the configuration says, argument by argument.
    Given(Vec<String>),
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Jump(String),
    Accept,
    Masquerade,
    DestinationNat(SocketAddr),
    SetMark(u32),
}

/// A rule, without the chain that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) source: Option<IpNet>,
    pub(crate) destination: Option<IpNet>,
    /// Every destination but that one.
    pub(crate) elsewhere: bool,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) matches: Vec<Match>,
    pub(crate) target: Target,
}

impl Rule {
    pub(crate) fn new(target: Target) -> Self {
        let (source, destination, protocol) = (None, None, None);
        Self { source, destination, elsewhere: false, protocol, matches: Vec::new(), target }
    }

    pub(crate) fn jump(chain: &str) -> Self {
        Self::new(Target::Jump(chain.to_owned()))
    }

    pub(crate) fn from(self, source: IpNet) -> Self {
        Self { source: Some(source), ..self }
    }

    pub(crate) fn to(self, destination: IpNet) -> Self {
        Self { destination: Some(destination), ..self }
    }

    pub(crate) fn not_to(self, destination: IpNet) -> Self {
        Self { destination: Some(destination), elsewhere: true, ..self }
    }

    pub(crate) fn over(self, protocol: Protocol) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    pub(crate) fn when(mut self, condition: Match) -> Self {
        self.matches.push(condition);
        self
    }

    pub(crate) fn commented(self, comment: &str) -> Self {
        self.when(Match::Comment(comment.to_owned()))
    }
}

impl Rule {
    /// The chain that it leads to.
    pub(crate) fn leads_to(&self) -> Option<&str> {
        match &self.target {
            Target::Jump(chain) => Some(chain),
            _ => None,
        }
    }

    /// May another version write or print this rule in another way? What names an address of the pod was alike in
    /// all of them; the others are few, and are asked for when the first pod comes.
    pub(crate) fn is_variable(&self) -> bool {
        let bare = self.source.is_none() && self.destination.is_none();
        bare || self.matches.iter().any(|condition| matches!(condition, Match::Given(_)))
    }

    /// As arguments of `iptables`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
        // Every address is how the tables say "any" by saying nothing.
        if let Some(net) = self.source.filter(|net| net.prefix > 0) {
            add(&["-s", &net.network().to_string()]);
        }
        if let Some(net) = self.destination.filter(|net| net.prefix > 0 || self.elsewhere) {
            add(if self.elsewhere { &["!", "-d"] } else { &["-d"] });
            add(&[&net.network().to_string()]);
        }
        if let Some(protocol) = self.protocol {
            add(&["-p", protocol.name()]);
        }
        for condition in &self.matches {
            self.condition(condition, &mut add);
        }
        match &self.target {
            Target::Jump(chain) => add(&["-j", chain]),
            Target::Accept => add(&["-j", "ACCEPT"]),
            Target::Masquerade => add(&["-j", "MASQUERADE"]),
            Target::DestinationNat(to) => {
                add(&["-j", "DNAT", "--to-destination", &to.to_string()]);
            }
            Target::SetMark(bits) => add(&["-j", "MARK", "--set-xmark", &both(*bits)]),
        }
        all
    }

    fn condition(&self, condition: &Match, add: &mut impl FnMut(&[&str])) {
        match condition {
            Match::Comment(text) => add(&["-m", "comment", "--comment", text]),
            Match::ToLocal => add(&["-m", "addrtype", "--dst-type", "LOCAL"]),
            Match::Port(port) => {
                let protocol = self.protocol.map_or("tcp", Protocol::name);
                add(&["-m", protocol, "--dport", &port.to_string()]);
            }
            Match::Ports(ports) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                add(&["-m", "multiport", "--dports", &ports.join(",")]);
            }
            Match::Mark(bits) => add(&["-m", "mark", "--mark", &both(*bits)]),
            Match::Established => {
                add(&["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]);
            }
            Match::Given(arguments) => arguments.iter().for_each(|argument| add(&[argument])),
        }
    }
}

/// Bits, and the mask that leaves the others alone.
fn both(bits: u32) -> String {
    format!("{bits:#x}/{bits:#x}")
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for argument in self.arguments() {
            write!(f, "{space}{}", Quoted(&argument))?;
            space = " ";
        }
        Ok(())
    }
}

/// One argument: in quotes if it has any character but those that never need them.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let safe = |c: char| plain(c) || matches!(c, '.' | ',' | '/' | ':' | '!' | '+' | '[' | ']');
        if !self.0.is_empty() && self.0.chars().all(safe) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            let escape = if matches!(c, '"' | '\\' | '\'') { "\\" } else { "" };
            write!(f, "{escape}{c}")?;
        }
        f.write_str("\"")
    }
}

/// Can this be an argument? Whoever reads it back reads lines.
pub(crate) fn is_expressible(argument: &str) -> bool {
    !argument.is_empty() && !argument.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_reads_as_iptables_save_prints_it() {
        let accept = || Rule::new(Target::Accept);
        let table = [
            (accept().from(net("10.1.2.3/32")), "-s 10.1.2.3/32 -j ACCEPT"),
            (accept().to(net("10.1.2.3/20")), "-d 10.1.0.0/20 -j ACCEPT"),
            (accept().from(net("0.0.0.0/0")), "-j ACCEPT"),
            (accept().not_to(net("ff00::/8")), "! -d ff00::/8 -j ACCEPT"),
            (accept().to(net("fd00:1::5/64")), "-d fd00:1::/64 -j ACCEPT"),
            (
                Rule::jump("X").when(Match::Established).commented("plain"),
                "-m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment plain -j X",
            ),
            (
                Rule::jump("X").over(Protocol::Udp).when(Match::Ports(vec![1, 65535])),
                "-p udp -m multiport --dports 1,65535 -j X",
            ),
            (
                Rule::new(Target::DestinationNat("[fd00::2]:80".parse().unwrap()))
                    .over(Protocol::Sctp)
                    .when(Match::Port(8080)),
                "-p sctp -m sctp --dport 8080 -j DNAT --to-destination [fd00::2]:80",
            ),
            (
                Rule::new(Target::SetMark(1 << 31)).when(Match::Mark(1)),
                "-m mark --mark 0x1/0x1 -j MARK --set-xmark 0x80000000/0x80000000",
            ),
        ];
        for (rule, text) in table {
            assert_eq!(rule.to_string(), text);
        }
    }

    #[test]
    fn no_argument_becomes_two() {
        let given = ["!", "-s", "a b", "\"", "\\", "a'b", "#", "-j DROP"].map(str::to_owned);
        let text = Rule::jump("X").when(Match::Given(given.to_vec())).to_string();
        assert_eq!(text, r##"! -s "a b" "\"" "\\" "a\'b" "#" "-j DROP" -j X"##);
        for bad in ["", "a\nb", "\0", "COMMIT\r"] {
            assert!(!is_expressible(bad), "{bad:?}");
        }
    }
}
