//! Which namespaces a container is in, and what it may set in them.

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, sandbox, shell};
use e2e::{World, eventually};
use tonic::Code;

use crate::{refused, security};

use NamespaceMode::{Container, Node, Pod as OfPod, Target};

const KINDS: [&str; 4] = ["pid", "ipc", "net", "uts"];

fn options(pid: NamespaceMode, ipc: NamespaceMode, network: NamespaceMode) -> NamespaceOption {
    NamespaceOption {
        network: network.into(),
        pid: pid.into(),
        ipc: ipc.into(),
        ..Default::default()
    }
}

fn pod<'w>(
    world: &'w World,
    name: &str,
    pid: NamespaceMode,
    ipc: NamespaceMode,
    network: NamespaceMode,
) -> Pod<'w> {
    world.pod_of(pod_config(world, name, options(pid, ipc, network)))
}

fn pod_config(world: &World, name: &str, options: NamespaceOption) -> PodSandboxConfig {
    let mut config = sandbox(world, name);
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options = Some(options);
    config
}

/// A container in the namespaces that `of` says.
fn in_namespaces(name: &str, of: NamespaceOption) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &[]);
    security(&mut config).namespace_options = Some(of);
    config
}

/// The identity of each namespace.
fn inside(world: &World, id: &str) -> [String; 4] {
    KINDS.map(|kind| world.exec(id, &format!("readlink /proc/self/ns/{kind}")))
}

fn of_host(world: &World) -> [String; 4] {
    KINDS.map(|kind| world.sh(&format!("readlink /proc/self/ns/{kind}")))
}

on_each_runtime! {
    fn pod_container_and_host(world) {
        world.pull(BUSYBOX);
        let host = of_host(world);
        for (i, (pid, ipc, network)) in [
            (Container, OfPod, OfPod),
            (OfPod, OfPod, OfPod),
            (Node, OfPod, OfPod),
            (Container, Node, OfPod),
            (Container, OfPod, Node),
            (Node, Node, Node),
        ]
        .into_iter()
        .enumerate()
        {
            let pod = pod(world, &format!("pod-{i}"), pid, ipc, network);
            let [one, two] = ["one", "two"].map(|name| pod.run(in_namespaces(name, options(pid, ipc, network))));
            let (first, second) = (inside(world, &one), inside(world, &two));
            // uts goes with the network.
            for (kind, mode) in [pid, ipc, network, network].into_iter().enumerate() {
                let what = format!("{} of pod {i}", KINDS[kind]);
                assert_eq!(first[kind] == host[kind], mode == Node, "{what}: the host's");
                assert_eq!(first[kind] == second[kind], mode != Container, "{what}: shared");
            }
            let status = world.sandbox_status(&pod.id).unwrap();
            let told = status.linux.unwrap().namespaces.unwrap().options.unwrap();
            assert_eq!((told.pid(), told.ipc(), told.network()), (pid, ipc, network));
            pod.end();
        }
    }

    fn the_processes_of_another_container(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("target");
        let other = world.pod("other");
        let target = pod.run(container("target", BUSYBOX, &["sleep", "4321"]));
        let debugs = |name: &str, id: &str| {
            let target_id = id.to_owned();
            in_namespaces(name, NamespaceOption { target_id, ..options(Target, OfPod, OfPod) })
        };
        let id = pod.run(debugs("debugger", &target));
        assert_eq!(inside(world, &id)[0], inside(world, &target)[0]);
        assert!(world.exec(&id, "ps").contains("sleep 4321"));
        // It outlives its debugger.
        world.stop_container(&id, 0).unwrap();
        assert!(world.exec(&target, "ps").contains("sleep 4321"));

        let field = "namespace_options.target_id";
        let elsewhere = other.run(container("elsewhere", BUSYBOX, &[]));
        refused(&pod.try_create(debugs("a", &elsewhere)), Code::InvalidArgument, "another sandbox");
        refused(&pod.try_create(debugs("b", crate::NO_SUCH_ID)), Code::InvalidArgument, field);
        refused(&pod.try_create(debugs("c", "")), Code::InvalidArgument, field);
        refused(&pod.try_create(debugs("d", "../../1")), Code::InvalidArgument, field);
        let created = pod.create(container("created", BUSYBOX, &[]));
        refused(&pod.try_create(debugs("e", &created)), Code::InvalidArgument, "not running");
        world.stop_container(&target, 0).unwrap();
        refused(&pod.try_create(debugs("f", &target)), Code::InvalidArgument, "not running");
        other.end();
        pod.end();
    }

    fn a_shared_pid_namespace_has_an_init_that_reaps(world) {
        world.pull(BUSYBOX);
        let pod = pod(world, "shared", OfPod, OfPod, OfPod);
        let of = || options(OfPod, OfPod, OfPod);
        let line = "for i in 1 2 3 4 5; do (sh -c 'sleep 0.1 & exit' &); done; sleep 1234";
        let mut config = in_namespaces("orphans", of());
        config.command = shell(line).map(str::to_owned).into();
        let orphans = pod.run(config);
        let watcher = pod.run(in_namespaces("watcher", of()));
        eventually("it to see the others", || {
            world.exec(&watcher, "ps").contains("sleep 1234").then_some(())
        });
        assert!(world.exec(&watcher, "cat /proc/1/comm").starts_with("podwright-init"));
        // The init gives away nothing of the host.
        for path in ["root", "cwd", "exe"] {
            let look = world.try_exec(&watcher, &["ls", &format!("/proc/1/{path}/")], 10).unwrap();
            assert_ne!(look.exit_code, 0, "{path}");
        }
        eventually("the orphans to end, and none to stay a zombie", || {
            let all = world.exec(&watcher, "cat /proc/[0-9]*/stat 2>/dev/null || true");
            (!all.contains("(sleep) Z") && all.matches("(sleep)").count() == 2).then_some(())
        });
        world.stop_container(&orphans, 0).unwrap();
        assert!(!world.exec(&watcher, "ps").contains("sleep 1234"));
        pod.end();
    }

    fn host_names(world) {
        world.pull(BUSYBOX);
        for (name, asked, network) in
            [("plain", "web-0", OfPod), ("qualified", "web-0.nginx.shop.svc", OfPod), ("host", "", Node)]
        {
            let mut config = pod_config(world, name, options(Container, OfPod, network));
            config.hostname = asked.into();
            config.linux.as_mut().unwrap().sysctls = match network {
                Node => Default::default(),
                _ => [("kernel.domainname".to_owned(), "shop.example".to_owned())].into(),
            };
            let pod = world.pod_of(config);
            let id = pod.run(in_namespaces("c", options(Container, OfPod, network)));
            let node = world.sh("uname -n");
            let expected = if asked.is_empty() { node.trim() } else { asked };
            let said = world.exec(&id, "hostname; cat /etc/hostname; echo $HOSTNAME; uname -n");
            assert!(said.lines().all(|line| line == expected), "{said}");
            if network == OfPod {
                assert_eq!(world.exec(&id, "cat /proc/sys/kernel/domainname"), "shop.example\n");
                assert_ne!(world.sh("cat /proc/sys/kernel/domainname"), "shop.example\n");
            }
            pod.end();
        }
    }

    fn kernel_parameters(world) {
        world.pull(BUSYBOX);
        let mut config = sandbox(world, "sysctls");
        let asked = [
            ("kernel.shm_rmid_forced", "1"),
            ("kernel/msgmax", "12345"),
            ("fs.mqueue.msg_max", "100"),
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.ip_local_port_range", "2000 3000"),
            ("net/ipv4/conf/lo/rp_filter", "2"),
        ];
        config.linux.as_mut().unwrap().sysctls =
            asked.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let before = world.sh("cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax");
        let pod = world.pod_of(config);
        let id = pod.run(container("c", BUSYBOX, &[]));
        for (name, value) in asked.into_iter().chain([("net.ipv4.ip_unprivileged_port_start", "0")]) {
            let path = name.replace('.', "/");
            let said = world.exec(&id, &format!("cat /proc/sys/{path}"));
            assert_eq!(said.split_whitespace().collect::<Vec<_>>().join(" "), value, "{name}");
        }
        assert_eq!(world.sh("cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax"), before);
        pod.end();
    }
}

