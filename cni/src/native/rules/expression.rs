//! Rules as the kernel has them: lists of expressions, as `iptables` of the kind that is built on nf_tables writes
//! them.
//!
//! Versions of it differ in what they write and read. What is written here are the forms that all of them read; what
//! is recognised are also those that newer ones write.

use std::net::IpAddr;

use super::{Family, Match, Protocol, Rule, Target};
use crate::address;
use crate::netlink::{Message, attributes};
use crate::result::IpNet;

const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
/// The one register that is used.
const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
const ACCEPT: u32 = 1;
const JUMP: u32 = (-3i32).cast_unsigned();
const GOTO: u32 = (-4i32).cast_unsigned();
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// What `struct xt_comment_info` holds, the zero included.
const COMMENT_LEN: usize = 256;
/// `struct xt_conntrack_mtinfo3`, and where it says what it compares: two bytes for that, two for the states.
const CONNTRACK_LEN: usize = 168;
const CONNTRACK_FLAGS_AT: usize = 146;
const CONNTRACK_STATES_AT: usize = 150;
const CONNTRACK_STATE: u16 = 1;
const ESTABLISHED_OR_RELATED: u16 = 2 | 4;
/// `struct xt_sctp_info`, with what says which chunks (any) and that the destination's ports are meant.
const SCTP_LEN: usize = 296;
const SCTP_CHUNKS_AT: [usize; 4] = [268, 271, 274, 277];
const SCTP_FLAGS_AT: usize = 284;
const SCTP_DESTINATION: u8 = 2;
/// `struct xt_multiport_v1`: fifteen ports.
const MULTIPORT_LEN: usize = 48;
const MULTIPORT_MAX: usize = 15;
const MULTIPORT_DESTINATION: u8 = 1;
/// `RTN_LOCAL` as a bit.
const TYPE_LOCAL: u16 = 1 << 2;
/// `struct nf_nat_range2`, and its flags: an address, and a port.
const NAT_RANGE_LEN: usize = 48;
const NAT_ADDRESS_AND_PORT: u32 = 1 | 2;

/// One expression: its name, and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    name: String,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Expression {
    fn new(name: &str, attributes: &[(u16, &[u8])]) -> Self {
        let attributes = attributes.iter().map(|(kind, value)| (*kind, value.to_vec())).collect();
        Self { name: name.to_owned(), attributes }
    }

    fn numbers(name: &str, attributes: &[(u16, u32)]) -> Self {
        let attributes = attributes.iter().map(|(kind, n)| (*kind, n.to_be_bytes().to_vec()));
        Self { name: name.to_owned(), attributes: attributes.collect() }
    }

    /// A match or a target of the older kind of tables.
    fn older(kind: &str, name: &str, revision: u32, info: &[u8]) -> Self {
        let name = [name.as_bytes(), &[0]].concat();
        Self::new(kind, &[(1, &name), (2, &revision.to_be_bytes()), (3, info)])
    }

    fn put(&self, message: Message) -> Message {
        message.with_nested(ELEMENT, |element| {
            element.with_text(NAME, &self.name).with_nested(DATA, |data| {
                self.attributes.iter().fold(data, |data, (kind, value)| data.with(*kind, value))
            })
        })
    }

    fn parse(element: &[u8]) -> Option<Self> {
        let find = |wanted| attributes(element, 0).find(|(kind, _)| *kind == wanted);
        let data = find(DATA).map(|(_, data)| data).unwrap_or_default();
        let attributes = attributes(data, 0).map(|(kind, value)| (kind, value.to_vec())).collect();
        Some(Self { name: crate::netlink::text(find(NAME)?.1), attributes })
    }

    /// Is it the same as far as `wanted` says what it is? The kernel adds what is so unless it is said.
    fn is(&self, wanted: &Self) -> bool {
        self.name == wanted.name
            && wanted.attributes.iter().all(|one| self.attributes.contains(one))
    }
}

