//! The plugin `portmap`: ports of the host lead to the pod.
//!
//! A chain for the attachment translates the destination of what comes to its ports, and marks what has to be
//! masqueraded to find its way back: what the pod sends to itself, and what comes from the host's loopback. Chains
//! that all pods share lead to it, and masquerade what is marked; they stay.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::rules::name;
use super::rules::{self, Addition, Family, Match, Protocol, Removal, Rule, Step, Table, Target};
use super::{Job, keys};
use crate::config::Fields;
use crate::engine::Engines;
use crate::error::Result;
use crate::result::{CniResult, IpNet};

const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// Where a chain for the same was entered by plugins of long ago.
const OLD_SNAT: &str = "CNI-HOSTPORT-SNAT";
const MARK_COMMENT: &str = "CNI portfwd masquerade mark";
const MASQUERADE_COMMENT: &str = "CNI portfwd requiring masquerade";
/// The bit of the mark, where the configuration names none.
const DEFAULT_BIT: u8 = 13;
/// What one rule can compare with.
const PORTS_PER_RULE: usize = 15;

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Conf {
    mappings: Vec<Mapping>,
    snat: bool,
    bit: u8,
    /// A chain of somebody else's that sets the mark.
    set_mark: Option<String>,
    conditions: BTreeMap<Family, Vec<String>>,
}

/// One port of the host.
#[derive(Debug, Clone)]
struct Mapping {
    host_port: u16,
    container_port: u16,
    protocol: Protocol,
    host_ip: Option<IpAddr>,
}

/// As the runtime gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    host_port: u16,
    container_port: u16,
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// Capability arguments; others mean nothing here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<Entry>,
}

pub(crate) fn parse(fields: &Fields, engines: Engines) -> Option<Conf> {
    let known =
        ["backend", "snat", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6"];
    keys::only(fields, &known)?;
    keys::backend(fields, "backend")?;
    let bit: Option<u8> = keys::get(fields, "markMasqBit")?;
    let set_mark: Option<String> = keys::get(fields, "externalSetMarkChain")?;
    let consistent = bit.is_none() || set_mark.is_none();
    if !consistent || set_mark.as_ref().is_some_and(|chain| !name::is_chain(chain)) {
        return None;
    }
    let runtime: RuntimeConfig = keys::get(fields, "runtimeConfig")?.unwrap_or_default();
    let conf = Conf {
        mappings: runtime.port_mappings.iter().map(mapping).collect::<Option<_>>()?,
        snat: keys::get(fields, "snat")?.unwrap_or(true),
        bit: bit
            .filter(|bit| u32::from(*bit) < u32::BITS)
            .or(bit.is_none().then_some(DEFAULT_BIT))?,
        set_mark,
        conditions: BTreeMap::from([
            (Family::V4, conditions(fields, "conditionsV4")?),
            (Family::V6, conditions(fields, "conditionsV6")?),
        ]),
    };
    // Where there is none, newer plugins write the rules in another way.
    let usable = conf.mappings.is_empty() || rules::usable(Family::V4, engines);
    usable.then_some(conf)
}

fn mapping(entry: &Entry) -> Option<Mapping> {
    let host_ip = match entry.host_ip.as_str() {
        "" => None,
        text => Some(keys::address(text)?),
    };
    let valid = entry.host_port > 0 && entry.container_port > 0;
    valid.then_some(Mapping {
        host_port: entry.host_port,
        container_port: entry.container_port,
        protocol: Protocol::parse(&entry.protocol)?,
        host_ip,
    })
}

/// Arguments of `iptables`. Newer plugins take what does not begin like one for conditions of another kind, and
/// `iptables-restore` refuses a short option with a `t`, lest it change the table.
fn conditions(fields: &Fields, key: &str) -> Option<Vec<String>> {
    let given: Vec<String> = keys::get(fields, key)?.unwrap_or_default();
    let tables =
        |word: &str| word.starts_with('-') && !word.starts_with("--") && word.contains('t');
    let fit =
        |word: &String| rules::is_expressible(word) && !tables(word) && !word.starts_with("--t");
    let begins = given.first().is_none_or(|word| word.starts_with(['-', '!']));
    (begins && given.iter().all(fit)).then_some(given)
}

pub(crate) fn add(conf: &Conf, job: &Job<'_>, previous: Option<&CniResult>) -> Result<CniResult> {
    let previous = previous.ok_or_else(|| job.refused("must be called as chained plugin"))?;
    if conf.mappings.is_empty() {
        return Ok(previous.clone());
    }
    for family in Family::BOTH {
        let Some(pod) = pod_address(previous, job.ifname(), family) else { continue };
        let steps = steps(conf, job.network, job.container_id(), pod);
        let addition = Addition { table: Table::Nat, family, steps };
        rules::add(&addition, job).map_err(|problem| problem.of(job))?;
        forget_flows(conf, family);
        if conf.snat && family == Family::V4 {
            rules::route_loopback(pod.addr)
                .map_err(|e| job.refused(format_args!("route_localnet: {e}")))?;
        }
    }
    Ok(previous.clone())
}

/// Datagrams go on the way that the first of them went, so the kernel has to forget it. That it cannot is no reason
/// to fail.
fn forget_flows(conf: &Conf, family: Family) {
    let udp = conf.mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp);
    let ports: HashSet<u16> = udp.map(|mapping| mapping.host_port).collect();
    if !ports.is_empty()
        && let Err(e) = rules::forget_udp(family, &ports)
    {
        tracing::debug!(error = %e, "stale flows stay");
    }
}