/// Only what a namespace of the pod holds can be set (CVE-2022-0811): all else is the node's.
#[test]
fn parameters_that_are_not_the_pods_are_refused() {
    let world = World::start(e2e::Options::default());
    let (own, host) = (options(Container, OfPod, OfPod), options(Node, Node, Node));
    for (name, value, of) in [
        ("kernel.core_pattern", "|/bin/sh", &own),
        ("vm.overcommit_memory", "1", &own),
        ("fs.file-max", "1", &own),
        ("kernel.shmmax.x", "1", &own),
        ("net.ipv4.ip_forward", "1", &host),
        ("kernel.shmmax", "1", &host),
        ("fs.mqueue.msg_max", "10", &host),
        ("kernel.domainname", "x", &host),
        ("net/../kernel/core_pattern", "x", &own),
        ("net..core_pattern", "x", &own),
        ("/net/ipv4/ip_forward", "1", &own),
        ("", "1", &own),
        ("net.ipv4.ip_forward", "1\nkernel.core_pattern=x", &own),
    ] {
        let mut config = pod_config(&world, "refused", of.clone());
        config.linux.as_mut().unwrap().sysctls = [(name.to_owned(), value.to_owned())].into();
        let answer = world.try_pod(config).map(|pod| pod.id);
        refused(&answer, Code::InvalidArgument, &format!("sysctls[{name:?}]"));
    }
    // A value that the kernel refuses fails the pod, and leaves nothing.
    let mut config = sandbox(&world, "value");
    config.linux.as_mut().unwrap().sysctls =
        [("net.ipv4.ip_forward".to_owned(), "many".to_owned())].into();
    let answer = world.try_pod(config).map(|pod| pod.id).unwrap_err();
    assert!(answer.message().contains("net.ipv4.ip_forward"), "{answer}");
    world.finish();
}

#[test]
fn modes_that_do_not_exist_are_refused() {
    let world = World::start(e2e::Options::default());
    for (of, field) in [
        (options(Target, OfPod, OfPod), "namespace_options.pid"),
        (options(Container, Container, OfPod), "namespace_options.ipc"),
        (options(Container, Target, OfPod), "namespace_options.ipc"),
        (options(Container, OfPod, Container), "namespace_options.network"),
        (options(Container, OfPod, Target), "namespace_options.network"),
    ] {
        let answer = world.try_pod(pod_config(&world, "refused", of)).map(|pod| pod.id);
        refused(&answer, Code::InvalidArgument, field);
    }
    let unknown = NamespaceOption { pid: 7, ..Default::default() };
    let answer = world.try_pod(pod_config(&world, "unknown", unknown)).map(|pod| pod.id);
    refused(&answer, Code::InvalidArgument, "namespace_options.pid");
    world.finish();
}
