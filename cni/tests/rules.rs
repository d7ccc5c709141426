//! Packet filter rules: those that are written in-process, and those of the plugins' executables.

mod support;

use std::process::Command;

use cni::{Attachment, Network, PortMapping, Runtime};
use serde_json::{Value, json};
use support::{Node, network, soon};

/// Every chain and rule of the node, without what differs by itself.
fn tables(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        for table in ["nat", "filter"] {
            let save = || Command::new(program).args(["-t", table]).output().unwrap();
            let text = String::from_utf8(node.run(save).stdout).unwrap();
            let lines = text.lines().filter(|line| line.starts_with([':', '-']));
            // A chain of the kernel's without a rule is as good as none: some programs make it when they look.
            let said = lines.filter(|line| !line.contains(" ACCEPT ["));
            all.extend(said.map(|line| format!("{program} {table} {line}")));
        }
    }
    all
}

/// A chain whose first plugin has made an interface with these addresses.
fn chain(node: &Node, addresses: &[&str], plugins: &[Value]) -> Network {
    let ips: Vec<_> = addresses.iter().map(|a| json!({"address": a, "interface": 1})).collect();
    let result = json!({
        "cniVersion": "1.0.0", "ips": ips,
        "interfaces": [{"name": "br9"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
    });
    node.script("given", &format!("[ $CNI_COMMAND = ADD ] && echo '{result}'; exit 0"));
    let all = [&[json!({"type": "given"})], plugins].concat();
    network("1.0.0", &all)
}

fn portmap(extra: &Value) -> Value {
    let mut plugin = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    for (key, value) in extra.as_object().unwrap() {
        plugin[key] = value.clone();
    }
    plugin
}

fn mapping(host: u16, container: u16, protocol: &str, ip: &str) -> PortMapping {
    PortMapping {
        host_port: host,
        container_port: container,
        protocol: protocol.into(),
        host_ip: ip.into(),
    }
}

fn mapped(mut pod: Attachment, mappings: &[PortMapping]) -> Attachment {
    pod.capabilities.port_mappings = mappings.to_vec();
    pod
}

/// Both ways of doing it: in-process, and by the executables.
fn ways(node: &Node) -> [Runtime; 2] {
    [true, false].map(|native| Runtime { native, ..node.runtime.clone() })
}

/// Attaches and detaches pods in all four combinations: what is there between and after does not tell which it was.
fn same_both_ways(network: &dyn Fn(&Node) -> Network, mappings: &[PortMapping]) {
    let mut seen: Vec<[Vec<String>; 3]> = Vec::new();
    for (adds, dels) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let node = Node::new();
        let network = network(&node);
        let ways = ways(&node);
        assert_eq!(ways[0].missing(&network), Vec::<&str>::new());
        let left: Vec<_> = network.plugins().iter().map(cni::Plugin::kind).collect();
        let left = left.into_iter().filter(|kind| *kind != "given");
        assert_eq!(ways[0].in_process(&network), left.collect::<Vec<_>>(), "nothing is executed");
        let pods = ["pod1", "pod2"].map(|id| mapped(node.pod(id), mappings));
        pods.iter().for_each(|pod| node.wait_for_no_duplicates(pod));
        let after = |what: &dyn Fn()| {
            what();
            tables(&node)
        };
        let one =
            after(&|| drop(node.run(|| ways[adds].add(&network, &pods[0], &soon())).unwrap()));
        let two =
            after(&|| drop(node.run(|| ways[adds].add(&network, &pods[1], &soon())).unwrap()));
        let none = after(&|| {
            for pod in &pods {
                for _ in 0..2 {
                    node.run(|| ways[dels].del(&network, pod, &soon())).unwrap();
                }
            }
        });
        seen.push([one, two, none]);
        for id in ["pod1", "pod2"] {
            node.remove_netns(id);
        }
        node.assert_clean();
    }
    for (at, other) in seen.iter().enumerate() {
        for (step, lines) in other.iter().enumerate() {
            assert_eq!(lines, &seen[3][step], "case {at}, step {step}");
        }
    }
    assert!(seen[0][0].len() > seen[0][2].len(), "rules were written");
}

const V4: &str = "10.77.0.2/24";
const V6: &str = "fd00::2/64";

#[test]
fn ports_are_mapped_as_portmap_maps_them() {
    let mappings = [
        mapping(8080, 80, "tcp", ""),
        mapping(8081, 81, "tcp", "10.1.2.3"),
        mapping(53, 5353, "udp", "0.0.0.0"),
        mapping(54, 5354, "sctp", "fd01::9"),
    ];
    same_both_ways(&|node| chain(node, &[V4, V6], &[portmap(&json!({}))]), &mappings);
}

#[test]
fn what_portmap_can_be_told_is_done_alike() {
    let many: Vec<_> = (0..17).map(|i| mapping(9000 + i, 80, "tcp", "")).collect();
    let tables = [
        json!({"snat": false}),
        json!({"markMasqBit": 31}),
        json!({"conditionsV4": ["!", "-s", "10.0.0.0/8"], "conditionsV6": ["-d", "fd01::/64"]}),
    ];
    // Asked for a rule, ip6tables-legacy 1.8.9 takes one for it that differs in its port alone, so that the executable
    // leaves out all ports but the first.
    let addresses = if support::tables::is_older() { &[V4][..] } else { &[V4, V6] };
    for extra in tables {
        same_both_ways(&|node| chain(node, addresses, &[portmap(&extra)]), &many);
    }
}

#[test]
fn addresses_are_accepted_as_firewall_accepts_them() {
    let plugin = json!({"type": "firewall", "backend": "iptables"});
    same_both_ways(&|node| chain(node, &[V4, V6], std::slice::from_ref(&plugin)), &[]);
    let admin =
        json!({"type": "firewall", "backend": "iptables", "iptablesAdminChainName": "MINE"});
    let addresses = [V6, "10.77.0.3/24", V4];
    same_both_ways(&|node| chain(node, &addresses, std::slice::from_ref(&admin)), &[]);
}

/// firewall knows its rules by the addresses of the pod: the DEL of a chain that did not come to its end has them, too.
#[test]
fn what_a_chain_that_failed_wrote_is_taken_back() {
    for native in [true, false] {
        let node = Node::new();
        node.script("broken", "[ $CNI_COMMAND = ADD ] && exit 1; exit 0");
        let firewall = json!({"type": "firewall", "backend": "iptables"});
        let network = chain(&node, &[V4, V6], &[firewall, json!({"type": "broken"})]);
        let (pod, runtime) = (node.pod("pod1"), Runtime { native, ..node.runtime.clone() });
        let of_pod = |node: &Node| {
            let addresses = [V4, V6].map(|net| net.split('/').next().unwrap());
            let mut rules = tables(node);
            rules.retain(|rule| addresses.iter().any(|address| rule.contains(address)));
            rules
        };
        node.run(|| runtime.add(&network, &pod, &soon())).unwrap_err();
        assert_eq!(of_pod(&node).len(), 4, "{:?}", tables(&node));
        node.run(|| runtime.del(&network, &pod, &soon())).unwrap();
        assert_eq!(of_pod(&node), Vec::<String>::new());
        node.remove_netns("pod1");
        node.assert_clean();
    }
}

#[test]
fn masquerading_is_as_bridge_and_ptp_do_it() {
    same_both_ways(&Node::bridge, &[mapping(8080, 80, "tcp", "")]);
    let ptp = |node: &Node| {
        let ranges = json!([[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00::/64"}]]);
        let ipam = json!({"type": "host-local", "dataDir": node.path("leases"), "ranges": ranges});
        network("1.0.0", &[json!({"type": "ptp", "ipMasq": true, "ipam": ipam})])
    };
    same_both_ways(&ptp, &[]);
}

#[test]
fn what_was_flushed_comes_back_with_the_next_pod() {
    let node = Node::in_process();
    let network = chain(&node, &[V4], &[portmap(&json!({}))]);
    let pods =
        ["pod1", "pod2", "pod3"].map(|id| mapped(node.pod(id), &[mapping(8080, 80, "tcp", "")]));
    let iptables = |args: &str| {
        let run = || Command::new("iptables").args(args.split(' ')).status().unwrap().success();
        assert!(node.run(run), "{args}");
    };
    let jumps = || node.nat_rules().matches("-j CNI-HOSTPORT-DNAT").count();
    for (pod, flush) in
        pods.iter().zip(["-t nat -F PREROUTING", "-t nat -F CNI-HOSTPORT-SETMARK", "-t nat -F"])
    {
        node.run(|| node.runtime.add(&network, pod, &soon())).unwrap();
        assert_eq!(jumps(), 2, "{}", node.nat_rules());
        assert!(node.nat_rules().contains("-j MARK"), "{}", node.nat_rules());
        iptables(flush);
    }
    for pod in &pods {
        node.run(|| node.runtime.del(&network, pod, &soon())).unwrap();
    }
    for id in ["pod1", "pod2", "pod3"] {
        node.remove_netns(id);
    }
    node.assert_clean();
}

#[test]
fn pods_that_come_at_once_lose_no_rule_and_double_none() {
    const PODS: usize = 12;
    let node = Node::in_process();
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    let network = chain(&node, &[V4, V6], &[portmap(&json!({})), firewall]);
    let pods: Vec<_> = (0..PODS)
        .map(|i| mapped(node.pod(&format!("pod{i}")), &[mapping(8000 + i as u16, 80, "tcp", "")]))
        .collect();
    let each = |f: &(dyn Fn(&Attachment) + Sync)| {
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| node.run(|| f(pod)));
            }
        });
    };
    each(&|pod| drop(node.runtime.add(&network, pod, &soon()).unwrap()));
    let all = tables(&node);
    let of = |what: &str| all.iter().filter(|line| line.contains(what)).count();
    assert_eq!(of("-j DNAT"), 2 * PODS, "{all:#?}");
    assert_eq!(of("-A CNI-HOSTPORT-DNAT"), 2 * PODS, "{all:#?}");
    for shared in ["-j CNI-HOSTPORT-MASQ", "-j MARK", "-j CNI-FORWARD", "-j CNI-ADMIN"] {
        assert_eq!(of(shared), 2, "{shared}: {all:#?}");
    }
    assert_eq!(of("-j CNI-HOSTPORT-DNAT"), 4, "{all:#?}");
    each(&|pod| node.runtime.del(&network, pod, &soon()).unwrap());
    for i in 0..PODS {
        node.remove_netns(&format!("pod{i}"));
    }
    node.assert_clean();
    let left = tables(&node);
    assert!(!left.iter().any(|line| line.contains("CNI-FORWARD -s")), "{left:#?}");
}

#[test]
fn what_no_plugin_wrote_stays() {
    let node = Node::in_process();
    let network = chain(&node, &[V4], &[portmap(&json!({}))]);
    let rules = "*nat\n:MINE - [0:0]\n-A POSTROUTING -s 10.78.0.2/32 -j MINE\n-A PREROUTING -p tcp -m tcp --dport 8080 -j MINE\nCOMMIT\n";
    std::fs::write(node.path("rules"), rules).unwrap();
    let file = node.path("rules");
    let restore = || Command::new("iptables-restore").arg("--noflush").arg(&file).status().unwrap();
    assert!(node.run(restore).success());
    let before = tables(&node);
    let pod = mapped(node.pod("pod1"), &[mapping(8080, 80, "tcp", "")]);
    node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    let after = tables(&node);
    assert!(before.iter().all(|line| after.contains(line)), "{before:#?} {after:#?}");
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn all_of_it_on_the_older_kind_of_tables() {
    support::tables::all_on(cni::Engine::Legacy, "all_of_it_on_the_older_kind_of_tables");
}
