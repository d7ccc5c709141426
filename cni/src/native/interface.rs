//! The pod's interface: a pair of virtual Ethernet devices, and what the pod's end gets.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::{Job, sysctl};
use crate::address::{
    self, Address, IFA_F_DADFAILED, IFA_F_TENTATIVE, RT_SCOPE_UNIVERSE, RTNLGRP_IPV6_IFADDR, Way,
};
use crate::error::{Error, Result};
use crate::link::{self, IFF_UP, Link, Mac, RTNLGRP_LINK, Veth};
use crate::netlink::{Message, Socket};
use crate::netns;
use crate::result::{CniResult, Ip, IpNet, Route};

/// How many names are tried for the host's end.
const NAMES: usize = 10;
/// How long addresses may take to be found unique, and a port to carry traffic.
const SETTLES_IN: Duration = Duration::from_secs(5);
/// Who waits for the kernel to tell of a change looks by itself as often: it does not tell of all.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A pod's network namespace, open.
#[derive(Debug)]
pub(crate) struct Pod<'a> {
    pub(crate) path: &'a Path,
    namespace: File,
}

impl<'a> Pod<'a> {
    pub(crate) fn open(job: &Job<'a>) -> Result<Self> {
        let path = job.netns().ok_or_else(|| job.refused("no network namespace"))?;
        Ok(Self { path, namespace: netns::open_checked(path)? })
    }

    /// On a thread in the namespace.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::enter(&self.namespace, self.path, f)?
    }
}

/// Makes the pair, and gives the name of the host's end, which is up.
pub(crate) fn make_pair(
    host: &Socket,
    pod: &Pod<'_>,
    (mac, mtu, master): (Option<Mac>, Option<u32>, Option<u32>),
    job: &Job<'_>,
) -> Result<String> {
    let ifname = job.ifname();
    for _ in 0..NAMES {
        let name = random_name();
        let netns = pod.namespace.as_fd();
        let veth = Veth { host: &name, master, pod: ifname, netns, mac, mtu };
        match host.ask(veth.create()) {
            Ok(_) => {
                // The routes of this interface are ours.
                let _ = sysctl::write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
                return Ok(name);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if host.ask(link::get(&name)).is_err() {
                    return Err(job.refused(format_args!("{ifname:?} exists in the pod already")));
                }
            }
            Err(e) => return Err(job.refused(format_args!("make a veth pair: {e}"))),
        }
    }
    Err(job.refused("no free name for a veth"))
}

/// The keys of the standard library's hash maps are random; that is random enough for a name.
fn random_name() -> String {
    let bits = RandomState::new().build_hasher().finish();
    format!("veth{:08x}", bits & u64::from(u32::MAX))
}

/// What the pod's end is to have.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) ips: &'a [Ip],
    pub(crate) routes: &'a [Route],
}

/// In the pod: gives the link its addresses, brings it up, waits until they are settled, and adds the routes.
pub(crate) fn configure(
    pod: &Socket,
    link: &Link,
    wanted: &Wanted<'_>,
    job: &Job<'_>,
) -> Result<()> {
    let ifname = link.name.as_str();
    let six = wanted.ips.iter().any(|ip| ip.address.addr.is_ipv6());
    if six {
        enable_ipv6(ifname)
            .map_err(|e| job.refused(format_args!("enable IPv6 for {ifname:?}: {e}")))?;
    }
    let mut todo: Vec<(String, Message)> = Vec::new();
    for Ip { address: net, .. } in wanted.ips {
        todo.push((format!("add the address {net} to {ifname:?}"), address::add(link.index, *net)));
    }
    todo.push((format!("set {ifname:?} up"), link::set_flags(link.index, IFF_UP, IFF_UP)));
    // Each batch is one round trip, so the routes go along where nothing has to settle before them.
    if six {
        perform(pod, std::mem::take(&mut todo), job)?;
        settle(ifname, link.index, job)?;
    }
    let gateway = |is: fn(&IpAddr) -> bool| wanted.ips.iter().filter_map(|ip| ip.gateway).find(is);
    let (four, six) = (gateway(IpAddr::is_ipv4), gateway(IpAddr::is_ipv6));
    for Route { dst, gw, .. } in wanted.routes {
        let gateway = gw.or(if dst.addr.is_ipv4() { four } else { six });
        let scope = RT_SCOPE_UNIVERSE;
        let way = Way { index: link.index, dst: *dst, gateway, source: None, scope };
        let via = gateway.map_or(String::new(), |gateway| format!(" via {gateway}"));
        todo.push((format!("add the route {dst}{via}"), way.add_beside()));
    }
    perform(pod, todo, job)
}

/// Makes requests; the error is that of the first that failed.
pub(crate) fn perform(socket: &Socket, todo: Vec<(String, Message)>, job: &Job<'_>) -> Result<()> {
    job.check()?;
    let (what, messages): (Vec<_>, Vec<_>) = todo.into_iter().unzip();
    socket.all(&messages).map_err(|(at, e)| {
        let what = what.get(at).map_or("netlink", String::as_str);
        job.refused(format_args!("{what}: {e}"))
    })
}

