//! The node's `iptables` changes under pods that live on: whoever wrote their rules takes them away.

mod support;

use std::process::Command;

use cni::{Attachment, Engine, Engines, Network, PortMapping, Runtime};
use serde_json::json;
use support::tables::{Tables, kept};
use support::{Node, network, soon};

const ENGINES: [Engine; 2] = [Engine::NfTables, Engine::Legacy];

fn other(engine: Engine) -> Engine {
    if engine == Engine::Legacy { Engine::NfTables } else { Engine::Legacy }
}

/// What pods have in the tables of both engines. Chains that all of them share stay.
fn rules(node: &Node) -> Vec<String> {
    let mut all = Vec::new();
    for program in ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"] {
        // Wherever the node has them.
        let program_of = kept(&format!("{program}-save"));
        let save = || Command::new(&program_of).output().unwrap();
        let text = String::from_utf8(node.run(save).stdout).unwrap();
        let shared = |line: &str| line.contains("HOSTPORT") && !line.contains("CNI-DN-");
        let of_pods = text.lines().filter(|line| {
            let own = ["CNI-DN-", "10.77.0.", "fd77::", "id: "];
            line.starts_with([':', '-']) && own.iter().any(|word| line.contains(word))
        });
        all.extend(of_pods.filter(|line| !shared(line)).map(|line| format!("{program} {line}")));
    }
    all
}

/// All that writes rules. Of the last key no plugin knows, so that the executable gets it.
fn everything(node: &Node, is_understood: bool) -> Network {
    let ranges = json!([[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]);
    let ipam = json!({"type": "host-local", "dataDir": node.path("leases"), "ranges": ranges});
    let mut plugins = [
        json!({"type": "ptp", "ipMasq": true, "ipam": ipam}),
        json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        json!({"type": "firewall", "backend": "iptables"}),
    ];
    if !is_understood {
        plugins.iter_mut().for_each(|plugin| plugin["unheardOf"] = 1.into());
    }
    network("1.0.0", &plugins)
}

fn pod(node: &Node, is_recorded: bool) -> Attachment {
    let mut pod = node.pod("pod1");
    node.wait_for_no_duplicates(&pod);
    pod.capabilities.port_mappings = vec![PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: "tcp".into(),
        host_ip: String::new(),
    }];
    if is_recorded {
        pod.engines = Engines::of_node();
        assert!(pod.engines.v4.is_some() && pod.engines.v6 == pod.engines.v4, "{pod:?}");
    }
    // As a caller's record has it, and as one from before engines were recorded.
    let mut record = serde_json::to_value(&pod).unwrap();
    if !is_recorded {
        record.as_object_mut().unwrap().remove("engines").unwrap();
    }
    serde_json::from_value(record).unwrap()
}

fn by(node: &Node, native: bool) -> Runtime {
    Runtime { native, ..node.runtime.clone() }
}