/// The expressions of a rule; none if it cannot be said in them.
pub(crate) fn of(rule: &Rule, family: Family) -> Option<Vec<Expression>> {
    let mut all = Vec::new();
    if let Some(protocol) = rule.protocol {
        all.push(Expression::numbers("meta", &[(2, META_L4PROTO), (1, REGISTER)]));
        all.push(compare(EQUAL, &[protocol.number()]));
    }
    let (source, destination) = match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    if let Some(net) = rule.source.filter(|net| net.prefix > 0) {
        address(&mut all, net, source, EQUAL);
    }
    if let Some(net) = rule.destination.filter(|net| net.prefix > 0) {
        address(&mut all, net, destination, if rule.elsewhere { DIFFERENT } else { EQUAL });
    }
    for condition in &rule.matches {
        all.push(matching(condition, rule.protocol)?);
    }
    let zero: &[u8] = &[0; 8];
    all.push(Expression::new("counter", &[(1, zero), (2, zero)]));
    all.push(target(&rule.target, family));
    Some(all)
}

fn compare(operation: u32, value: &[u8]) -> Expression {
    let (register, operation) = (REGISTER.to_be_bytes(), operation.to_be_bytes());
    Expression::new("cmp", &[(1, &register), (2, &operation), (3, &data(value))])
}

