//! Settings of the kernel that pods, or as many as a node has, depend on.

use super::node::Node;
use super::{Finding, ok, warning};

const ABOUT: &str = "sysctl";

/// A setting, and the least that it should be.
struct Wanted {
    name: &'static str,
    least: u64,
    otherwise: &'static str,
}

const ALL: [Wanted; 5] = [
    Wanted {
        name: "net.ipv4.ip_forward",
        least: 1,
        otherwise: "unless a network sets it, pods reach nothing outside of the node",
    },
    Wanted {
        name: "net.bridge.bridge-nf-call-iptables",
        least: 1,
        otherwise: "services are not reached between pods of one bridge",
    },
    Wanted {
        name: "fs.inotify.max_user_instances",
        least: 512,
        otherwise: "many pods that watch files run out of it",
    },
    Wanted {
        name: "fs.inotify.max_user_watches",
        least: 65_536,
        otherwise: "many pods that watch files run out of it",
    },
    Wanted {
        name: "kernel.pid_max",
        least: 65_536,
        otherwise: "all pods together run out of processes",
    },
];

pub(super) fn findings(node: &Node) -> Vec<Finding> {
    let found: Vec<Finding> = ALL.iter().filter_map(|wanted| finding(node, wanted)).collect();
    if found.is_empty() {
        vec![ok(ABOUT, "forwarding and limits are as pods need them")]
    } else {
        found
    }
}

fn finding(node: &Node, wanted: &Wanted) -> Option<Finding> {
    let Wanted { name, least, otherwise } = *wanted;
    // The names of files have slashes for dots; none of these has a dot of its own.
    let value = node.number(format!("/proc/sys/{}", name.replace('.', "/")));
    let (is, advice) = match value {
        Some(value) if value >= least => return None,
        Some(value) => (format!("{name} is {value}"), format!("sysctl -w {name}={least}")),
        None if name.starts_with("net.bridge.") => {
            (format!("{name} is not there"), "modprobe br_netfilter".to_owned())
        }
        None => (format!("{name} is not there"), String::new()),
    };
    Some(warning(ABOUT, format!("{is}: {otherwise}"), advice))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    #[test]
    fn each_is_told_with_the_command_that_sets_it() {
        let fake = Fake::new(&[
            ("/proc/sys/net/ipv4/ip_forward", "0\n"),
            ("/proc/sys/fs/inotify/max_user_instances", "128\n"),
            ("/proc/sys/fs/inotify/max_user_watches", "1000000\n"),
            ("/proc/sys/kernel/pid_max", "4194304\n"),
        ]);
        let found = findings(&fake.node);
        let told: Vec<_> = found.iter().map(|one| (one.verdict, one.advice.as_str())).collect();
        assert_eq!(
            told,
            [
                (Verdict::Warning, "sysctl -w net.ipv4.ip_forward=1"),
                (Verdict::Warning, "modprobe br_netfilter"),
                (Verdict::Warning, "sysctl -w fs.inotify.max_user_instances=512"),
            ]
        );
        fake.put("/proc/sys/net/ipv4/ip_forward", "1");
        fake.put("/proc/sys/net/bridge/bridge-nf-call-iptables", "1");
        fake.put("/proc/sys/fs/inotify/max_user_instances", "1024");
        let found = findings(&fake.node);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Ok));
    }
}
