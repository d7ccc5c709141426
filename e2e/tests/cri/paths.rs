//! What a container sees of the node's kernel: masked and read-only paths, the root, /sys, the pod's files.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use tonic::Code;

use crate::{refused, security};

/// The kubelet's own lists.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The options of whatever is mounted at `path`.
fn options(world: &World, id: &str, path: &str) -> Vec<String> {
    let table = world.exec(id, "cat /proc/self/mountinfo");
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {path}:\n{table}"));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

/// Where hierarchies of cgroups are mounted.
fn cgroups(world: &World, id: &str) -> Vec<String> {
    let table = world.exec(id, "cat /proc/self/mounts");
    let hierarchies = table
        .lines()
        .filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let points: Vec<String> =
        hierarchies.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert!(!points.is_empty(), "{table}");
    points
}

fn is_read_only(world: &World, id: &str, path: &str) -> bool {
    options(world, id, path).contains(&"ro".to_owned())
}

on_each_runtime! {
    fn masked_and_read_only_paths(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("paths");
        let mut config = container("confined", BUSYBOX, &[]);
        security(&mut config).masked_paths = MASKED.map(str::to_owned).into();
        security(&mut config).readonly_paths = READ_ONLY.map(str::to_owned).into();
        let confined = pod.run(config);
        let open = pod.run(container("open", BUSYBOX, &[]));
        let mut masked = 0;
        for path in MASKED {
            let size = format!(
                "if test -d {path}; then ls -A {path} | wc -c; elif test -e {path}; then head -c 9 {path} | wc -c; fi"
            );
            let (inside, outside) = (world.exec(&confined, &size), world.exec(&open, &size));
            if outside.trim().is_empty() {
                continue;
            }
            assert_eq!(inside.trim(), "0", "{path}");
            masked += usize::from(outside.trim() != "0");
        }
        assert!(masked > 0, "none of them has anything to hide");
        for path in READ_ONLY {
            if world.try_exec(&open, &["test", "-e", path], 10).unwrap().exit_code == 0 {
                assert!(is_read_only(world, &confined, path), "{path}");
            }
        }
        let write = shell("echo 1024 > /proc/sys/kernel/shmmni");
        assert_ne!(world.try_exec(&confined, &write, 10).unwrap().exit_code, 0);
        assert_eq!(world.try_exec(&open, &write, 10).unwrap().exit_code, 0);
        for id in [&confined, &open] {
            assert!(is_read_only(world, id, "/sys"));
            for path in cgroups(world, id) {
                assert!(is_read_only(world, id, &path), "{path}");
            }
        }
        pod.end();
    }

    fn a_read_only_root(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("root");
        for (name, readonly) in [("read-only", true), ("writable", false)] {
            let mut config = container(name, BUSYBOX, &[]);
            security(&mut config).readonly_rootfs = readonly;
            let id = pod.run(config);
            assert_eq!(is_read_only(world, &id, "/"), readonly);
            for path in ["/x", "/bin/x", "/etc/x", "/etc/hosts"] {
                let code = world.try_exec(&id, &shell(&format!("echo >> {path}")), 10).unwrap().exit_code;
                assert_eq!(code != 0, readonly, "{path}");
            }
            world.exec(&id, "echo > /dev/shm/x && echo > /dev/null");
        }
        pod.end();
    }

    fn no_descriptor_but_the_standard_streams(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("descriptors");
        // Of its first process; of a command; and through them nothing of the host (CVE-2024-21626).
        let id = pod.run(container("c", BUSYBOX, &["sleep", "3600"]));
        assert_eq!(world.exec(&id, "ls /proc/1/fd").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
        let own = world.exec(&id, "exec ls /proc/self/fd");
        // The fourth is the directory that ls reads.
        assert_eq!(own.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        assert_eq!(world.exec(&id, "readlink /proc/1/exe; readlink /proc/1/cwd"), "/bin/busybox\n/\n");
        pod.end();
    }
}

#[test]
fn paths_that_are_none_are_refused() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    type Change = fn(&mut ContainerConfig);
    let cases: [(Change, &str); 5] = [
        (
            |c| security(c).masked_paths = vec!["/proc/keys".into(), "proc/x".into()],
            "masked_paths[1]",
        ),
        (|c| security(c).readonly_paths = vec![String::new()], "readonly_paths[0]"),
        (|c| c.working_dir = "relative".into(), "working_dir"),
        (|c| c.working_dir = "/proc/self/fd/8".into(), "file descriptor"),
        (|c| c.log_path = "../../x.log".into(), "log_path"),
    ];
    for (i, (change, field)) in cases.into_iter().enumerate() {
        let mut config = container(&format!("case-{i}"), BUSYBOX, &[]);
        change(&mut config);
        refused(&pod.try_create(config), Code::InvalidArgument, field);
    }
    pod.end();
    world.finish();
}
