//! The plugin `bridge`: pods are ports of a bridge on the node.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::answer::{self, Made, plain_route};
use super::host_local::{self, Given};
use super::interface::{self, Pod, Wanted};
use super::{Job, dns, keys, masquerade, sysctl};
use crate::address;
use crate::attachment::{Attachment, is_ifname};
use crate::config::Fields;
use crate::error::Result;
use crate::link::{self, IFF_PROMISC, IFF_UP, Link, Mac};
use crate::netlink::Socket;
use crate::result::{CniResult, IpNet, Route};

const DEFAULT_NAME: &str = "cni0";
/// Everything that is understood; what has to be off is checked below.
const KEYS: [&str; 18] = [
    "args",
    "bridge",
    "disableContainerInterface",
    "dns",
    "enabledad",
    "forceAddress",
    "hairpinMode",
    "ipMasq",
    "ipMasqBackend",
    "ipam",
    "isDefaultGateway",
    "isGateway",
    "macspoofchk",
    "mtu",
    "portIsolation",
    "preserveDefaultVlan",
    "promiscMode",
    "vlan",
];

/// The configuration.
#[derive(Debug)]
pub(crate) struct Conf {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    pub(super) masquerade: bool,
    mtu: Option<u32>,
    hairpin: bool,
    promiscuous: bool,
    detect_duplicates: bool,
    mac: Option<Mac>,
    dns: Option<Value>,
    ipam: Option<host_local::Conf>,
}

pub(crate) fn parse(fields: &Fields, attachment: &Attachment) -> Option<Conf> {
    keys::only(fields, &KEYS)?;
    for key in ["disableContainerInterface", "macspoofchk", "portIsolation", "preserveDefaultVlan"]
    {
        keys::off(fields, key)?;
    }
    let vlan: u32 = keys::get(fields, "vlan")?.unwrap_or(0);
    let bridge = match keys::get(fields, "bridge")? {
        None => DEFAULT_NAME.to_owned(),
        Some(name) => name,
    };
    let wishes = keys::wishes(fields, attachment)?;
    let is_default_gateway = keys::flag(fields, "isDefaultGateway")?;
    let conf = Conf {
        is_gateway: keys::flag(fields, "isGateway")? || is_default_gateway,
        is_default_gateway,
        force_address: keys::flag(fields, "forceAddress")?,
        masquerade: masquerade::parse(fields, attachment.engines)?,
        mtu: keys::mtu(fields)?,
        hairpin: keys::flag(fields, "hairpinMode")?,
        promiscuous: keys::flag(fields, "promiscMode")?,
        detect_duplicates: keys::flag(fields, "enabledad")?,
        mac: keys::mac(&wishes)?,
        dns: dns::parse(fields)?,
        ipam: host_local::parse(fields, &wishes)?,
        bridge,
    };
    // The kernel would put a number in the place of the other.
    let named = is_ifname(&conf.bridge) && !conf.bridge.contains('%');
    let fine = vlan == 0 && named;
    (fine && !(conf.hairpin && conf.promiscuous)).then_some(conf)
}

pub(crate) fn add(conf: &Conf, job: &Job<'_>) -> Result<CniResult> {
    let host = job.socket()?;
    let bridge = ensure_bridge(conf, &host, job)?;
    let Some(ipam) = &conf.ipam else {
        let given = Given::default();
        return attach(conf, &host, &bridge, given, job);
    };
    ipam.lend(job, |given| attach(conf, &host, &bridge, given, job))
}

fn attach(
    conf: &Conf,
    host: &Socket,
    bridge: &Link,
    mut given: Given,
    job: &Job<'_>,
) -> Result<CniResult> {
    let gateways = gateways(conf, &mut given);
    let pod = Pod::open(job)?;
    let pair = (conf.mac, conf.mtu, Some(bridge.index));
    let name = interface::make_pair(host, &pod, pair, job)?;
    let inside = pod.run(|| {
        let (socket, link) = interface::inside(job)?;
        if conf.ipam.is_some() {
            tune(&link.name, conf.detect_duplicates);
        }
        let wanted = Wanted { ips: &given.ips, routes: &given.routes };
        interface::configure(&socket, &link, &wanted, job)?;
        Ok(link)
    })?;
    let port = interface::carries(host, &name, job)?;
    if conf.hairpin {
        let failed = |e| job.refused(format_args!("hairpin mode of {name:?}: {e}"));
        host.ask(link::set_hairpin(port.index)).map_err(failed)?;
    }
    ensure_addresses(conf, host, bridge, &gateways, job)?;
    if conf.masquerade {
        masquerade::add(job, &host_local::nets(&given.ips))?;
    }
    // Its address may be that of a port.
    let bridge = Link::find(host, &conf.bridge)
        .map_err(|e| job.refused(format_args!("{:?}: {e}", conf.bridge)))?;
    let interfaces = vec![
        answer::interface_of(&bridge, String::new()),
        answer::interface_of(&port, String::new()),
        answer::interface_of(&inside, pod.path.display().to_string()),
    ];
    let dns = conf.dns.clone().or(given.dns);
    Made { interfaces, ips: given.ips, routes: given.routes, dns }.into_result(job)
}

