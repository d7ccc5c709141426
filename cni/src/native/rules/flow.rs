//! Flows that the kernel tracks.

use std::collections::HashSet;
use std::io;

use super::{Family, Protocol};
use crate::netlink::{Message, NLA_F_NESTED, NLM_F_DUMP, Socket, attributes};

/// `NFNL_SUBSYS_CTNETLINK`, as the upper half of a message's kind.
const CONNTRACK: u16 = 1 << 8;
const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// A `nfgenmsg`: the family, a version that is 0, and nothing.
pub(super) const HEAD_LEN: usize = 4;

pub(super) fn head(family: Family) -> [u8; HEAD_LEN] {
    [number(family), 0, 0, 0]
}

/// `AF_INET` or `AF_INET6`.
pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Makes the kernel forget which way datagrams to these ports went.
pub(crate) fn forget_udp(family: Family, ports: &HashSet<u16>) -> io::Result<()> {
    let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
    let flows = socket.ask(Message::new(GET, NLM_F_DUMP, &head(family)))?;
    for flow in flows.iter().filter(|flow| is_to(flow, ports)) {
        let mut message = Message::new(DELETE, 0, &head(family));
        for (kind, value) in attributes(flow, HEAD_LEN) {
            message = match kind {
                CTA_TUPLE_ORIG => message.with(kind | NLA_F_NESTED, value),
                CTA_ID | CTA_ZONE => message.with(kind, value),
                _ => message,
            };
        }
        match socket.ask(message) {
            // It may have ended meanwhile.
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Is it a flow of datagrams that were first sent to one of these ports?
fn is_to(flow: &[u8], ports: &HashSet<u16>) -> bool {
    let find = |value: &[u8], start, wanted| {
        attributes(value, start).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
    };
    let protocol = find(flow, HEAD_LEN, CTA_TUPLE_ORIG).and_then(|t| find(&t, 0, CTA_TUPLE_PROTO));
    let Some(protocol) = protocol else { return false };
    let number = find(&protocol, 0, CTA_PROTO_NUM);
    let port = find(&protocol, 0, CTA_PROTO_DST_PORT);
    let port = port.and_then(|port| Some(u16::from_be_bytes(*port.first_chunk()?)));
    number.as_deref() == Some(&[Protocol::Udp.number()]) && port.is_some_and(|p| ports.contains(&p))
}