/// Makes a pod on a node of the one engine, and takes it away on one of the other.
fn comes_and_goes(
    tables: &Tables,
    (from, is_recorded, is_understood): (Engine, bool, bool),
    [adds, dels]: [bool; 2],
) {
    let what = format!("{from:?}, recorded {is_recorded}, in-process {adds} {dels}");
    tables.become_those_of(from);
    let node = Node::new();
    let network = everything(&node, is_understood);
    let pod = pod(&node, is_recorded);
    node.run(|| by(&node, adds).add(&network, &pod, &soon())).unwrap();
    let made = rules(&node);
    let is_of = |line: &String| line.contains("-legacy") == (from == Engine::Legacy);
    assert!(made.len() > 10 && made.iter().all(is_of), "{what}: {made:#?}");
    tables.become_those_of(other(from));
    for _ in 0..2 {
        node.run(|| by(&node, dels).del(&network, &pod, &soon())).unwrap();
        assert_eq!(rules(&node), Vec::<String>::new(), "{what}");
    }
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn rules_go_whatever_the_node_has_become() {
    let Some(tables) = Tables::of_test("rules_go_whatever_the_node_has_become") else { return };
    for from in ENGINES {
        for ways in [[true, true], [true, false], [false, true], [false, false]] {
            for is_recorded in [true, false] {
                comes_and_goes(&tables, (from, is_recorded, true), ways);
            }
        }
    }
}

/// Nobody but the executable knows which rules there are.
#[test]
fn executables_find_the_engine_that_wrote_the_rules() {
    let Some(tables) = Tables::of_test("executables_find_the_engine_that_wrote_the_rules") else {
        return;
    };
    for from in ENGINES {
        comes_and_goes(&tables, (from, true, false), [true, true]);
    }
}

/// The engine is known before the first rule, so a half-done ADD is taken back, whenever.
#[test]
fn what_a_failed_add_wrote_goes_too() {
    let Some(tables) = Tables::of_test("what_a_failed_add_wrote_goes_too") else { return };
    for from in ENGINES {
        tables.become_those_of(from);
        let node = Node::in_process();
        node.script("fails", "[ $CNI_COMMAND = ADD ] && exit 1; exit 0");
        let list = everything(&node, true);
        let mut list: serde_json::Value = serde_json::from_slice(list.bytes()).unwrap();
        list["plugins"].as_array_mut().unwrap().push(json!({"type": "fails"}));
        let network = Network::parse(list.to_string().as_bytes()).unwrap();
        let pod = pod(&node, true);
        let error = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap_err();
        assert_eq!(error.plugin(), Some("fails"), "{error}");
        assert!(!rules(&node).is_empty());
        tables.become_those_of(other(from));
        node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
        let left: Vec<_> = rules(&node);
        // Without a result nobody knows which addresses firewall accepted, as with the executable.
        let left: Vec<_> = left.iter().filter(|line| !line.contains("CNI-FORWARD")).collect();
        assert!(left.is_empty(), "{left:#?}");
        node.remove_netns("pod1");
    }
}

#[test]
fn an_engine_without_programs_is_reached_or_told() {
    let Some(tables) = Tables::of_test("an_engine_without_programs_is_reached_or_told") else {
        return;
    };
    for from in ENGINES {
        tables.become_those_of(from);
        let node = Node::in_process();
        let network = everything(&node, true);
        let pod = pod(&node, true);
        node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
        let stays = rules(&node);
        tables.become_those_of(other(from));
        tables.take_away(from);
        let outcome = node.run(|| node.runtime.del(&network, &pod, &soon()));
        if from == Engine::Legacy {
            let told = outcome.unwrap_err().to_string();
            assert!(told.contains("tables-legacy is not usable"), "{told}");
            assert_eq!(rules(&node), stays);
            tables.become_those_of(from);
            node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
        } else {
            outcome.unwrap();
        }
        assert_eq!(rules(&node), Vec::<String>::new());
        node.remove_netns("pod1");
        node.assert_clean();
    }
}

/// It may be built on either, which only the tables tell.
#[test]
fn of_a_script_nobody_knows_what_it_is() {
    let Some(tables) = Tables::of_test("of_a_script_nobody_knows_what_it_is") else { return };
    for from in ENGINES {
        for native in [true, false] {
            tables.become_a_script_for(from);
            assert_eq!(Engines::of_node(), Engines::default());
            let node = Node::new();
            let network = everything(&node, true);
            let pod = pod(&node, false);
            node.run(|| by(&node, true).add(&network, &pod, &soon())).unwrap();
            assert!(!rules(&node).is_empty());
            tables.become_a_script_for(other(from));
            node.run(|| by(&node, native).del(&network, &pod, &soon())).unwrap();
            assert_eq!(rules(&node), Vec::<String>::new(), "{from:?}, in-process {native}");
            node.remove_netns("pod1");
            node.assert_clean();
        }
    }
}

#[test]
fn nobody_makes_the_kernel_have_tables_by_looking_for_them() {
    let name = "nobody_makes_the_kernel_have_tables_by_looking_for_them";
    let Some(_tables) = Tables::of_test(name) else { return };
    let node = Node::in_process();
    let network = everything(&node, true);
    let pod = pod(&node, false);
    node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    for list in ["ip_tables_names", "ip6_tables_names"] {
        let list = format!("/proc/thread-self/net/{list}");
        let names = node.run(|| std::fs::read_to_string(&list).unwrap_or_default());
        assert_eq!(names, "", "{list}");
    }
    node.remove_netns("pod1");
    node.assert_clean();
}
