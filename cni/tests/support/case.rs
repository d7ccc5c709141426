//! Networks that are made by executables and in-process.

#![allow(clippy::needless_pass_by_value, reason = "what json! makes is nobody else's")]

use std::process::Command;

use cni::{Attachment, IpRange};
use serde_json::{Value, json};

/// One of them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// `DIR/` stands for the node's directory.
    pub(crate) list: fn() -> Value,
    /// How the pods are asked for.
    pub(crate) pod: fn(&mut Attachment),
    /// What the node has before.
    pub(crate) before: fn(),
    /// How many pods there is room for.
    pub(crate) pods: usize,
    /// Does each pod have a veth on the node?
    pub(crate) veths: bool,
}

const PLAIN: Case =
    Case { name: "", list: || Value::Null, pod: |_| (), before: || (), pods: 2, veths: true };

fn list(version: &str, plugins: Value) -> Value {
    json!({"cniVersion": version, "name": "net", "plugins": plugins})
}

fn ipam(more: Value) -> Value {
    let mut all = json!({"type": "host-local", "dataDir": "DIR/leases"});
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

fn one(version: &str, kind: &str, more: Value, of_ipam: Value) -> Value {
    let mut plugin = json!({"type": kind, "ipam": ipam(of_ipam)});
    if kind == "bridge" {
        plugin["bridge"] = "br0".into();
    }
    for (key, value) in more.as_object().unwrap() {
        plugin[key] = value.clone();
    }
    list(version, json!([plugin]))
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// What both make.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a bridge that is no gateway",
        list: || one("1.0.0", "bridge", json!({}), json!({"subnet": "10.77.0.0/24"})),
        ..PLAIN
    },
    Case {
        name: "a gateway with routes, hairpins and an MTU",
        list: || {
            let more = json!({"isGateway": true, "hairpinMode": true, "mtu": 1400,
                "dns": {"nameservers": ["10.77.0.1"], "search": ["a.example", "b.example"]}});
            let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.77.0.7"}]);
            one("1.0.0", "bridge", more, json!({"subnet": "10.77.0.0/24", "routes": routes}))
        },
        ..PLAIN
    },
    Case {
        name: "a default gateway in an old version, promiscuous",
        list: || {
            let more = json!({"isDefaultGateway": true, "promiscMode": true});
            let more_ipam = json!({"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9",
                "rangeEnd": "10.77.0.20", "gateway": "10.77.0.254"});
            one("0.3.1", "bridge", more, more_ipam)
        },
        ..PLAIN
    },
    Case {
        name: "both families, several ranges",
        list: || {
            let ranges = json!([[{"subnet": "10.77.0.0/29"}, {"subnet": "10.77.1.0/24"}],
                [{"subnet": "fd77::/64"}]]);
            let more = json!({"isDefaultGateway": true});
            one("0.4.0", "bridge", more, json!({"ranges": ranges}))
        },
        ..PLAIN
    },
    Case {
        name: "IPv6 alone, with detection of duplicates",
        list: || {
            let more = json!({"isGateway": true, "enabledad": true});
            let routes = json!([{"dst": "::/0"}]);
            one("1.0.0", "bridge", more, json!({"subnet": "fd77:1::/64", "routes": routes}))
        },
        pods: 1,
        ..PLAIN
    },
    Case {
        name: "an address that replaces another",
        list: || {
            let more = json!({"isGateway": true, "forceAddress": true});
            one("1.0.0", "bridge", more, json!({"subnet": "10.77.0.0/24"}))
        },
        before: || {
            ip("link add br0 type bridge");
            ip("address add 10.99.0.1/24 dev br0");
        },
        ..PLAIN
    },
    Case {
        name: "layer 2 alone",
        list: || list("1.0.0", json!([{"type": "bridge", "bridge": "br0"}])),
        ..PLAIN
    },
    Case {
        name: "wishes of the runtime",
        list: || {
            let more = json!({
                "capabilities": {"mac": true, "ips": true, "ipRanges": true}});
            one("1.0.0", "bridge", more, json!({"subnet": "10.77.0.0/24"}))
        },
        pod: |pod| {
            let last = if pod.container_id == "pod1" { "5" } else { "6" };
            pod.capabilities.mac = Some(format!("02:00:00:00:00:0{last}"));
            pod.capabilities.ips = vec![format!("10.77.0.10{last}")];
            let range = IpRange { subnet: "10.78.0.0/24".into(), ..IpRange::default() };
            pod.capabilities.ip_ranges = vec![vec![range]];
        },
        ..PLAIN
    },
    Case {
        name: "wishes of the configuration and of the arguments",
        list: || {
            let more = json!({"isGateway": true, "args": {"cni": {"ips": ["10.77.0.33"]}}});
            one("1.0.0", "bridge", more, json!({"subnet": "10.77.0.0/24"}))
        },
        pod: |pod| pod.args.push(("MAC".into(), "02:00:00:00:00:AB".into())),
        pods: 1,
        ..PLAIN
    },
    Case {
        name: "ptp with an MTU and a resolver",
        list: || {
            let routes = json!([{"dst": "0.0.0.0/0"}]);
            let more = json!({"subnet": "10.77.0.0/24", "routes": routes,
                "resolvConf": "DIR/resolv.conf"});
            one("1.0.0", "ptp", json!({"mtu": 1300}), more)
        },
        ..PLAIN
    },
    Case {
        name: "ptp of both families",
        list: || {
            let ranges = json!([[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]);
            let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
            let more = json!({"ranges": ranges, "routes": routes});
            one("0.3.1", "ptp", json!({"dns": {"domain": "example"}}), more)
        },
        // Each waits until its addresses are known to be nobody else's.
        pods: 1,
        ..PLAIN
    },
    Case {
        name: "tuning of all that can be",
        list: || {
            let bridge = json!({"type": "bridge", "bridge": "br0", "isGateway": true,
                "ipam": ipam(json!({"subnet": "10.77.0.0/24"}))});
            let tuning = json!({"type": "tuning", "dataDir": "DIR/tuning", "mtu": 1350,
                "promisc": true, "allmulti": true, "mac": "02:00:00:00:00:77",
                "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"}});
            list("1.0.0", json!([{"type": "loopback"}, bridge, tuning]))
        },
        pods: 1,
        ..PLAIN
    },
    Case {
        name: "tuning by the runtime, in an old version",
        list: || {
            let ptp = json!({"type": "ptp", "ipam": ipam(json!({"subnet": "10.77.0.0/24"}))});
            let tuning = json!({"type": "tuning", "dataDir": "DIR/tuning",
                "capabilities": {"mac": true}});
            list("0.4.0", json!([ptp, tuning]))
        },
        pod: |pod| {
            let last = &pod.container_id[3..];
            pod.capabilities.mac = Some(format!("02:00:00:00:00:0{last}"));
        },
        ..PLAIN
    },
    Case {
        name: "loopback alone",
        list: || list("1.0.0", json!([{"type": "loopback"}])),
        veths: false,
        ..PLAIN
    },
];

