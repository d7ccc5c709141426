//! The plugin `firewall`, as far as it accepts what belongs to the pod: rules for each of its addresses in a chain
//! that all forwarded packets pass, behind one for the operator's own. Policies between bridges, and firewalld, are
//! left to the executable.

use std::path::Path;

use super::rules::{self, Addition, Family, Match, Removal, Rule, Step, Table, Target};
use super::{Job, keys};
use crate::config::Fields;
use crate::engine::Engines;
use crate::error::Result;
use crate::result::{CniResult, IpNet};
use crate::version::SpecVersion;

const FORWARD: &str = "FORWARD";
const OWN: &str = "CNI-FORWARD";
const ADMIN: &str = "CNI-ADMIN";
const OWN_COMMENT: &str = "CNI firewall plugin rules";
const ADMIN_COMMENT: &str = "CNI firewall plugin admin overrides";
/// Where firewalld would be asked for; without it nobody can be.
const SYSTEM_BUS: &str = "/var/run/dbus/system_bus_socket";

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Conf {
    admin_chain: String,
}

pub(crate) fn parse(fields: &Fields, engines: Engines) -> Option<Conf> {
    keys::only(fields, &["backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"])?;
    let cni_version: String = keys::get(fields, "cniVersion")??;
    // Older ones the executable refuses.
    SpecVersion::parse(&cni_version).ok().filter(|version| *version >= SpecVersion::V0_4)?;
    match text(fields, "backend")?.as_str() {
        rules::BACKEND => {}
        "firewalld" => return None,
        // Any other word is taken for none: firewalld if it runs.
        _ if !Path::new(SYSTEM_BUS).exists() => {}
        _ => return None,
    }
    if !matches!(text(fields, "ingressPolicy")?.as_str(), "" | "open") {
        return None;
    }
    let admin_chain = match text(fields, "iptablesAdminChainName")? {
        name if name.is_empty() => ADMIN.to_owned(),
        name => Some(name).filter(|name| rules::name::is_chain(name))?,
    };
    // The executable wants both, whatever the pod has.
    let usable = |family| rules::usable(family, engines);
    Family::BOTH.into_iter().all(usable).then_some(Conf { admin_chain })
}

fn text(fields: &Fields, key: &str) -> Option<String> {
    Some(keys::get(fields, key)?.unwrap_or_default())
}

pub(crate) fn add(conf: &Conf, job: &Job<'_>, previous: Option<&CniResult>) -> Result<CniResult> {
    let previous = previous.ok_or_else(|| job.refused("missing prevResult from earlier plugin"))?;
    for family in Family::BOTH {
        let own = pod_rules(previous, family);
        if !own.is_empty() {
            let steps = steps(conf, own);
            let addition = Addition { table: Table::Filter, family, steps };
            rules::add(&addition, job).map_err(|problem| problem.of(job))?;
        }
    }
    Ok(previous.clone())
}

/// Without a result of the ADD it is not known which rules there are; the executable leaves them too.
pub(crate) fn del(job: &Job<'_>, previous: Option<&CniResult>) -> Result<()> {
    let Some(previous) = previous else { return Ok(()) };
    for family in Family::BOTH {
        let rules: Vec<_> = pod_rules(previous, family).into_iter().map(|r| (OWN, r)).collect();
        if !rules.is_empty() {
            let removal = Removal { table: Table::Filter, family, chains: Vec::new(), rules };
            rules::remove(&removal, job).map_err(|problem| problem.of(job))?;
        }
    }
    Ok(())
}

fn pod_rules(result: &CniResult, family: Family) -> Vec<Rule> {
    let addresses = result.ips.iter().map(|ip| ip.address.addr.to_canonical());
    let rules = addresses.filter(|addr| Family::of(*addr) == family).map(|addr| {
        let accept = || Rule::new(Target::Accept);
        [
            accept().to(IpNet::alone(addr)).when(Match::Established),
            accept().from(IpNet::alone(addr)),
        ]
    });
    rules.flatten().collect()
}

fn steps(conf: &Conf, own: Vec<Rule>) -> Vec<Step> {
    let to = |chain: &str, comment: &str| Rule::jump(chain).commented(comment);
    let mut steps = vec![
        Step::Chain(OWN.to_owned()),
        Step::Chain(conf.admin_chain.clone()),
        Step::First(FORWARD.to_owned(), to(OWN, OWN_COMMENT)),
        Step::First(OWN.to_owned(), to(&conf.admin_chain, ADMIN_COMMENT)),
    ];
    steps.extend(own.into_iter().map(|rule| Step::Last(OWN.to_owned(), rule)));
    steps
}
