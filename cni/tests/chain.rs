//! Debian's plugins in a network of the test's own: bridge, host-local, portmap.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use cni::{Attachment, Error, Network, PortMapping, netns};
use serde_json::{Value, json};
use support::{Node, PATIENCE, network, repository, soon};

fn with_port(mut pod: Attachment, host: u16, container: u16) -> Attachment {
    pod.capabilities.port_mappings = vec![PortMapping {
        host_port: host,
        container_port: container,
        protocol: "tcp".into(),
        host_ip: String::new(),
    }];
    pod
}

/// Serves one connection in the pod and dials it from the node.
fn speaks(node: &Node, pod: &Attachment, listen: SocketAddr, dial: SocketAddr) -> String {
    let listener =
        netns::run_in(pod.netns.as_ref().unwrap(), || TcpListener::bind(listen)).unwrap().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
    });
    let text = node.run(|| {
        let mut stream = TcpStream::connect_timeout(&dial, PATIENCE).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    server.join().unwrap();
    text
}

#[test]
fn a_pod_is_reached_by_its_address_and_its_host_port_and_leaves_nothing() {
    let node = Node::new();
    let network = node.bridge();
    let pod = with_port(node.pod("pod1"), 18080, 80);
    let result = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    let ip = result.addresses("eth0")[0];
    assert_eq!(node.leases(), [ip.to_string()]);
    assert_eq!(result.interfaces.last().unwrap().sandbox, node.netns("pod1").to_str().unwrap());
    assert_eq!(speaks(&node, &pod, (ip, 80).into(), (ip, 80).into()), "hello");
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(speaks(&node, &pod, (ip, 80).into(), (local, 18080).into()), "hello");

    assert_eq!(node.cached(), 1);
    for _ in 0..2 {
        node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    }
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn del_needs_neither_namespace_nor_cache_nor_what_the_caller_forgot() {
    let node = Node::new();
    // Debian's bridge 1.1.1 takes the addresses to unmasquerade from the namespace, so without one those
    // rules stay: that is why the namespace is to outlive the DEL. Here it does not, so no masquerading.
    let list = String::from_utf8(node.bridge().bytes().to_vec()).unwrap();
    let list = list.replace("\"ipMasq\":true", "\"ipMasq\":false");
    let network = Network::parse(list.as_bytes()).unwrap();
    for (id, forget_cache) in [("pod1", false), ("pod2", true)] {
        let pod = with_port(node.pod(id), 18081, 80);
        node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
        node.remove_netns(id);
        let bare = Attachment { netns: None, ..pod.clone() };
        let bare = if forget_cache {
            std::fs::remove_dir_all(node.path("cache")).unwrap();
            bare
        } else {
            Attachment { capabilities: Default::default(), args: Vec::new(), ..bare }
        };
        // The caller recorded the list; that is all there is of the configuration.
        let recorded = Network::parse(network.bytes()).unwrap();
        node.run(|| node.runtime.del(&recorded, &bare, &soon())).unwrap();
        node.assert_clean();
    }
    let never = Attachment { netns: None, ..Attachment::for_pod("never", "n", "n", "u") };
    node.run(|| node.runtime.del(&network, &never, &soon())).unwrap();
    // Whoever died while it made the namespace has left the file that it was to be pinned on.
    let file = node.path("never");
    std::fs::write(&file, "").unwrap();
    let unpinned = Attachment { netns: Some(file), ..never };
    node.run(|| node.runtime.del(&network, &unpinned, &soon())).unwrap();
}

#[test]
fn an_add_that_fails_late_is_undone_by_del() {
    let node = Node::new();
    node.script("late", r#"[ $CNI_COMMAND = ADD ] && echo '{"code":110,"msg":"no"}' && exit 1"#);
    let list: Value = serde_json::from_slice(node.bridge().bytes()).unwrap();
    let mut plugins = list["plugins"].as_array().unwrap().clone();
    plugins.push(json!({ "type": "late" }));
    let network = network("1.0.0", &plugins);
    let pod = with_port(node.pod("pod1"), 18082, 80);
    let error = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap_err();
    assert_eq!((error.plugin(), error.code()), (Some("late"), Some(110)), "{error}");
    assert_eq!((node.leases().len(), node.cached()), (1, 1), "what came before it");
    // A plugin that fails its DEL does not keep the others from theirs, but the failure is told.
    node.script("late", "echo broken >&2; exit 7");
    let error = node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert_eq!((node.leases().len(), node.cached()), (0, 1), "kept for the next try");
    node.script("late", "exit 0");
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn a_failed_check_is_told() {
    let node = Node::new();
    // Without portmap, whose 1.1.1 looks for IPv6 rules of pods that have no IPv6.
    let list: Value = serde_json::from_slice(node.bridge().bytes()).unwrap();
    let network = network("1.0.0", &list["plugins"].as_array().unwrap()[..1]);
    let pod = node.pod("pod1");
    node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    node.run(|| node.runtime.check(&network, &pod, &soon())).unwrap();
    let ip = |args: &str| Command::new("ip").args(args.split(' ')).status().unwrap().success();
    assert!(netns::run_in(pod.netns.as_ref().unwrap(), || ip("route del default")).unwrap());
    let error = node.run(|| node.runtime.check(&network, &pod, &soon())).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    assert!(node.run(|| node.runtime.check(&network, &pod, &soon())).is_err());
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn a_version_that_the_plugin_lacks_is_its_own_error() {
    let node = Node::new();
    let versions = node.runtime.version("bridge", &soon()).unwrap();
    assert!(versions.iter().any(|v| v == "1.0.0"), "{versions:?}");
    if versions.iter().any(|v| v == "1.1.0") {
        return; // a newer package
    }
    let pod = node.pod("pod1");
    let list = String::from_utf8(node.bridge().bytes().to_vec()).unwrap();
    let newer = Network::parse(list.replace("1.0.0", "1.1.0").as_bytes()).unwrap();
    let error = node.run(|| node.runtime.add(&newer, &pod, &soon())).unwrap_err();
    assert_eq!((error.plugin(), error.code()), (Some("bridge"), Some(1)), "{error}");
    assert!(error.to_string().contains("1.1.0"), "{error}");
    // A list that allows both is spoken in the one that we know best, so old plugins need the old one.
    let old = Network::parse(list.replace("1.0.0", "0.3.1").as_bytes()).unwrap();
    let result = node.run(|| node.runtime.add(&old, &pod, &soon())).unwrap();
    assert_eq!((result.cni_version.as_str(), result.addresses("eth0").len()), ("0.3.1", 1));
    node.run(|| node.runtime.del(&old, &pod, &soon())).unwrap();
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn many_pods_at_once_get_different_addresses() {
    const PODS: usize = 16;
    let node = Node::new();
    let network = node.bridge();
    let pods: Vec<_> = (0..PODS).map(|i| node.pod(&format!("pod{i}"))).collect();
    let each = |f: &(dyn Fn(&Attachment) -> Option<IpAddr> + Sync)| -> Vec<Option<IpAddr>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                pods.iter().map(|pod| scope.spawn(|| node.run(|| f(pod)))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    };
    let mut ips =
        each(&|pod| Some(node.runtime.add(&network, pod, &soon()).unwrap().addresses("eth0")[0]));
    ips.sort();
    ips.dedup();
    assert_eq!((ips.len(), node.leases().len(), node.cached()), (PODS, PODS, PODS));
    each(&|pod| {
        node.runtime.del(&network, pod, &soon()).unwrap();
        None
    });
    for i in 0..PODS {
        node.remove_netns(&format!("pod{i}"));
    }
    node.assert_clean();
}

#[test]
fn the_sample_configuration_works() {
    let node = Node::new();
    let file = repository().join("deploy/cni/10-podwright.conflist");
    let set = cni::ConfigSet::load(file.parent().unwrap());
    assert_eq!((set.summary().as_str(), set.path()), ("OK", Some(file.as_path())));
    assert!(set.network().unwrap().has_capability("portMappings"));
    // As it is, but for where the leases are kept.
    let mut list: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    list["plugins"][0]["ipam"]["dataDir"] = json!(node.path("leases"));
    let network = Network::parse(list.to_string().as_bytes()).unwrap();
    assert!(node.runtime.missing(&network).is_empty());
    let pod = with_port(node.pod("pod1"), 18083, 80);
    let result = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    let ip = result.addresses("eth0")[0];
    assert_eq!(speaks(&node, &pod, (ip, 80).into(), (ip, 80).into()), "hello");
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    node.remove_netns("pod1");
    node.assert_clean();
}
