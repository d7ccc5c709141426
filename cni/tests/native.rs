//! The work of the usual plugins, by their executables and in-process: the same from the same input, and each takes
//! away what the other made.

mod support;

use cni::{Attachment, CniResult, Network, Runtime};
use serde_json::{Value, json};
use support::case::{CASES, Case, REFUSED};
use support::look::{Look, differences};
use support::{Node, eventually, soon};

/// A node, and who does the work on it.
struct Side {
    node: Node,
    native: bool,
}

impl Side {
    fn new(native: bool, case: &Case) -> Self {
        let side = Self { node: Node::new(), native };
        let resolver =
            "# of the node\nnameserver 10.0.0.9\nsearch x.example y.example\noptions ndots:3\n";
        std::fs::write(side.node.path("resolv.conf"), resolver).unwrap();
        side.node.run(|| (case.before)());
        side
    }

    fn runtime(&self, native: bool) -> Runtime {
        Runtime { native, ..self.node.runtime.clone() }
    }

    /// The case's list, with this node's directory in it.
    fn network(&self, case: &Case) -> Network {
        let dir = self.node.path("");
        let list = (case.list)().to_string().replace("DIR/", dir.to_str().unwrap());
        Network::parse(list.as_bytes()).unwrap()
    }

    fn pod(&self, id: &str, case: &Case) -> Attachment {
        let mut pod = self.node.pod(id);
        (case.pod)(&mut pod);
        pod
    }

    fn add(&self, case: &Case, pod: &Attachment) -> cni::Result<CniResult> {
        let (runtime, network) = (self.runtime(self.native), self.network(case));
        self.node.run(|| runtime.add(&network, pod, &soon()))
    }

    /// By whom the ADD was not.
    fn del_crosswise(&self, case: &Case, pod: &Attachment) -> cni::Result<()> {
        let (runtime, network) = (self.runtime(!self.native), self.network(case));
        self.node.run(|| runtime.del(&network, pod, &soon()))
    }

    fn look(&self, pods: &[&Attachment], results: &[&CniResult]) -> Value {
        Look { node: &self.node, pods, results }.all()
    }
}

