//! The pod's network, name and shared namespaces.

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, WEB};
use e2e::pod::{container, namespaces, sandbox, shell};
use e2e::{World, eventually};

/// A shell line that prints the last line of what a server says. (wget of Debian 12's busybox-static crashes.)
fn ask(host: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {host} {port} | tail -n 1")
}

const ANSWER: &str = "hello from podwright\n";

fn answers(world: &World, host: &str, port: u16) {
    eventually("an answer", || (world.sh(&ask(host, port)) == ANSWER).then_some(()));
}

on_each_runtime! {
    fn containers_share_the_pods_network(world) {
        world.pull(WEB);
        world.pull(BUSYBOX);
        let pod = world.pod("web");
        pod.run(container("web", WEB, &[]));
        let other = pod.run(container("other", BUSYBOX, &[]));
        let ip = pod.ip();
        answers(world, &ip, 80);
        assert_eq!(world.exec(&other, &ask("127.0.0.1", 80)), ANSWER);
        assert!(world.exec(&other, "ip -o addr show dev eth0").contains(&ip));
        let neighbour = world.pod("neighbour");
        let id = neighbour.run(container("c", BUSYBOX, &[]));
        assert_ne!(neighbour.ip(), ip);
        assert_eq!(world.exec(&id, &ask(&ip, 80)), ANSWER);
        neighbour.end();
        pod.end();
    }

    fn host_ports(world) {
        world.pull(WEB);
        let mut config = sandbox(world, "ports");
        config.port_mappings = vec![
            PortMapping { container_port: 80, host_port: 12000, ..Default::default() },
            PortMapping { container_port: 81, ..Default::default() },
        ];
        let pod = world.pod_of(config);
        pod.run(container("web", WEB, &[]));
        answers(world, "127.0.0.1", 12000);
        pod.stop().unwrap();
        assert_ne!(world.sh(&ask("127.0.0.1", 12000)), ANSWER);
        pod.end();
    }

    fn the_hosts_network(world) {
        world.pull(BUSYBOX);
        let mut config = sandbox(world, "host");
        config.hostname = String::new();
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
        let pod = world.pod_of(config);
        let status = world.sandbox_status(&pod.id).unwrap();
        assert_eq!(status.network.unwrap_or_default().ip, "");
        let mut config = container("c", BUSYBOX, &[]);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
        let id = pod.run(config);
        let inside = world.exec(&id, "readlink /proc/self/ns/net; hostname");
        assert_eq!(inside, world.sh("readlink /proc/self/ns/net; hostname"));
        pod.end();
    }

    fn names_are_resolved_as_asked(world) {
        world.pull(BUSYBOX);
        let mut config = sandbox(world, "dns");
        config.hostname = "my-name".into();
        config.dns_config = Some(DnsConfig {
            servers: vec!["10.10.10.10".into(), "fd00::1".into()],
            searches: vec!["google.com".into(), "b.example".into()],
            options: vec!["ndots:8".into()],
        });
        let pod = world.pod_of(config);
        let id = pod.run(container("c", BUSYBOX, &[]));
        let mut lines: Vec<String> =
            world.exec(&id, "cat /etc/resolv.conf").lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            ["nameserver 10.10.10.10", "nameserver fd00::1", "options ndots:8", "search google.com b.example"]
        );
        assert_eq!(world.exec(&id, "hostname"), "my-name\n");
        pod.end();
        let pod = world.pod("inherits");
        let id = pod.run(container("c", BUSYBOX, &[]));
        assert_eq!(world.exec(&id, "cat /etc/resolv.conf"), world.sh("cat /etc/resolv.conf"));
        pod.end();
    }

    fn kernel_settings_of_the_pod(world) {
        world.pull(BUSYBOX);
        let mut config = sandbox(world, "sysctls");
        config.linux.as_mut().unwrap().sysctls = [
            ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
            ("net.ipv4.ip_local_port_range".to_owned(), "2000 3000".to_owned()),
        ]
        .into();
        let pod = world.pod_of(config);
        let id = pod.run(container("c", BUSYBOX, &[]));
        assert_eq!(world.exec(&id, "cat /proc/sys/kernel/shm_rmid_forced"), "1\n");
        assert_eq!(world.exec(&id, "cat /proc/sys/net/ipv4/ip_local_port_range"), "2000\t3000\n");
        pod.end();
        let mut config = sandbox(world, "bad-sysctl");
        config.linux.as_mut().unwrap().sysctls = [("kernel.no_such_thing".to_owned(), "1".to_owned())].into();
        assert!(world.try_pod(config).is_err());
    }

    fn process_namespaces(world) {
        world.pull(BUSYBOX);
        let sleeper = shell("exec sleep 777");
        for (mode, sees_neighbour, sees_init) in [
            (NamespaceMode::Container, false, false),
            (NamespaceMode::Pod, true, false),
            (NamespaceMode::Node, true, true),
        ] {
            let options = namespaces(NamespaceMode::Pod, mode);
            let mut config = sandbox(world, "pids");
            let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            security.namespace_options = Some(options.clone());
            let pod = world.pod_of(config);
            let of = |name: &str, command: &[&str]| {
                let mut config = container(name, BUSYBOX, command);
                let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
                security.namespace_options = Some(options.clone());
                config
            };
            let sleeps = pod.run(of("sleeper", &sleeper));
            eventually("the shell to be the sleeper", || {
                world.exec(&sleeps, "ps").contains("sleep 777").then_some(())
            });
            let id = pod.run(of("looker", &[]));
            let ps = world.exec(&id, "ps");
            assert_eq!(ps.contains("sleep 777"), sees_neighbour, "{mode:?}: {ps}");
            assert_eq!(ps.contains("fixture"), sees_init, "{mode:?}: {ps}");
            pod.end();
        }
    }

    fn shared_memory_is_the_pods(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("ipc");
        let one = pod.run(container("one", BUSYBOX, &[]));
        let two = pod.run(container("two", BUSYBOX, &[]));
        world.exec(&one, "echo shared > /dev/shm/file");
        assert_eq!(world.exec(&two, "cat /dev/shm/file"), "shared\n");
        let ipc = "readlink /proc/self/ns/ipc";
        assert_eq!(world.exec(&one, ipc), world.exec(&two, ipc));
        assert_ne!(world.exec(&one, ipc), world.sh(ipc));
        assert!(world.exec(&one, "df -k /dev/shm").contains("65536"));
        pod.end();
    }
}
