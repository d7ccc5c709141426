//! Lets the host's loopback reach pods.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;

use crate::netlink::{Message, Socket, attributes, text, u32_at};

const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const IFLA_IFNAME: u16 = 3;
const AF_INET: u8 = 2;
/// A `rtmsg`.
const ROUTE_LEN: usize = 12;
/// An `ifinfomsg`; the interface's index begins at its fifth byte.
const LINK_LEN: usize = 16;

/// Lets addresses of the loopback leave by the interface that leads to `pod`: answers to what was sent from there
/// would be dropped as from nowhere. Where no interface leads to it there is nothing to do.
pub(crate) fn route_loopback(pod: IpAddr) -> io::Result<()> {
    let IpAddr::V4(pod) = pod else { return Ok(()) };
    let Some(name) = interface_to(&pod.octets())? else { return Ok(()) };
    // The name of an interface has no slash, and the kernel gives none that is a dot or two.
    let path = format!("/proc/sys/net/ipv4/conf/{name}/route_localnet");
    if fs::read(&path).is_ok_and(|value| value.trim_ascii() == b"1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))
}

fn interface_to(address: &[u8; 4]) -> io::Result<Option<String>> {
    let socket = Socket::route()?;
    let mut head = [0; ROUTE_LEN];
    head[0] = AF_INET;
    head[1] = 32;
    let Ok(route) = socket.ask(Message::new(RTM_GETROUTE, 0, &head).with(RTA_DST, address)) else {
        return Ok(None);
    };
    let of = |bodies: &[Vec<u8>], len, wanted| {
        let mut all = bodies.iter().flat_map(|body| attributes(body, len));
        all.find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
    };
    let Some(index) = of(&route, ROUTE_LEN, RTA_OIF).and_then(|v| u32_at(&v, 0)) else {
        return Ok(None);
    };
    let mut head = [0; LINK_LEN];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let link = socket.ask(Message::new(RTM_GETLINK, 0, &head))?;
    let name = of(&link, LINK_LEN, IFLA_IFNAME).map(|value| text(&value));
    name.map(Some).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an interface has no name"))
}