/// A value, as an attribute with its padding.
fn data(value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [len.to_ne_bytes(), DATA_VALUE.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn address(all: &mut Vec<Expression>, net: IpNet, offset: u32, operation: u32) {
    let value = address::bytes(net.network().addr);
    let len = u32::try_from(value.len()).unwrap_or_default();
    let load = [(1, REGISTER), (2, NETWORK_HEADER), (3, offset), (4, len)];
    all.push(Expression::numbers("payload", &load));
    if u32::from(net.prefix) < len * u8::BITS {
        let ones = IpAddr::from([0xff; 16]);
        let ones = if net.addr.is_ipv4() { IpAddr::from([0xff; 4]) } else { ones };
        let mask = address::bytes(IpNet { addr: ones, ..net }.network().addr);
        all.push(masking(&mask));
    }
    all.push(compare(operation, &value));
}

/// Leaves the bits of the register that `mask` has.
fn masking(mask: &[u8]) -> Expression {
    let register = REGISTER.to_be_bytes();
    let len = u32::try_from(mask.len()).unwrap_or_default().to_be_bytes();
    let none = vec![0; mask.len()];
    let all: [(u16, &[u8]); 5] =
        [(1, &register), (2, &register), (3, &len), (4, &data(mask)), (5, &data(&none))];
    Expression::new("bitwise", &all)
}

fn matching(condition: &Match, protocol: Option<Protocol>) -> Option<Expression> {
    let (name, revision, info) = match condition {
        Match::Comment(text) => {
            let mut info = text.as_bytes().to_vec();
            if info.len() >= COMMENT_LEN || info.contains(&0) {
                return None;
            }
            info.resize(COMMENT_LEN, 0);
            ("comment", 0, info)
        }
        Match::ToLocal => {
            // Which sources, which destinations, and that neither is meant the other way round.
            ("addrtype", 1, [&[0; 2], &TYPE_LOCAL.to_ne_bytes()[..], &[0; 4]].concat())
        }
        Match::Port(port) => {
            let protocol = protocol?;
            (protocol.name(), 0, one_port(*port, protocol))
        }
        Match::Ports(ports) => {
            let count =
                u8::try_from(ports.len()).ok().filter(|n| usize::from(*n) <= MULTIPORT_MAX)?;
            let mut info = vec![MULTIPORT_DESTINATION, count];
            info.extend(ports.iter().flat_map(|port| port.to_ne_bytes()));
            info.resize(MULTIPORT_LEN, 0);
            ("multiport", 1, info)
        }
        Match::Mark(bits) => {
            ("mark", 1, [&bits.to_ne_bytes(), &bits.to_ne_bytes(), &[0; 4][..]].concat())
        }
        Match::Established => {
            let mut info = vec![0; CONNTRACK_LEN];
            let mut put = |at: usize, n: u16| info[at..at + 2].copy_from_slice(&n.to_ne_bytes());
            put(CONNTRACK_FLAGS_AT, CONNTRACK_STATE);
            put(CONNTRACK_STATES_AT, ESTABLISHED_OR_RELATED);
            ("conntrack", 3, info)
        }
        Match::Given(_) => return None,
    };
    Some(Expression::older("match", name, revision, &info))
}

/// One destination port, and every source port.
fn one_port(port: u16, protocol: Protocol) -> Vec<u8> {
    let [low, high] = port.to_ne_bytes();
    let one = [low, high, low, high];
    let any = [0, 0, 0xff, 0xff];
    match protocol {
        // Then come the flags of TCP, of which none is compared, or nothing.
        Protocol::Tcp | Protocol::Udp => [&any[..], &one, &[0; 8]].concat(),
        Protocol::Sctp => {
            let mut info = vec![0; SCTP_LEN];
            info[..4].copy_from_slice(&one);
            for at in SCTP_CHUNKS_AT {
                info[at] = 0xff;
            }
            info[SCTP_FLAGS_AT..SCTP_FLAGS_AT + 4]
                .copy_from_slice(&u32::from(SCTP_DESTINATION).to_ne_bytes());
            info
        }
    }
}

fn target(target: &Target, family: Family) -> Expression {
    match target {
        Target::Accept => verdict(ACCEPT, None),
        Target::Jump(chain) => verdict(JUMP, Some(chain)),
        Target::Masquerade => {
            // Of the kernel's choice: no range, which IPv4 says as one range that is none.
            let info = match family {
                Family::V4 => [&1u32.to_ne_bytes()[..], &[0; 20]].concat(),
                Family::V6 => vec![0; 40],
            };
            Expression::older("target", "MASQUERADE", 0, &info)
        }
        Target::DestinationNat(to) => {
            let mut address = address::bytes(to.ip());
            address.resize(16, 0);
            let port = to.port().to_be_bytes();
            let flags = NAT_ADDRESS_AND_PORT.to_ne_bytes();
            let mut info = [&flags[..], &address, &address, &port, &port].concat();
            info.resize(NAT_RANGE_LEN, 0);
            Expression::older("target", "DNAT", 2, &info)
        }
        Target::SetMark(bits) => {
            let bits = bits.to_ne_bytes();
            Expression::older("target", "MARK", 2, &[bits, bits].concat())
        }
    }
}

fn verdict(code: u32, chain: Option<&str>) -> Expression {
    let mut value = Message::bare().with(VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = chain {
        value = value.with_text(VERDICT_CHAIN, chain);
    }
    let value = Message::bare().with(DATA_VERDICT, value.as_bytes());
    Expression::new("immediate", &[(1, &[0; 4]), (2, value.as_bytes())])
}

/// With all of them.
pub(crate) fn put(all: &[Expression], message: Message) -> Message {
    all.iter().fold(message, |message, expression| expression.put(message))
}

/// The expressions of a rule of the kernel's.
pub(crate) fn parse(list: &[u8]) -> Vec<Expression> {
    attributes(list, 0).filter_map(|(_, element)| Expression::parse(element)).collect()
}

/// Does a rule of the kernel's say the same?
pub(crate) fn same(found: &[Expression], rule: &Rule, family: Family) -> bool {
    let Some(wanted) = of(rule, family) else { return false };
    let counted = |all: &[Expression]| -> Vec<Expression> {
        all.iter().filter(|one| one.name != "counter").cloned().collect()
    };
    let (found, wanted) = (counted(found), counted(&wanted));
    let alike = |wanted: &[Expression]| {
        found.len() == wanted.len() && found.iter().zip(wanted).all(|(one, other)| one.is(other))
    };
    alike(&wanted) || alike(&newer(rule, wanted.clone()))
}

/// As newer versions say it: the mark is not compared by a match.
fn newer(rule: &Rule, all: Vec<Expression>) -> Vec<Expression> {
    let [Match::Mark(bits)] = rule.matches[..] else { return all };
    let bits = bits.to_ne_bytes();
    let load = Expression::numbers("meta", &[(2, META_MARK), (1, REGISTER)]);
    let instead = [load, masking(&bits), compare(EQUAL, &bits)];
    let is_match = |one: &Expression| one.name == "match";
    all.into_iter()
        .flat_map(|one| if is_match(&one) { instead.to_vec() } else { vec![one] })
        .collect()
}

/// The chain that a rule of the kernel's leads to.
pub(crate) fn leads_to(found: &[Expression]) -> Option<String> {
    let immediate = found.iter().find(|one| one.name == "immediate")?;
    let (_, value) = immediate.attributes.iter().find(|(kind, _)| *kind == DATA)?;
    let (_, verdict) = attributes(value, 0).find(|(kind, _)| *kind == DATA_VERDICT)?;
    let find = |wanted| attributes(verdict, 0).find(|(kind, _)| *kind == wanted);
    let code = u32::from_be_bytes(*find(VERDICT_CODE)?.1.first_chunk()?);
    let chain = find(VERDICT_CHAIN)?.1;
    matches!(code, JUMP | GOTO).then(|| crate::netlink::text(chain))
}
