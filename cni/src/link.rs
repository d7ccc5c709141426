//! Network interfaces, through netlink: the requests that make, change and read them.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{
    Message, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, Reply, Socket, attributes, text, u32_at,
};

/// Create a link or, by its index or name, change one.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
/// Leaves the counters out of an answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

pub(crate) const IFF_UP: u32 = 1;
pub(crate) const IFF_PROMISC: u32 = 0x100;
pub(crate) const IFF_ALLMULTI: u32 = 0x200;
const IF_OPER_UP: u8 = 6;
const AF_BRIDGE: u8 = 7;
/// The group that hears of links.
pub(crate) const RTNLGRP_LINK: u32 = 1;
/// In every network namespace the loopback interface is the first.
const LOOPBACK_INDEX: u32 = 1;
/// An `ifinfomsg`.
const FIXED_LEN: usize = 16;

/// A hardware address of Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// Six pairs of hexadecimal digits with colons between them, and no other of the forms there are.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next()?;
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| plain)?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) flags: u32,
    pub(crate) name: String,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// Carries traffic.
    pub(crate) is_up: bool,
    /// `bridge`, `veth`; empty for what nobody made.
    pub(crate) kind: String,
}

impl Link {
    /// The link `name`.
    pub(crate) fn find(socket: &Socket, name: &str) -> io::Result<Self> {
        Self::from_reply(socket.ask(get(name)))
    }

    /// The link of that index.
    pub(crate) fn of_index(socket: &Socket, index: u32) -> io::Result<Self> {
        Self::from_reply(socket.ask(Message::new(RTM_GETLINK, 0, &fixed(0, index, 0, 0))))
    }

    /// The first link of a reply.
    fn from_reply(reply: Reply) -> io::Result<Self> {
        let bodies = reply?;
        let missing =
            || io::Error::new(io::ErrorKind::InvalidData, "an unexpected netlink message");
        bodies.first().and_then(|body| Self::parse(body)).ok_or_else(missing)
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut link = Self { index: u32_at(body, 4)?, flags: u32_at(body, 8)?, ..Self::default() };
        for (kind, value) in attributes(body, FIXED_LEN) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => link.mac = value.try_into().map(Mac).unwrap_or_default(),
                IFLA_MTU => link.mtu = u32_at(value, 0)?,
                IFLA_OPERSTATE => link.is_up = value.first() == Some(&IF_OPER_UP),
                IFLA_LINKINFO => {
                    let kind = attributes(value, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    link.kind = kind.map_or(String::new(), |(_, value)| text(value));
                }
                _ => {}
            }
        }
        Some(link)
    }
}

/// Brings the loopback interface of the calling thread's network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    Socket::route()?.ask(set_flags(LOOPBACK_INDEX, IFF_UP, IFF_UP)).map(drop)
}

/// What is the link `name`?
pub(crate) fn get(name: &str) -> Message {
    Message::new(RTM_GETLINK, 0, &fixed(0, 0, 0, 0))
        .with_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .with_text(IFLA_IFNAME, name)
}

/// Sets those of a link's flags that are in `which`.
pub(crate) fn set_flags(index: u32, flags: u32, which: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &fixed(0, index, flags, which))
}

pub(crate) fn set_mac(index: u32, mac: Mac) -> Message {
    Message::new(RTM_SETLINK, 0, &fixed(0, index, 0, 0)).with(IFLA_ADDRESS, &mac.0)
}

pub(crate) fn set_mtu(index: u32, mtu: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &fixed(0, index, 0, 0)).with_u32(IFLA_MTU, mtu)
}

/// How many packets may wait to be sent.
pub(crate) fn set_queue(index: u32, len: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &fixed(0, index, 0, 0)).with_u32(IFLA_TXQLEN, len)
}

/// Lets a bridge send packets back out of the port that they came in by.
pub(crate) fn set_hairpin(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &fixed(AF_BRIDGE, index, 0, 0))
        .with_nested(IFLA_PROTINFO | NLA_F_NESTED, |port| port.with(IFLA_BRPORT_MODE, &[1]))
}

/// Removes the link `name`.
pub(crate) fn delete(name: &str) -> Message {
    Message::new(RTM_DELLINK, 0, &fixed(0, 0, 0, 0)).with_text(IFLA_IFNAME, name)
}

/// Makes a bridge, if there is no link of that name.
pub(crate) fn new_bridge(name: &str, mtu: Option<u32>) -> Message {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed(0, 0, 0, 0))
        .with_text(IFLA_IFNAME, name);
    let message = mtu.into_iter().fold(message, |message, mtu| message.with_u32(IFLA_MTU, mtu));
    message.with_nested(IFLA_LINKINFO, |info| info.with(IFLA_INFO_KIND, b"bridge"))
}

/// A pair of interfaces, of which one is in a pod.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// The one in the socket's namespace, which is brought up.
    pub(crate) host: &'a str,
    /// The bridge that it becomes a port of.
    pub(crate) master: Option<u32>,
    pub(crate) pod: &'a str,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u32>,
}

impl Veth<'_> {
    /// Makes it: both ends where they belong, in one request.
    pub(crate) fn create(&self) -> Message {
        let message =
            Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed(0, 0, IFF_UP, IFF_UP))
                .with_text(IFLA_IFNAME, self.host);
        let message =
            self.mtu.into_iter().fold(message, |message, mtu| message.with_u32(IFLA_MTU, mtu));
        let message = self
            .master
            .into_iter()
            .fold(message, |message, index| message.with_u32(IFLA_MASTER, index));
        message.with_nested(IFLA_LINKINFO, |info| {
            info.with(IFLA_INFO_KIND, b"veth").with_nested(IFLA_INFO_DATA, |data| {
                data.with_nested(VETH_INFO_PEER, |peer| self.peer(peer))
            })
        })
    }

    fn peer(&self, peer: Message) -> Message {
        let netns = self.netns.as_raw_fd().cast_unsigned();
        let peer = peer
            .with_bytes(&fixed(0, 0, 0, 0))
            .with_text(IFLA_IFNAME, self.pod)
            .with_u32(IFLA_NET_NS_FD, netns);
        let peer = self.mac.iter().fold(peer, |peer, mac| peer.with(IFLA_ADDRESS, &mac.0));
        self.mtu.into_iter().fold(peer, |peer, mtu| peer.with_u32(IFLA_MTU, mtu))
    }
}

/// An `ifinfomsg`: family, index, flags, and which flags are meant.
fn fixed(family: u8, index: u32, flags: u32, which: u32) -> [u8; FIXED_LEN] {
    let mut bytes = [0; FIXED_LEN];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&which.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_has_one_form() {
        let mac = Mac::parse("0A:bc:de:f0:12:34").unwrap();
        assert_eq!(mac.to_string(), "0a:bc:de:f0:12:34");
        for text in
            ["", "0a:bc:de:f0:12", "0a-bc-de-f0-12-34", "0a:bc:de:f0:12:34:56", "+a:bc:de:f0:12:34"]
        {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }
}