fn enable_ipv6(ifname: &str) -> io::Result<()> {
    for name in ["lo", ifname] {
        let name = format!("net/ipv6/conf/{name}/disable_ipv6");
        match sysctl::read(&name) {
            Ok(value) if value != "0" => sysctl::write(&name, "0")?,
            // A kernel without IPv6 says so when the address is added.
            _ => {}
        }
    }
    sysctl::write(&format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1")
}

/// The pod's interface, asked for in its namespace, with the socket for it.
pub(crate) fn inside(job: &Job<'_>) -> Result<(Socket, Link)> {
    let socket = job.socket()?;
    let link = Link::find(&socket, job.ifname())
        .map_err(|e| job.refused(format_args!("{:?}: {e}", job.ifname())))?;
    Ok((socket, link))
}

/// Waits until every IPv6 address of a link is known to be nobody else's.
fn settle(ifname: &str, index: u32, job: &Job<'_>) -> Result<()> {
    let failed = |e: io::Error| job.refused(format_args!("addresses of {ifname:?}: {e}"));
    // One that hears of changes is not asked anything: their answers would mix.
    let (asks, hears) = (Socket::route().map_err(failed)?, Socket::route().map_err(failed)?);
    hears.join(RTNLGRP_IPV6_IFADDR).map_err(failed)?;
    let soon = job.deadline.within(SETTLES_IN);
    loop {
        // Whoever asks about a link makes newer kernels notice its carrier, without which nothing begins.
        let link = Link::find(&asks, ifname).map_err(failed)?;
        let of = Some(IpAddr::from([0u16; 8]));
        let found = address::of_link(&asks, index, of).map_err(failed)?;
        let has = |flag: u32| found.iter().find(|address| address.flags & flag != 0);
        if let Some(Address { net, .. }) = has(IFA_F_DADFAILED) {
            return Err(job.refused(format_args!("{} of {ifname:?} is in use elsewhere", net.addr)));
        }
        if has(IFA_F_TENTATIVE).is_none() {
            return Ok(());
        }
        hears.wait(&soon.within(LOOK_AGAIN)).map_err(failed)?;
        job.check()?;
        if soon.left().is_zero() {
            // While no peer is up, nothing is found out.
            return if link.is_up {
                Err(job.refused(format_args!("{ifname:?} still has tentative addresses")))
            } else {
                Ok(())
            };
        }
    }
}

/// Waits until the link `name` carries traffic, and gives it.
pub(crate) fn carries(host: &Socket, name: &str, job: &Job<'_>) -> Result<Link> {
    let failed = |e: io::Error| job.refused(format_args!("{name:?}: {e}"));
    let get = || Link::find(host, name).map_err(failed);
    // Asking makes newer kernels find out at once.
    let link = get()?;
    if link.is_up {
        return Ok(link);
    }
    let hears = Socket::route().map_err(failed)?;
    hears.join(RTNLGRP_LINK).map_err(failed)?;
    let soon = job.deadline.within(SETTLES_IN);
    loop {
        let link = get()?;
        if link.is_up {
            return Ok(link);
        }
        hears.wait(&soon.within(LOOK_AGAIN)).map_err(failed)?;
        job.check()?;
        if soon.left().is_zero() {
            return Err(job.refused(format_args!("{name:?} carries no traffic")));
        }
    }
}

/// Has the node forward what is of the families of these addresses.
pub(crate) fn forward(addresses: impl Iterator<Item = IpAddr>) -> io::Result<()> {
    let (mut four, mut six) = (false, false);
    addresses.for_each(|addr| *(if addr.is_ipv4() { &mut four } else { &mut six }) = true);
    let names = [(four, "net/ipv4/ip_forward"), (six, "net/ipv6/conf/all/forwarding")];
    let mut wanted = names.iter().filter(|(wanted, _)| *wanted);
    wanted.try_for_each(|(_, name)| sysctl::ensure(name, "1"))
}

/// Removes the pod's interface, and gives the addresses it had that others could reach; those of the result of its
/// ADD where it, or its namespace, is no more.
pub(crate) fn remove(
    job: &Job<'_>,
    want_addresses: bool,
    previous: Option<&CniResult>,
) -> Result<Vec<IpNet>> {
    let found = match job.netns().map(netns::open_checked) {
        None => Vec::new(),
        Some(Err(Error::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        Some(namespace) => {
            let path = job.netns().unwrap_or(Path::new(""));
            let ifname = job.ifname();
            netns::enter(&namespace?, path, || remove_here(ifname, want_addresses))?
                .map_err(|e| job.refused(format_args!("delete {ifname:?}: {e}")))?
        }
    };
    let before = previous.filter(|_| want_addresses && found.is_empty());
    Ok(before.map_or(found, |before| before.ips.iter().map(|ip| ip.address).collect()))
}

/// In the pod. No interface is no failure.
fn remove_here(ifname: &str, want_addresses: bool) -> io::Result<Vec<IpNet>> {
    let pod = Socket::route()?;
    let mut found = Vec::new();
    if want_addresses {
        let index = match Link::find(&pod, ifname) {
            Err(e) if is_gone(&e) => return Ok(found),
            link => link?.index,
        };
        let all = address::of_link(&pod, index, None)?.into_iter().map(|a| a.net);
        found.extend(all.filter(|net| is_global_unicast(net.addr)));
    }
    match pod.ask(link::delete(ifname)) {
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        done => done.map(|_| found),
    }
}

fn is_gone(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::ENODEV)
}

fn is_global_unicast(addr: IpAddr) -> bool {
    let narrow = match addr {
        IpAddr::V4(addr) => addr.is_broadcast() || addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !narrow && !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast()
}
