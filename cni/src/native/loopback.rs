//! The plugin `loopback`: the interface `lo` is up.

use std::net::IpAddr;

use super::answer::Made;
use super::{Job, keys};
use crate::address::{self, Address};
use crate::attachment::Attachment;
use crate::config::Fields;
use crate::error::Result;
use crate::link::{self, IFF_UP, Link};
use crate::netlink::Socket;
use crate::netns;
use crate::result::{CniResult, Interface, Ip};

const NAME: &str = "lo";

pub(crate) fn parse(fields: &Fields, _attachment: &Attachment) -> Option<()> {
    keys::only(fields, &[])
}

/// Passes on what a plugin before it gave.
pub(crate) fn add(job: &Job<'_>, previous: Option<&CniResult>) -> Result<CniResult> {
    let path = job.netns().ok_or_else(|| job.refused("no network namespace"))?;
    let found = netns::run_in(path, up)?.map_err(|e| job.refused(format_args!("{NAME}: {e}")))?;
    if let Some(other) = found.iter().find(|a| !a.net.addr.is_loopback()) {
        return Err(job.refused(format_args!("{NAME} has the address {}", other.net.addr)));
    }
    if let Some(previous) = previous {
        return Ok(previous.clone());
    }
    let first = |is: fn(&IpAddr) -> bool| found.iter().map(|a| a.net).find(|net| is(&net.addr));
    let ips = [first(IpAddr::is_ipv4), first(IpAddr::is_ipv6)];
    let ip = |address| Ip { address, gateway: None, interface: Some(0) };
    Made {
        interfaces: vec![Interface {
            name: NAME.into(),
            mac: "00:00:00:00:00:00".into(),
            sandbox: path.display().to_string(),
            ..Interface::default()
        }],
        ips: ips.into_iter().flatten().map(ip).collect(),
        ..Made::default()
    }
    .into_result(job)
}

fn up() -> std::io::Result<Vec<Address>> {
    let socket = Socket::route()?;
    let lo = Link::find(&socket, NAME)?;
    socket.ask(link::set_flags(lo.index, IFF_UP, IFF_UP))?;
    address::of_link(&socket, lo.index, None)
}

/// Takes it down.
pub(crate) fn del(job: &Job<'_>) -> Result<()> {
    let Some(path) = job.netns() else { return Ok(()) };
    let down = || {
        let socket = Socket::route()?;
        let lo = Link::find(&socket, NAME)?;
        socket.ask(link::set_flags(lo.index, 0, IFF_UP)).map(drop)
    };
    netns::run_in(path, down)?.map_err(|e: std::io::Error| job.refused(format_args!("{NAME}: {e}")))
}
