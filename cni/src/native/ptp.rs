//! The plugin `ptp`: each pod has a link of its own to the node, which is its gateway.

use std::io;
use std::net::IpAddr;

use serde_json::Value;

use super::answer::{self, Made};
use super::host_local::{self, Given};
use super::interface::{self, Pod, Wanted};
use super::{Job, dns, keys, masquerade};
use crate::address::{self, RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, Way};
use crate::attachment::Attachment;
use crate::config::Fields;
use crate::error::Result;
use crate::link::Link;
use crate::netlink::Socket;
use crate::result::{CniResult, Ip, IpNet};

/// Everything that is understood.
const KEYS: [&str; 6] = ["args", "dns", "ipMasq", "ipMasqBackend", "ipam", "mtu"];

/// The configuration.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(super) masquerade: bool,
    mtu: Option<u32>,
    dns: Option<Value>,
    ipam: host_local::Conf,
}

pub(crate) fn parse(fields: &Fields, attachment: &Attachment) -> Option<Conf> {
    keys::only(fields, &KEYS)?;
    let wishes = keys::wishes(fields, attachment)?;
    Some(Conf {
        masquerade: masquerade::parse(fields, attachment.engines)?,
        mtu: keys::mtu(fields)?,
        dns: dns::parse(fields)?,
        ipam: host_local::parse(fields, &wishes)??,
    })
}

pub(crate) fn add(conf: &Conf, job: &Job<'_>) -> Result<CniResult> {
    conf.ipam.lend(job, |given| attach(conf, given, job))
}

fn attach(conf: &Conf, mut given: Given, job: &Job<'_>) -> Result<CniResult> {
    // The pod's interface is the second of the result.
    given.ips.iter_mut().for_each(|ip| ip.interface = Some(1));
    interface::forward(given.ips.iter().map(|ip| ip.address.addr))
        .map_err(|e| job.refused(format_args!("enable forwarding: {e}")))?;
    let host = job.socket()?;
    let pod = Pod::open(job)?;
    let name = interface::make_pair(&host, &pod, (None, conf.mtu, None), job)?;
    let inside = pod.run(|| in_pod(&given, job))?;
    let outside =
        Link::find(&host, &name).map_err(|e| job.refused(format_args!("{name:?}: {e}")))?;
    on_host(&host, &outside, &given.ips, job)?;
    if conf.masquerade {
        masquerade::add(job, &host_local::nets(&given.ips))?;
    }
    let interfaces = vec![
        answer::interface_of(&outside, String::new()),
        answer::interface_of(&inside, pod.path.display().to_string()),
    ];
    let dns = conf.dns.clone().or(given.dns);
    Made { interfaces, ips: given.ips, routes: given.routes, dns }.into_result(job)
}

/// All traffic goes by way of the gateway, its network's too: the route that comes with the address makes room for
/// one to the gateway alone, and one to the network by way of it.
fn in_pod(given: &Given, job: &Job<'_>) -> Result<Link> {
    let (socket, link) = interface::inside(job)?;
    let wanted = Wanted { ips: &given.ips, routes: &given.routes };
    interface::configure(&socket, &link, &wanted, job)?;
    let mut todo = Vec::new();
    for (net, gateway) in with_gateway(&given.ips) {
        let network = net.network();
        let (index, source) = (link.index, Some(net.addr));
        let way = |dst, gateway, scope| Way { index, dst, gateway, source, scope };
        let direct = way(IpNet::alone(gateway), None, RT_SCOPE_LINK);
        let around = way(network, Some(gateway), RT_SCOPE_UNIVERSE);
        todo.push((format!("delete the route to {network}"), Way::delete(index, network)));
        todo.push((format!("add the route to {gateway}"), direct.add()));
        todo.push((format!("add the route to {network}"), around.add()));
    }
    interface::perform(&socket, todo, job)?;
    Ok(link)
}

fn on_host(host: &Socket, link: &Link, ips: &[Ip], job: &Job<'_>) -> Result<()> {
    for (net, gateway) in with_gateway(ips) {
        let name = link.name.as_str();
        let failed = |e: io::Error| job.refused(format_args!("{gateway} on {name:?}: {e}"));
        host.ask(address::add(link.index, IpNet::alone(gateway))).map_err(failed)?;
        let (dst, scope) = (IpNet::alone(net.addr), RT_SCOPE_HOST);
        let way = Way { index: link.index, dst, gateway: None, source: None, scope };
        match host.ask(way.add()) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => drop(done.map_err(failed)?),
        }
    }
    Ok(())
}

fn with_gateway(ips: &[Ip]) -> impl Iterator<Item = (IpNet, IpAddr)> {
    ips.iter().filter_map(|ip| Some((ip.address, ip.gateway?)))
}

pub(crate) fn del(conf: &Conf, job: &Job<'_>, previous: Option<&CniResult>) -> Result<()> {
    conf.ipam.del(job)?;
    let found = interface::remove(job, conf.masquerade, previous)?;
    // By the chain's name, where neither its namespace nor a result tells the addresses.
    if conf.masquerade { masquerade::del(job, &found) } else { Ok(()) }
}
