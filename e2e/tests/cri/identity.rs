//! Who a container's first process is, as the kernel tells it from inside, and as its status does.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, base, storage};
use e2e::image::{Image, Layer};
use e2e::pod::{Pod, container};
use e2e::registry::HOST;
use serde_json::json;
use tonic::Code;

use crate::{inside, refused, security};

/// Beside root: names that look like numbers, and lines that are no entries.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n\
    # 3000:x:9:9::/:/\n\
    worker:x:1000:1001::/home:/bin/sh\n\
    9lives:x:77:78::/:/bin/sh\n\
    0x0:x:79:80::/:/bin/sh\n\
    4294967296:x:0:0::/:/bin/sh\n\
    -1:x:0:0::/:/bin/sh\n\
    wrapped:x:4294967296:0::/:/bin/sh\n\
    short:x\n";
const GROUP: &str = "root:x:0:\nworkers:x:1001:\nextra:x:2000:worker,worker\nagain:x:2001:9lives\n\
    twice:x:2000:worker\nwrapped:x:4294969296:worker\n4294967296:x:0:\n";

/// Pulls an image of that USER, with those accounts.
fn image(world: &World, name: &str, user: &str) -> String {
    let accounts = Layer::new().file("etc/passwd", 0o644, PASSWD).file("etc/group", 0o644, GROUP);
    let config = json!({"User": user, "Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
    storage().put(name, "1", &Image::new(&[base(), accounts], &config));
    let name = format!("{HOST}/{name}:1");
    world.pull(&name);
    name
}

/// Uid, gid and the other groups of process 1, and those that its status tells of.
fn ids(world: &World, id: &str) -> (u32, u32, Vec<u32>) {
    let of_process = |field: &str| -> Vec<u32> {
        inside(world, id, field).split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    let (uid, gid) = (of_process("Uid"), of_process("Gid"));
    assert!(uid.iter().all(|id| *id == uid[0]) && gid.iter().all(|id| *id == gid[0]));
    let mut groups = of_process("Groups");
    let told = world.container_status(id).unwrap().user.unwrap().linux.unwrap();
    assert_eq!((told.uid, told.gid), (uid[0].into(), gid[0].into()));
    let mut all: Vec<u32> =
        told.supplemental_groups.iter().map(|id| u32::try_from(*id).unwrap()).collect();
    all.sort_unstable();
    groups.sort_unstable();
    assert_eq!(all, groups, "the status tells of other groups than the process has");
    groups.retain(|group| *group != gid[0]);
    (uid[0], gid[0], groups)
}

fn run(pod: &Pod<'_>, config: ContainerConfig) -> (u32, u32, Vec<u32>) {
    let id = pod.run(config);
    let ids = ids(pod.world, &id);
    pod.world.remove_container(&id).unwrap();
    ids
}

on_each_runtime! {
    fn every_form_of_an_images_user(world) {
        let pod = world.pod("user");
        for (number, (user, uid, gid, groups)) in [
            ("", 0, 0, &[][..]),
            ("root", 0, 0, &[]),
            ("root:", 0, 0, &[]),
            (":0", 0, 0, &[]),
            (":extra", 0, 2000, &[]),
            ("worker", 1000, 1001, &[2000]),
            ("1000", 1000, 1001, &[2000]),
            ("01000", 1000, 1001, &[2000]),
            ("1000:0", 1000, 0, &[2000]),
            ("worker:extra", 1000, 2000, &[]),
            ("9lives", 77, 78, &[2001]),
            ("0x0", 79, 80, &[]),
            ("2147483647", 2147483647, 0, &[]),
            ("3000", 3000, 0, &[]),
        ]
        .into_iter()
        .enumerate()
        {
            let image = image(world, &format!("identity-{number}"), user);
            let name = format!("user-{number}");
            assert_eq!(run(&pod, container(&name, &image, &[])), (uid, gid, groups.to_vec()), "{user:?}");
        }
        pod.end();
    }

    fn what_the_request_says_of_the_user(world) {
        let image = image(world, "identity-request", "9lives:workers");
        let pod = world.pod("request");
        type Change = fn(&mut LinuxContainerSecurityContext);
        type Ids = (u32, u32, &'static [u32]);
        let cases: [(Change, Ids); 8] = [
            (|_| {}, (77, 1001, &[2001])),
            (|s| s.run_as_user = Some(Int64Value { value: 0 }), (0, 0, &[])),
            (|s| s.run_as_username = "worker".into(), (1000, 1001, &[2000])),
            (
                |s| {
                    s.run_as_user = Some(Int64Value { value: 1000 });
                    s.run_as_group = Some(Int64Value { value: 7 });
                },
                (1000, 7, &[2000]),
            ),
            (|s| s.supplemental_groups = vec![3000, 2001, 3000], (77, 1001, &[2001, 3000])),
            (
                |s| {
                    s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
                    s.supplemental_groups = vec![3000, 1001];
                },
                (77, 1001, &[3000]),
            ),
            (|s| s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into(), (77, 1001, &[])),
            (
                |s| {
                    s.run_as_user = Some(Int64Value { value: 2147483647 });
                    s.run_as_group = Some(Int64Value { value: 2147483647 });
                    s.supplemental_groups = vec![2147483647, 0];
                },
                (2147483647, 2147483647, &[0]),
            ),
        ];
        for (i, (change, (uid, gid, groups))) in cases.into_iter().enumerate() {
            let mut config = container(&format!("request-{i}"), &image, &[]);
            change(security(&mut config));
            assert_eq!(run(&pod, config), (uid, gid, groups.to_vec()), "case {i}");
        }
        let mut both = container("both", &image, &[]);
        security(&mut both).run_as_user = Some(Int64Value { value: 0 });
        security(&mut both).run_as_username = "worker".into();
        let (uid, gid, _) = run(&pod, both);
        assert_eq!((uid, gid), (1000, 1001), "a name says more than a number");
        pod.end();
    }
}

/// Numbers that overflow, signs, and names that are no account (CVE-2024-40635, CVE-2026-46680).
#[test]
fn users_that_could_turn_out_to_be_root_are_refused() {
    let world = World::start(e2e::Options::default());
    let pod = world.pod("refused");
    for (number, user) in [
        "4294967296",
        "4294967295",
        "2147483648",
        "18446744073709551616",
        "99999999999999999999",
        "-1",
        "+0",
        "0:4294967296",
        "worker:-1",
        "worker:4294967296",
        "wrapped",
        "short",
        "worker:wrapped",
        "nobody",
        "a:b:c",
        " root",
        "#",
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(&world, &format!("identity-refused-{number}"), user);
        let answer = pod.try_create(container(&format!("image-{number}"), &image, &[]));
        refused(&answer, Code::InvalidArgument, "");
    }
    world.pull(BUSYBOX);
    type Change = fn(&mut LinuxContainerSecurityContext);
    let cases: [(Change, &str); 9] = [
        (|s| s.run_as_user = Some(Int64Value { value: -1 }), "run_as_user"),
        (|s| s.run_as_user = Some(Int64Value { value: 1 << 31 }), "run_as_user"),
        (|s| s.run_as_user = Some(Int64Value { value: 1 << 32 }), "run_as_user"),
        (|s| s.run_as_user = Some(Int64Value { value: i64::MIN }), "run_as_user"),
        (|s| s.run_as_group = Some(Int64Value { value: 7 }), "run_as_group"),
        (|s| s.run_as_username = "nobody-here".into(), "nobody-here"),
        (|s| s.run_as_username = "4294967296".into(), "run_as_username"),
        (|s| s.supplemental_groups = vec![0, -1], "supplemental_groups[1]"),
        (|s| s.supplemental_groups = vec![1 << 32], "supplemental_groups[0]"),
    ];
    for (i, (change, field)) in cases.into_iter().enumerate() {
        let mut config = container(&format!("request-{i}"), BUSYBOX, &[]);
        change(security(&mut config));
        refused(&pod.try_create(config), Code::InvalidArgument, field);
    }
    pod.end();
    world.finish();
}

/// The daemon reads accounts as root: neither much (CVE-2025-4437, CVE-2026-47262), nor outside of the image
/// (CVE-2024-9676).
#[test]
fn accounts_of_an_image_are_read_in_bounds() {
    let world = World::start(e2e::Options::default());
    let pod = world.pod("accounts");
    let of_host = world.path("passwd");
    std::fs::write(&of_host, "hostonly:x:4242:4242::/:/bin/sh\n").unwrap();
    let huge = vec![b'x'; 5 << 20];
    let up = format!("{}{}", "../".repeat(20), of_host.display());
    for (name, accounts, user, says) in [
        ("huge-passwd", Layer::new().file("etc/passwd", 0o644, &huge), "worker", "more than"),
        ("huge-group", Layer::new().file("etc/group", 0o644, &huge), "worker", "more than"),
        (
            "absolute",
            Layer::new().symlink("etc/passwd", of_host.to_str().unwrap()),
            "hostonly",
            "hostonly",
        ),
        ("relative", Layer::new().symlink("etc/passwd", &up), "hostonly", "hostonly"),
        ("process", Layer::new().symlink("etc/passwd", "/proc/1/root/etc/passwd"), "root", "root"),
        ("device", Layer::new().device("etc/passwd", 1, 5), "root", ""),
        ("fifo", Layer::new().fifo("etc/passwd"), "root", ""),
    ] {
        let config = json!({"User": user, "Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
        storage().put(&format!("accounts-{name}"), "1", &Image::new(&[base(), accounts], &config));
        let image = format!("{HOST}/accounts-{name}:1");
        world.pull(&image);
        let answer = pod.try_create(container(name, &image, &[]));
        assert!(answer.as_ref().unwrap_err().message().contains(says), "{name}: {answer:?}");
    }
    pod.end();
    world.finish();
}
