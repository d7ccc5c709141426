//! Lets the host's loopback reach pods.

use std::io;
use std::net::IpAddr;

use crate::address;
use crate::link::Link;
use crate::native::sysctl;
use crate::netlink::Socket;

/// Lets addresses of the loopback leave by the interface that leads to `pod`: answers to what was sent from there
/// would be dropped as from nowhere. Where no interface leads to it there is nothing to do.
pub(crate) fn route_loopback(pod: IpAddr) -> io::Result<()> {
    if !pod.is_ipv4() {
        return Ok(());
    }
    let socket = Socket::route()?;
    let Some(index) = address::link_to(&socket, pod) else { return Ok(()) };
    // The name of an interface has no slash, and the kernel gives none that is a dot or two.
    let name = format!("net/ipv4/conf/{}/route_localnet", Link::of_index(&socket, index)?.name);
    sysctl::ensure(&name, "1").map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))
}