/// What both refuse.
pub(crate) const REFUSED: &[Case] = &[
    Case {
        name: "another address on the bridge",
        list: || {
            one("1.0.0", "bridge", json!({"isGateway": true}), json!({"subnet": "10.77.0.0/24"}))
        },
        before: || {
            ip("link add br0 type bridge");
            ip("address add 10.99.0.1/24 dev br0");
        },
        ..PLAIN
    },
    Case {
        name: "something else of the bridge's name",
        list: || one("1.0.0", "bridge", json!({}), json!({"subnet": "10.77.0.0/24"})),
        before: || ip("link add br0 type veth peer name br1"),
        ..PLAIN
    },
    Case {
        name: "the gateway's address",
        list: || one("1.0.0", "bridge", json!({}), json!({"subnet": "10.77.0.0/24"})),
        pod: |pod| pod.args.push(("IP".into(), "10.77.0.1".into())),
        ..PLAIN
    },
    Case {
        name: "an address of no range",
        list: || one("1.0.0", "ptp", json!({}), json!({"subnet": "10.77.0.0/24"})),
        pod: |pod| pod.args.push(("IP".into(), "10.99.0.1".into())),
        ..PLAIN
    },
    Case {
        name: "a range without addresses",
        list: || {
            let range = json!({"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.1", "rangeEnd": "10.77.0.1"});
            one("1.0.0", "ptp", json!({}), range)
        },
        ..PLAIN
    },
    Case {
        name: "an interface that is there",
        list: || one("1.0.0", "bridge", json!({}), json!({"subnet": "10.77.0.0/24"})),
        pod: |pod| {
            let add = || ip("link add eth0 type bridge");
            cni::netns::run_in(pod.netns.as_ref().unwrap(), add).unwrap();
        },
        ..PLAIN
    },
    Case {
        name: "a route that cannot be",
        list: || {
            let routes = json!([{"dst": "10.9.0.0/16", "gw": "10.99.0.1"}]);
            one("1.0.0", "bridge", json!({}), json!({"subnet": "10.77.0.0/24", "routes": routes}))
        },
        ..PLAIN
    },
];