fn same(what: &str, binary: impl Fn() -> Value, native: impl Fn() -> Value) {
    // Some of it the kernel does in its own time: carriers, local addresses of IPv6.
    let limit = std::time::Instant::now() + support::PATIENCE;
    loop {
        let (binary, native) = (binary(), native());
        if binary == native {
            return;
        }
        let told = differences(&binary, &native);
        assert!(std::time::Instant::now() < limit, "{what}:\n{told}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn both_make_the_same_and_take_away_what_the_other_made() {
    for case in CASES {
        eprintln!("case: {}", case.name);
        let sides = [Side::new(false, case), Side::new(true, case)];
        let [binary, native] = &sides;
        let network = native.network(case);
        let in_process = native.runtime(true).in_process(&network);
        let kinds: Vec<_> = network.plugins().iter().map(cni::Plugin::kind).collect();
        assert_eq!(in_process, kinds, "{}: what is compared is not in-process", case.name);
        let pods = ["pod1", "pod2"].map(|id| sides.each_ref().map(|side| side.pod(id, case)));
        let mut results = Vec::new();
        for (at, pod) in pods.iter().enumerate().take(case.pods) {
            let made = [0, 1].map(|i| {
                let made = sides[i].add(case, &pod[i]);
                made.unwrap_or_else(|e| panic!("{} by {i}: {e}", case.name))
            });
            results.push(made);
            let look = |i: usize| {
                let pods: Vec<_> = pods[..=at].iter().map(|pod| &pod[i]).collect();
                let results: Vec<_> = results.iter().map(|made| &made[i]).collect();
                sides[i].look(&pods, &results)
            };
            same(case.name, || look(0), || look(1));
        }
        for (at, pod) in pods.iter().enumerate() {
            for (side, pod) in sides.iter().zip(pod) {
                // Twice, and in the end without the namespace.
                for _ in 0..2 {
                    side.del_crosswise(case, pod).unwrap();
                }
                let gone = Attachment { netns: None, ..pod.clone() };
                side.del_crosswise(case, &gone).unwrap();
                eventually("the veth is gone", || side.node.veths().len() == left(case, at));
            }
            let there = &pods[at + 1..case.pods.max(at + 1)];
            let look = |i: usize| {
                let pods: Vec<_> = there.iter().map(|pod| &pod[i]).collect();
                sides[i].look(&pods, &[])
            };
            same(&format!("{} after DEL", case.name), || look(0), || look(1));
        }
        for side in [binary, native] {
            for id in ["pod1", "pod2"] {
                side.node.remove_netns(id);
            }
            side.node.assert_clean();
        }
    }
}

/// The veths on the node when the pods up to this one are gone.
fn left(case: &Case, gone: usize) -> usize {
    if case.veths { case.pods.saturating_sub(gone + 1) } else { 0 }
}

#[test]
fn what_one_refuses_the_other_refuses_and_nothing_is_left() {
    for case in REFUSED {
        eprintln!("case: {}", case.name);
        for native in [false, true] {
            let side = Side::new(native, case);
            let pod = side.pod("pod1", case);
            let error = side.add(case, &pod).unwrap_err();
            let plugin = side.network(case).plugins()[0].kind().to_owned();
            assert_eq!(error.plugin(), Some(plugin.as_str()), "{}: {error}", case.name);
            assert!(matches!(error, cni::Error::Refused { .. }), "{}: {error}", case.name);
            assert_eq!(side.node.leases(), Vec::<String>::new(), "{}", case.name);
            side.del_crosswise(case, &pod).unwrap();
            side.node.remove_netns("pod1");
            side.node.assert_clean();
        }
    }
}

#[test]
fn many_pods_at_once_by_both_get_different_addresses() {
    const PODS: usize = 12;
    let node = Node::new();
    let network = node.plain_bridge();
    let pods: Vec<_> = (0..PODS).map(|i| node.pod(&format!("pod{i}"))).collect();
    let runtimes = [false, true].map(|native| Runtime { native, ..node.runtime.clone() });
    let mut ips: Vec<_> = std::thread::scope(|scope| {
        let add = |(at, pod): (usize, &Attachment)| {
            node.run(|| runtimes[at % 2].add(&network, pod, &soon()).unwrap().addresses("eth0")[0])
        };
        let threads: Vec<_> =
            pods.iter().enumerate().map(|each| scope.spawn(move || add(each))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    ips.sort();
    ips.dedup();
    assert_eq!((ips.len(), node.leases().len(), node.cached()), (PODS, PODS, PODS));
    std::thread::scope(|scope| {
        for (at, pod) in pods.iter().enumerate() {
            let runtime = &runtimes[(at / 2) % 2];
            let (node, network) = (&node, &network);
            scope.spawn(move || node.run(|| runtime.del(network, pod, &soon()).unwrap()));
        }
    });
    for i in 0..PODS {
        node.remove_netns(&format!("pod{i}"));
    }
    node.assert_clean();
}

#[test]
fn without_executables_the_usual_network_works() {
    let node = Node::new();
    let network = node.plain_bridge();
    let runtime = Runtime { native: true, bin_dirs: vec!["/none".into()], ..node.runtime.clone() };
    assert!(runtime.missing(&network).is_empty());
    let without = Runtime { native: false, ..runtime.clone() };
    assert_eq!(without.missing(&network), ["bridge"]);
    let pod = node.pod("pod1");
    let result = node.run(|| runtime.add(&network, &pod, &soon())).unwrap();
    assert_eq!(node.leases(), [result.addresses("eth0")[0].to_string()]);
    node.run(|| runtime.del(&network, &pod, &soon())).unwrap();
    node.remove_netns("pod1");
    node.assert_clean();
}

/// The executable `ptp` leaves the rules then.
#[test]
fn of_a_pod_of_which_nothing_is_known_no_rule_stays() {
    for kind in ["bridge", "ptp"] {
        let node = Node::in_process();
        let ipam =
            json!({"type": "host-local", "dataDir": node.path("leases"), "subnet": "10.77.0.0/24"});
        let plugin = json!({"type": kind, "ipMasq": true, "ipam": ipam});
        let network = support::network("1.0.0", &[plugin]);
        let pod = node.pod("pod1");
        node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
        assert!(node.nat_rules().contains("10.77.0."), "{kind}");
        node.remove_netns("pod1");
        std::fs::remove_dir_all(node.path("cache/results")).unwrap();
        let pod = Attachment { netns: None, ..pod };
        node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
        node.assert_clean();
    }
}

#[test]
fn what_is_not_understood_is_left_to_the_executable() {
    let runtime = Runtime { native: true, ..Runtime::default() };
    let ipam = json!({"type": "host-local", "subnet": "10.1.0.0/16"});
    let is_native = |version: &str, plugin: Value| {
        let network = support::network(version, &[plugin]);
        runtime.in_process(&network).len() == 1
    };
    let bridge = |key: &str, value: Value| {
        let mut plugin = json!({"type": "bridge", "ipam": ipam});
        plugin[key] = value;
        plugin
    };
    for (key, value) in [
        ("vlan", json!(0)),
        ("mtu", json!(1400)),
        ("isGateway", json!(true)),
        ("dns", json!({"domain": "example"})),
    ] {
        assert!(is_native("1.0.0", bridge(key, value)), "{key}");
    }
    for (key, value) in [
        ("vlan", json!(5)),
        ("vlanTrunk", json!([{"id": 5}])),
        ("macspoofchk", json!(true)),
        ("portIsolation", json!(true)),
        ("isGateway", json!("true")),
        ("IsGateway", json!(true)),
        ("isGateway", json!(null)),
        ("mtu", json!(-1)),
        ("unheardOf", json!(0)),
        ("bridge", json!("a/b")),
        ("bridge", json!("br%d")),
        ("args", json!({"cni": {"labels": []}})),
        ("dns", json!({"nameserver": "10.0.0.1"})),
        ("ipam", json!({"type": "dhcp"})),
        ("ipam", json!({"type": "host-local"})),
        ("ipam", json!({"type": "host-local", "subnet": "10.1.0.0/16", "unheardOf": 1})),
        ("ipam", json!({"type": "host-local", "subnet": "10.1.0.1/16"})),
        ("ipam", json!({"type": "host-local", "subnet": "10.1.0.0/16", "dataDir": "relative"})),
    ] {
        assert!(!is_native("1.0.0", bridge(key, value.clone())), "{key}: {value}");
    }
    let route = |route: Value| {
        let ipam = json!({"type": "host-local", "subnet": "10.1.0.0/16", "routes": [route]});
        is_native("1.0.0", json!({"type": "ptp", "ipam": ipam}))
    };
    assert!(
        route(json!({"dst": "0.0.0.0/0"}))
            && route(json!({"dst": "10.9.0.0/16", "gw": "10.1.0.9"}))
    );
    assert!(!route(json!({"dst": "10.9.0.0/16", "mtu": 1400})));
    assert!(!route(json!({"dst": "10.9.0.0/16", "gw": "fd00::1"})));
    for (version, native) in [("0.3.0", true), ("1.1.0", true), ("1.0", false), ("2.0.0", false)] {
        assert_eq!(is_native(version, bridge("mtu", json!(0))), native, "{version}");
    }
    assert!(!is_native("1.0.0", json!({"type": "bandwidth"})));
    assert!(!is_native("1.0.0", json!({"type": "tuning", "txQLen": 5})));
}