/// The bridge, up: made if there is none.
fn ensure_bridge(conf: &Conf, host: &Socket, job: &Job<'_>) -> Result<Link> {
    let name = conf.bridge.as_str();
    let failed = |e: io::Error| job.refused(format_args!("bridge {name:?}: {e}"));
    let get = || Link::find(host, name);
    let bridge = match get() {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
            match host.ask(link::new_bridge(name, conf.mtu)) {
                // Another pod may have been first.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => drop(made.map_err(failed)?),
            }
            get().map_err(failed)?
        }
        found => found.map_err(failed)?,
    };
    if bridge.kind != "bridge" {
        return Err(job.refused(format_args!("{name:?} already exists but is not a bridge")));
    }
    // The routes of this interface are ours.
    let _ = sysctl::ensure(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    let wanted = if conf.promiscuous { IFF_UP | IFF_PROMISC } else { IFF_UP };
    if bridge.flags & wanted != wanted {
        host.ask(link::set_flags(bridge.index, wanted, wanted)).map_err(failed)?;
    }
    Ok(bridge)
}

/// Which addresses the bridge is to have; adds the default routes that the pod is to have.
fn gateways(conf: &Conf, given: &mut Given) -> Vec<IpNet> {
    let mut gateways = Vec::new();
    let mut routed = [false; 2];
    for ip in &mut given.ips {
        // The pod's interface is the third of the result.
        ip.interface = Some(2);
        let four = ip.address.addr.is_ipv4();
        let everywhere = IpNet { addr: everywhere(four), prefix: 0 };
        if conf.is_default_gateway && !std::mem::replace(&mut routed[usize::from(four)], true) {
            let is = |route: &Route| route.gw.is_some() && route.dst == everywhere;
            if !given.routes.iter().any(is) {
                given.routes.push(plain_route(everywhere, ip.gateway));
            }
        }
        let gateway = ip.gateway.filter(|_| conf.is_gateway);
        gateways.extend(gateway.map(|addr| IpNet { addr, ..ip.address }));
    }
    // IPv4 first, as the executable goes about it.
    gateways.sort_by_key(|net| net.addr.is_ipv6());
    gateways
}

fn everywhere(four: bool) -> IpAddr {
    if four { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Gives the bridge its addresses, and has the node forward. The bridge has a port by then: whoever sets its hardware
/// address before makes it lose a carrier that it does not notice again.
fn ensure_addresses(
    conf: &Conf,
    host: &Socket,
    bridge: &Link,
    wanted: &[IpNet],
    job: &Job<'_>,
) -> Result<()> {
    let name = conf.bridge.as_str();
    for net in wanted {
        ensure_address(conf, host, bridge, *net, job)?;
    }
    interface::forward(wanted.iter().map(|net| net.addr))
        .map_err(|e| job.refused(format_args!("enable forwarding for {name:?}: {e}")))
}

/// A bridge has one IPv4 address, and IPv6 addresses whose networks do not overlap.
fn ensure_address(
    conf: &Conf,
    host: &Socket,
    bridge: &Link,
    net: IpNet,
    job: &Job<'_>,
) -> Result<()> {
    let name = conf.bridge.as_str();
    let failed = |e: io::Error| job.refused(format_args!("address {net} of {name:?}: {e}"));
    let found = address::of_link(host, bridge.index, Some(net.addr)).map_err(failed)?;
    for other in found.iter().map(|found| found.net) {
        if other == net {
            return Ok(());
        }
        if net.addr.is_ipv4() || other.contains(net.addr) || net.contains(other.addr) {
            if !conf.force_address {
                return Err(job.refused(format_args!(
                    "{name:?} already has an IP address different from {net}"
                )));
            }
            host.ask(address::delete(bridge.index, other)).map_err(failed)?;
        }
    }
    // Said once, it stays: else the bridge takes the lowest of its ports', and changes it as they come and go. Before
    // the address, which tells who comes next that all of this is done.
    host.ask(link::set_mac(bridge.index, bridge.mac)).map_err(failed)?;
    match host.ask(address::add(bridge.index, net)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map(drop).map_err(failed),
    }
}

/// In the pod, before it has an address. Whoever lacks one of these lives without.
fn tune(ifname: &str, detect_duplicates: bool) {
    if detect_duplicates {
        let _ = sysctl::write(&format!("net/ipv6/conf/{ifname}/enhanced_dad"), "1");
    }
    let accept = if detect_duplicates { "1" } else { "0" };
    let _ = sysctl::write(&format!("net/ipv6/conf/{ifname}/accept_dad"), accept);
    let _ = sysctl::write(&format!("net/ipv4/conf/{ifname}/arp_notify"), "1");
}

pub(crate) fn del(conf: &Conf, job: &Job<'_>, previous: Option<&CniResult>) -> Result<()> {
    let found = interface::remove(job, conf.masquerade, previous)?;
    if let Some(ipam) = &conf.ipam {
        ipam.del(job)?;
        if conf.masquerade {
            masquerade::del(job, &found)?;
        }
    }
    Ok(())
}
