//! What `ipMasq` of `bridge` and `ptp` asks for: the pod's traffic to elsewhere leaves with the node's address.
//!
//! A chain for the attachment accepts what goes to the pod's own network, and masquerades the rest but multicast;
//! a rule for each address leads to it. Taken away is the chain with all that leads to it, whether or not the pod's
//! addresses are still known, and what newer executables may have written in its place.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rules::{self, Addition, Family, Removal, Rule, Step, Table, Target, name};
use super::{Job, keys};
use crate::config::Fields;
use crate::engine::Engines;
use crate::error::Result;
use crate::result::IpNet;

/// Where all that leaves the node passes.
const ENTRY: &str = "POSTROUTING";

/// Of the keys `ipMasq` and `ipMasqBackend`, if they are understood: is it wanted?
pub(crate) fn parse(fields: &Fields, engines: Engines) -> Option<bool> {
    keys::backend(fields, "ipMasqBackend")?;
    let wanted = keys::flag(fields, "ipMasq")?;
    // Where there is none, newer plugins write the rules in another way.
    (!wanted || rules::usable(Family::V4, engines)).then_some(wanted)
}

/// For the pod's addresses, each with its network, which is not elsewhere.
pub(crate) fn add(job: &Job<'_>, addresses: &[IpNet]) -> Result<()> {
    for family in Family::BOTH {
        let steps = steps(job.network, job.container_id(), addresses, family);
        if !steps.is_empty() {
            let addition = Addition { table: Table::Nat, family, steps };
            rules::add(&addition, job).map_err(|problem| problem.of(job))?;
        }
    }
    Ok(())
}

/// For the addresses that the pod's interface had when it was removed; there may be none.
pub(crate) fn del(job: &Job<'_>, addresses: &[IpNet]) -> Result<()> {
    let chain = name::chain("", job.network, job.container_id());
    for family in Family::BOTH {
        let known = addresses.iter().any(|net| Family::of(net.addr) == family);
        let chains = vec![(chain.clone(), ENTRY)];
        let removal = Removal { table: Table::Nat, family, chains, rules: Vec::new() };
        match rules::remove(&removal, job) {
            // A node without that family has none of its rules.
            Err(rules::Problem::Unusable(_)) if !known => {}
            other => other.map_err(|problem| problem.of(job))?,
        }
    }
    rules::nftables::remove(job).map_err(|e| job.refused(format_args!("nf_tables: {e}")))
}

fn steps(network: &str, container_id: &str, addresses: &[IpNet], family: Family) -> Vec<Step> {
    let chain = name::chain("", network, container_id);
    let comment = name::masquerade_comment(network, container_id);
    let multicast = match family {
        Family::V4 => IpNet { addr: Ipv4Addr::new(224, 0, 0, 0).into(), prefix: 4 },
        Family::V6 => IpNet { addr: Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), prefix: 8 },
    };
    let mut steps = Vec::new();
    for net in addresses.iter().filter(|net| Family::of(net.addr) == family) {
        let own = Rule::new(Target::Accept).to(*net).commented(&comment);
        let rest = Rule::new(Target::Masquerade).not_to(multicast).commented(&comment);
        let entry = Rule::jump(&chain).from(IpNet::alone(net.addr)).commented(&comment);
        steps.extend([
            Step::Own(chain.clone()),
            Step::Last(chain.clone(), own),
            Step::Last(chain.clone(), rest),
            Step::Last(ENTRY.to_owned(), entry),
        ]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(family: Family, addresses: &[&str]) -> Vec<String> {
        let addresses: Vec<IpNet> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let line = |step| match step {
            Step::Chain(name) | Step::Own(name) => format!("-N {name}"),
            Step::First(chain, rule) => format!("-I {chain} {rule}"),
            Step::Last(chain, rule) => format!("-A {chain} {rule}"),
        };
        steps("net", "abc", &addresses, family).into_iter().map(line).collect()
    }

    #[test]
    fn each_address_has_its_rules() {
        const CHAIN: &str = "CNI-3ce8a0924fdef86d56ad1df1";
        const COMMENT: &str = r#"-m comment --comment "name: \"net\" id: \"abc\"""#;
        let all = ["10.77.0.2/24", "fd00::2/64"];
        let expected = |own: &str, cast: &str, host: &str| {
            vec![
                format!("-N {CHAIN}"),
                format!("-A {CHAIN} -d {own} {COMMENT} -j ACCEPT"),
                format!("-A {CHAIN} ! -d {cast} {COMMENT} -j MASQUERADE"),
                format!("-A POSTROUTING -s {host} {COMMENT} -j {CHAIN}"),
            ]
        };
        let v4 = expected("10.77.0.0/24", "224.0.0.0/4", "10.77.0.2/32");
        assert_eq!(lines(Family::V4, &all), v4);
        let v6 = expected("fd00::/64", "ff00::/8", "fd00::2/128");
        assert_eq!(lines(Family::V6, &all), v6);
        assert!(lines(Family::V6, &all[..1]).is_empty());
        assert_eq!(lines(Family::V4, &["10.0.0.2/24", "10.0.1.2/24"]).len(), 8);
    }
}
