//! Addresses and routes, through netlink.

use std::net::IpAddr;

use crate::netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes, u32_at};
use crate::result::IpNet;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// An rtmsg.
const ROUTE_LEN: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

/// Duplicate address detection has found another that has it.
pub(crate) const IFA_F_DADFAILED: u32 = 8;
/// Duplicate address detection is not through with it.
pub(crate) const IFA_F_TENTATIVE: u32 = 0x40;
/// The group that hears of IPv6 addresses.
pub(crate) const RTNLGRP_IPV6_IFADDR: u32 = 9;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
pub(crate) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(crate) const RT_SCOPE_LINK: u8 = 253;
pub(crate) const RT_SCOPE_HOST: u8 = 254;
const RT_SCOPE_NOWHERE: u8 = 255;
/// An `ifaddrmsg`.
const FIXED_LEN: usize = 8;

/// An address as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) net: IpNet,
    pub(crate) flags: u32,
}

impl Address {
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let (prefix, flags) = (*body.get(1)?, *body.get(2)?);
        let (mut local, mut address, mut flags) = (None, None, u32::from(flags));
        for (kind, value) in attributes(body, FIXED_LEN) {
            match kind {
                IFA_LOCAL => local = ip(value),
                IFA_ADDRESS => address = ip(value),
                IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        // IPv6 has no local address apart from the address.
        let net = IpNet { addr: local.or(address)?, prefix };
        Some(Self { index: u32_at(body, 4)?, net, flags })
    }
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(value) {
        return Some(IpAddr::from(bytes));
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

/// As the kernel reads it.
pub(crate) fn bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn family(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// The addresses of a link, those of one family where it is given.
fn dump(index: u32, of: Option<IpAddr>) -> Message {
    let mut fixed = [0; FIXED_LEN];
    fixed[0] = of.map_or(0, family);
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    Message::new(RTM_GETADDR, NLM_F_DUMP, &fixed)
}

fn address(kind: u16, flags: u16, index: u32, net: IpNet) -> Message {
    let mut fixed = [0; FIXED_LEN];
    fixed[0] = family(net.addr);
    fixed[1] = net.prefix;
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let value = bytes(net.addr);
    Message::new(kind, flags, &fixed).with(IFA_LOCAL, &value).with(IFA_ADDRESS, &value)
}

/// Gives a link an address; an IPv4 network that has room for one gets its broadcast address.
pub(crate) fn add(index: u32, net: IpNet) -> Message {
    let message = address(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, net);
    match net.addr {
        IpAddr::V4(addr) if net.prefix < 31 => {
            let broadcast = addr.to_bits() | (u32::MAX >> net.prefix);
            message.with(IFA_BROADCAST, &broadcast.to_be_bytes())
        }
        _ => message,
    }
}

/// Takes an address from a link.
pub(crate) fn delete(index: u32, net: IpNet) -> Message {
    address(RTM_DELADDR, 0, index, net)
}

/// A route by way of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) index: u32,
    pub(crate) dst: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) scope: u8,
}

impl Way {
    /// Adds it; one that there is already is a failure.
    pub(crate) fn add(&self) -> Message {
        self.message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, self.scope, RTPROT_BOOT, RTN_UNICAST)
    }

    /// Adds it beside others to the same place.
    pub(crate) fn add_beside(&self) -> Message {
        self.message(RTM_NEWROUTE, NLM_F_CREATE, self.scope, RTPROT_BOOT, RTN_UNICAST)
    }

    /// Removes the route to there, whatever else it is.
    pub(crate) fn delete(index: u32, dst: IpNet) -> Message {
        let way = Self { index, dst, gateway: None, source: None, scope: RT_SCOPE_NOWHERE };
        way.message(RTM_DELROUTE, 0, RT_SCOPE_NOWHERE, 0, 0)
    }

    fn message(&self, kind: u16, flags: u16, scope: u8, protocol: u8, unicast: u8) -> Message {
        // Family, lengths of the prefixes, type of service, table, protocol, scope, type, flags.
        let fixed: [u8; ROUTE_LEN] = [
            family(self.dst.addr),
            self.dst.prefix,
            0,
            0,
            RT_TABLE_MAIN,
            protocol,
            scope,
            unicast,
            0,
            0,
            0,
            0,
        ];
        let mut message = Message::new(kind, flags, &fixed).with(RTA_DST, &bytes(self.dst.addr));
        for (kind, addr) in [(RTA_PREFSRC, self.source), (RTA_GATEWAY, self.gateway)] {
            if let Some(addr) = addr {
                message = message.with(kind, &bytes(addr));
            }
        }
        message.with_u32(RTA_OIF, self.index)
    }
}

/// The index of the link by which `addr` is reached; `None` if by none.
pub(crate) fn link_to(socket: &Socket, addr: IpAddr) -> Option<u32> {
    let mut fixed = [0; ROUTE_LEN];
    fixed[0] = family(addr);
    fixed[1] = IpNet::alone(addr).prefix;
    let asked = Message::new(RTM_GETROUTE, 0, &fixed).with(RTA_DST, &bytes(addr));
    let bodies = socket.ask(asked).ok()?;
    let mut all = bodies.iter().flat_map(|body| attributes(body, ROUTE_LEN));
    all.find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, index)| u32_at(index, 0))
}

/// The addresses of a link, those of the family of `of` where it is given.
pub(crate) fn of_link(
    socket: &Socket,
    index: u32,
    of: Option<IpAddr>,
) -> std::io::Result<Vec<Address>> {
    let bodies = socket.ask(dump(index, of))?;
    // Old kernels give those of all links.
    let all = bodies.iter().filter_map(|body| Address::parse(body));
    Ok(all.filter(|address| address.index == index).collect())
}