pub(crate) fn del(conf: &Conf, job: &Job<'_>, _previous: Option<&CniResult>) -> Result<()> {
    if conf.mappings.is_empty() {
        return Ok(());
    }
    let own = |prefix| name::chain(prefix, job.network, job.container_id());
    let mut unusable = Vec::new();
    for family in Family::BOTH {
        let chains = vec![(own("DN-"), DNAT), (own("SN-"), OLD_SNAT)];
        let removal = Removal { table: Table::Nat, family, chains, rules: Vec::new() };
        match rules::remove(&removal, job) {
            Err(problem @ rules::Problem::Unusable(_)) => unusable.push(problem),
            other => other.map_err(|problem| problem.of(job))?,
        }
    }
    // A node without one of the families has none of its rules.
    let all = unusable.len() == Family::BOTH.len();
    unusable.pop().filter(|_| all).map_or(Ok(()), |problem| Err(problem.of(job)))
}

/// The pod's first address of a family.
fn pod_address(result: &CniResult, ifname: &str, family: Family) -> Option<IpNet> {
    let of_pod = |index: usize| {
        result.interfaces.get(index).is_none_or(|i| i.name == ifname && !i.sandbox.is_empty())
    };
    let mut all = result.ips.iter().filter(|ip| ip.interface.is_none_or(of_pod));
    let of_family = all.find(|ip| Family::of(ip.address.addr) == family);
    of_family.map(|ip| ip.address)
}

fn steps(conf: &Conf, network: &str, container_id: &str, pod: IpNet) -> Vec<Step> {
    let family = Family::of(pod.addr);
    let chain = name::chain("DN-", network, container_id);
    let mut steps = Vec::new();
    if conf.snat && conf.set_mark.is_none() {
        steps.extend(marking(1 << conf.bit));
    }
    let local = || Rule::jump(DNAT).when(Match::ToLocal);
    steps.extend([
        Step::Chain(DNAT.to_owned()),
        Step::Last("PREROUTING".to_owned(), local()),
        Step::Last("OUTPUT".to_owned(), local()),
        Step::Own(chain.clone()),
    ]);
    let own = conf.mappings.iter().flat_map(|mapping| translation(conf, mapping, pod));
    steps.extend(own.map(|rule| Step::Last(chain.clone(), rule)));
    let comment = name::ports_comment(network, container_id);
    let mut by_protocol: BTreeMap<Protocol, Vec<u16>> = BTreeMap::new();
    for mapping in &conf.mappings {
        by_protocol.entry(mapping.protocol).or_default().push(mapping.host_port);
    }
    let given = conf.conditions.get(&family).filter(|given| !given.is_empty());
    for (protocol, ports) in by_protocol {
        for some in ports.chunks(PORTS_PER_RULE) {
            let entry = Rule::jump(&chain).over(protocol).commented(&comment);
            let entry = entry.when(Match::Ports(some.to_vec()));
            let entry =
                given.cloned().into_iter().fold(entry, |rule, g| rule.when(Match::Given(g)));
            steps.push(Step::Last(DNAT.to_owned(), entry));
        }
    }
    steps
}

/// What all pods share.
fn marking(bits: u32) -> [Step; 5] {
    let set = Rule::new(Target::SetMark(bits)).commented(MARK_COMMENT);
    let masquerade = Rule::new(Target::Masquerade).when(Match::Mark(bits));
    let entry = Rule::jump(MASQUERADE).commented(MASQUERADE_COMMENT);
    [
        Step::Chain(SET_MARK.to_owned()),
        Step::Last(SET_MARK.to_owned(), set),
        Step::Chain(MASQUERADE.to_owned()),
        Step::Last(MASQUERADE.to_owned(), masquerade),
        // Before what bridge and ptp accept.
        Step::First("POSTROUTING".to_owned(), entry),
    ]
}

/// The rules of one port: what marks comes first.
fn translation(conf: &Conf, mapping: &Mapping, pod: IpNet) -> Vec<Rule> {
    if mapping.host_ip.is_some_and(|ip| ip.is_ipv4() != pod.addr.is_ipv4()) {
        return Vec::new();
    }
    let base = |target| {
        let rule = Rule::new(target).over(mapping.protocol).when(Match::Port(mapping.host_port));
        match mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => rule.to(IpNet::alone(ip)),
            None => rule,
        }
    };
    let mut rules = Vec::new();
    if conf.snat {
        let mark = || Target::Jump(conf.set_mark.clone().unwrap_or_else(|| SET_MARK.to_owned()));
        rules.push(base(mark()).from(pod));
        if pod.addr.is_ipv4() {
            rules.push(base(mark()).from(IpNet::alone(Ipv4Addr::LOCALHOST.into())));
        }
    }
    let to = SocketAddr::new(pod.addr, mapping.container_port);
    rules.push(base(Target::DestinationNat(to)));
    rules
}

#[cfg(test)]
#[path = "portmap_tests.rs"]
mod tests;
