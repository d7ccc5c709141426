//! Capabilities and no_new_privs, as the kernel tells them of a container's first process.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use tonic::Code;

use crate::{inside, of_status, refused, security};

/// The set of containers that ask for nothing.
const DEFAULT: u64 = 0xa804_25fb;
const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;

fn mask(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

/// What the daemon may hand on.
fn ours(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon_pid().unwrap()));
    mask(&of_status(&status.unwrap(), "CapBnd"))
}

/// Bounding, permitted, effective, inheritable and ambient of process 1.
fn sets(world: &World, id: &str) -> [u64; 5] {
    ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"].map(|set| mask(&inside(world, id, set)))
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

on_each_runtime! {
    fn added_and_dropped(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("capabilities");
        let ours = ours(world);
        for (i, (add, drop, expected)) in [
            (&[][..], &[][..], DEFAULT),
            (&["SYS_ADMIN"], &["KILL"], (DEFAULT | SYS_ADMIN) & !KILL),
            (&["CAP_NET_ADMIN"], &["CAP_CHOWN"], (DEFAULT | NET_ADMIN) & !CHOWN),
            (&["ALL"], &[], u64::MAX),
            (&["all"], &["chown"], !CHOWN),
            (&[], &["ALL"], 0),
            (&["NET_BIND_SERVICE"], &["ALL"], NET_BIND_SERVICE),
            (&["ALL"], &["ALL"], 0),
        ]
        .into_iter()
        .enumerate()
        {
            let mut config = container(&format!("set-{i}"), BUSYBOX, &[]);
            let (add_capabilities, drop_capabilities) = (names(add), names(drop));
            security(&mut config).capabilities =
                Some(Capability { add_capabilities, drop_capabilities, ..Default::default() });
            let id = pod.run(config);
            let set = expected & ours;
            // Nothing is inheritable: it would outlive the exec of an unprivileged user (CVE-2022-24769).
            assert_eq!(sets(world, &id), [set, set, set, 0, 0], "{add:?} {drop:?}");
            // A command in the container has no more than it.
            let own = world.exec(&id, "cat /proc/self/status");
            assert_eq!(mask(&of_status(&own, "CapEff")), set);
            world.remove_container(&id).unwrap();
        }
        pod.end();
    }

    fn ambient_ones_reach_a_user_who_is_not_root(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("ambient");
        for (name, user, ambient, expected) in [
            ("root", 0, &["NET_BIND_SERVICE"][..], [DEFAULT, DEFAULT, DEFAULT, NET_BIND_SERVICE, NET_BIND_SERVICE]),
            ("plain", 1000, &[], [DEFAULT, 0, 0, 0, 0]),
            (
                "ambient",
                1000,
                &["CAP_NET_ADMIN", "net_bind_service"],
                [DEFAULT | NET_ADMIN, NET_ADMIN | NET_BIND_SERVICE, NET_ADMIN | NET_BIND_SERVICE,
                 NET_ADMIN | NET_BIND_SERVICE, NET_ADMIN | NET_BIND_SERVICE],
            ),
        ] {
            let mut config = container(name, BUSYBOX, &[]);
            let security = security(&mut config);
            security.run_as_user = Some(Int64Value { value: user });
            security.capabilities =
                Some(Capability { add_ambient_capabilities: names(ambient), ..Default::default() });
            let id = pod.run(config);
            assert_eq!(sets(world, &id), expected, "{name}");
        }
        pod.end();
    }

    fn no_new_privileges(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("new-privileges");
        for (name, asked, told) in [("may", false, "0"), ("may-not", true, "1")] {
            let mut config = container(name, BUSYBOX, &[]);
            security(&mut config).no_new_privs = asked;
            let id = pod.run(config);
            assert_eq!(inside(world, &id, "NoNewPrivs"), told);
            let own = world.exec(&id, "cat /proc/self/status");
            assert_eq!(of_status(&own, "NoNewPrivs"), told, "of a command in it");
        }
        pod.end();
    }

    fn privileged_is_all_that_the_daemon_has_and_not_more(world) {
        world.pull(BUSYBOX);
        let mut sandbox = e2e::pod::sandbox(world, "privileged");
        sandbox.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let pod = world.pod_of(sandbox);
        let mut config = container("c", BUSYBOX, &[]);
        let asks = security(&mut config);
        asks.privileged = true;
        asks.masked_paths = vec!["/proc/timer_list".into()];
        asks.readonly_paths = vec!["/proc/sys".into()];
        asks.seccomp = Some(SecurityProfile::default());
        let id = pod.run(config);
        let ours = ours(world);
        assert_eq!(sets(world, &id), [ours, ours, ours, 0, 0]);
        assert_eq!(inside(world, &id, "Seccomp"), "0", "the default profile does not apply");
        world.exec(&id, "test -n \"$(head -c 1 /proc/timer_list)\" && echo 1 > /proc/sys/net/ipv4/ip_forward");
        world.exec(&id, "mount -t tmpfs x /tmp && grep ' /sys ' /proc/self/mounts | grep -q rw");
        let devices = |list: &str| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let inside = devices(&world.exec(&id, "ls /dev"));
        for device in devices(&world.sh("cd /dev; find . -maxdepth 1 -type c -o -maxdepth 1 -type b")) {
            let name = device.trim_start_matches("./").to_owned();
            assert!(name == "console" || inside.contains(&name), "{name} is not in {inside:?}");
        }
        pod.end();
    }
}

#[test]
fn what_is_no_capability_and_what_is_not_privileged_are_refused() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    for (i, set) in ["add", "drop", "ambient"].into_iter().enumerate() {
        let mut config = container(set, BUSYBOX, &[]);
        let mut lists = [vec![], vec![], vec![]];
        lists[i] = names(&["KILL", "CAP_EVERYTHING"]);
        let [add_capabilities, drop_capabilities, add_ambient_capabilities] = lists;
        security(&mut config).capabilities =
            Some(Capability { add_capabilities, drop_capabilities, add_ambient_capabilities });
        refused(
            &pod.try_create(config),
            Code::InvalidArgument,
            "capabilities[1]: \"CAP_EVERYTHING\" is no capability",
        );
    }
    let mut config = container("privileged", BUSYBOX, &[]);
    security(&mut config).privileged = true;
    refused(&pod.try_create(config), Code::InvalidArgument, "linux.security_context.privileged");
    pod.end();
    world.finish();
}

/// Where a handler's configuration says so, a privileged container has the devices of any other.
#[test]
fn privileged_without_the_hosts_devices() {
    let config = "[handlers.crun]\nprivileged_without_host_devices = true\n".to_owned();
    let world = World::start(e2e::Options { config, ..Default::default() });
    world.pull(BUSYBOX);
    let mut sandbox = e2e::pod::sandbox(&world, "privileged");
    sandbox.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = world.pod_of(sandbox);
    let mut config = container("c", BUSYBOX, &[]);
    security(&mut config).privileged = true;
    let id = pod.run(config);
    assert_eq!(mask(&inside(&world, &id, "CapEff")), ours(&world));
    world.exec(&id, "test -c /dev/null && test ! -e /dev/kmsg && test ! -e /dev/mem");
    // Its cgroup does not let it use one that it makes for itself either: 1:11 is /dev/kmsg.
    let made =
        world.try_exec(&id, &shell("busybox mknod /tmp/k c 1 11 && head -c 1 /tmp/k"), 10).unwrap();
    assert_ne!(made.exit_code, 0);
    pod.end();
    world.finish();
}
