//! Whatever is asked and whatever an image says: no panic, and no way out of the confinement.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::config::{
    EnvVar, GroupsPolicy, IdMapping, PidMode, Propagation, Resources, SecurityProfile,
    UsernsOptions,
};
use super::confined::{MARK, confined};
use super::fixture::{Fixture, device, mount, plain};
use super::{Accounts, ImageView};
use crate::config::CgroupDriver;

/// Texts that have broken parsers of other runtimes, and any other.
fn hostile() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "",
        "/",
        "..",
        "../../etc",
        "/proc/self/fd/8",
        "0",
        "-1",
        "4294967296",
        "2147483648",
        "a:b:c",
        ":",
        "root",
        "x\ny",
        "x\0y",
        "=",
        "A=",
        "run.oci.hooks.stdin",
        "binary:///bin/sh",
        "${PATH}",
        "a\u{202e}b",
        "name:\u{0}",
    ]);
    prop_oneof![known.prop_map(str::to_owned), ".{0,12}", "[a-z0-9:/=.-]{0,20}"]
}

fn marked() -> impl Strategy<Value = String> {
    hostile().prop_map(|text| format!("{text}{MARK}"))
}

prop_compose! {
    fn image()(
        env in vec(marked(), 0..4),
        entrypoint in vec(marked(), 0..3),
        cmd in vec(marked(), 0..3),
        working_dir in prop_oneof![marked(), hostile()],
        user in prop_oneof![marked(), hostile()],
        stop_signal in marked(),
    ) -> ImageView {
        ImageView { env, entrypoint, cmd, working_dir, user, stop_signal }
    }
}

fn accounts() -> impl Strategy<Value = Accounts> {
    (option::of(vec(any::<u8>(), 0..80)), option::of("([a-z0-9:,#-]{0,20}\n){0,6}"))
        .prop_map(|(passwd, group)| Accounts { passwd, group: group.map(String::into_bytes) })
}

fn capability() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["ALL", "CHOWN", "SYS_ADMIN", "CAP_NET_RAW", "sys_resource", "NOPE"])
        .prop_map(str::to_owned)
}

fn pid() -> impl Strategy<Value = PidMode> {
    prop::sample::select(vec![
        PidMode::Container,
        PidMode::Pod,
        PidMode::Host,
        PidMode::Target("a".repeat(64)),
    ])
}

prop_compose! {
    fn resources()(
        numbers in prop::array::uniform6(prop_oneof![Just(0), Just(-1), any::<i64>()]),
        cpus in "[0-9,-]{0,5}",
        unified in option::of(("[a-z.]{1,9}", "[a-z0-9]{0,5}")),
    ) -> Resources {
        let [cpu_period, cpu_quota, cpu_shares, memory, swap, oom_score_adj] = numbers;
        Resources {
            cpu_period, cpu_quota, cpu_shares, oom_score_adj,
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            cpuset_cpus: cpus,
            unified: unified.into_iter().collect(),
            ..Resources::default()
        }
    }
}

prop_compose! {
    fn security()(
        privileged: bool,
        add in vec(capability(), 0..3),
        drop in vec(capability(), 0..3),
        pid in pid(),
        run_as_user in option::of(prop_oneof![any::<i64>(), 0..3i64]),
        run_as_group in option::of(prop_oneof![any::<i64>(), 0..3i64]),
        run_as_username in prop_oneof![Just(String::new()), hostile()],
        groups in vec(prop_oneof![any::<i64>(), 0..9i64], 0..4),
        strict: bool,
        seccomp: bool,
    ) -> super::super::config::Security {
        super::super::config::Security {
            privileged, pid, run_as_user, run_as_group, run_as_username,
            add_capabilities: add,
            drop_capabilities: drop,
            supplemental_groups: groups,
            supplemental_groups_policy: if strict { GroupsPolicy::Strict } else { GroupsPolicy::Merge },
            seccomp: seccomp.then_some(SecurityProfile::RuntimeDefault),
            ..super::super::config::Security::default()
        }
    }
}

prop_compose! {
    fn fixture()(
        image in image(),
        accounts in accounts(),
        security in security(),
        resources in resources(),
        targets in vec("/[a-z./]{0,12}", 0..4),
        command in vec(hostile().prop_filter("parsed away", |t| !t.contains('\0')), 0..2),
        value in vec(1u8.., 0..6),
        (v2, systemd, shared) in any::<(bool, bool, bool)>(),
        (users, host_network) in any::<(bool, bool)>(),
    ) -> Fixture {
        let mut fixture = plain();
        fixture.image = image;
        fixture.facts.accounts = accounts;
        fixture.facts.devices = vec![device("/dev/kvm", 232)];
        fixture.facts.host_devices = vec![device("/dev/mem", 1)];
        fixture.facts.target_pid = Some("/proc/9/ns/pid".into());
        fixture.place.privileged = security.privileged;
        fixture.place.pid = Some("/proc/77/fd/7".into());
        fixture.config.security = security;
        fixture.config.resources = resources;
        fixture.config.command = command;
        fixture.config.envs = vec![EnvVar { key: "X".into(), value }];
        fixture.facts.mount_sources = targets.iter().map(|_| "/vol".into()).collect();
        fixture.config.mounts = targets.iter().map(|target| mount("/vol", target)).collect();
        if let (true, Some(mount)) = (shared, fixture.config.mounts.first_mut()) {
            mount.propagation = Propagation::Bidirectional;
        }
        if users {
            let ids = vec![IdMapping { host_id: 65_536, container_id: 0, length: 65_536 }];
            fixture.place.users = Some(UsernsOptions { uids: ids.clone(), gids: ids });
            fixture.place.user = Some("/run/podwright/pods/5a/user".into());
            fixture.config.security.userns.clone_from(&fixture.place.users);
        }
        if host_network {
            (fixture.place.host_network, fixture.place.netns) = (true, None);
        }
        fixture.node.cgroup_v2 = v2;
        if systemd {
            fixture.node.cgroup_driver = CgroupDriver::Systemd;
            fixture.place.cgroup_parent = "/kubepods.slice/kubepods-pod1.slice".into();
        }
        fixture
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_spec_breaks_the_confinement(fixture in fixture()) {
        let Ok(spec) = fixture.build() else { return Ok(()) };
        prop_assert_eq!(confined(&fixture, &spec), Ok(()));
    }

    #[test]
    fn signals_of_images_are_signals(text in hostile(), asked in option::of(1..65i32)) {
        let signal = super::super::signal::stop(asked, &text);
        prop_assert!((1..=64).contains(&signal));
    }
}

/// Each of these is a way out, and told as one.
#[test]
fn what_breaks_the_confinement_is_seen() {
    let mut fixture = plain();
    fixture.facts.devices = vec![device("/dev/kvm", 232)];
    fixture.config.security.no_new_privs = true;
    fixture.config.security.seccomp = Some(SecurityProfile::RuntimeDefault);
    fixture.config.security.supplemental_groups_policy = GroupsPolicy::Strict;
    fixture.mount("/vol", "/data").readonly = true;
    let whole = serde_json::to_value(fixture.build().unwrap()).unwrap();
    let judged = |spec: serde_json::Value| {
        confined(&fixture, &serde_json::from_value(spec).expect("a spec"))
    };
    assert_eq!(judged(whole.clone()), Ok(()));
    let host = |source: &str| serde_json::json!({"destination": "/x", "source": source});
    let sys =
        serde_json::json!({"destination": "/s", "type": "sysfs", "options": ["nosuid", "noexec"]});
    for (path, value) in [
        ("/linux/cgroupsPath", "/kubepods/burstable/other".into()),
        ("/linux/namespaces/0/type", "uts".into()),
        ("/linux/namespaces/1/path", "/proc/1/ns/net".into()),
        ("/linux/uidMappings", serde_json::json!([{"containerID": 0, "hostID": 0, "size": 1}])),
        ("/linux/seccomp", serde_json::Value::Null),
        ("/linux/maskedPaths", serde_json::json!(["/proc/kcore"])),
        ("/linux/readonlyPaths", serde_json::Value::Null),
        ("/linux/devices/0/path", "/dev/mem".into()),
        ("/linux/resources/devices/0/allow", true.into()),
        ("/linux/resources/devices/1/minor", 1.into()),
        ("/linux/resources/devices/1/access", "rwm".into()),
        ("/process/capabilities/bounding/0", "CAP_SYS_ADMIN".into()),
        ("/process/capabilities/inheritable", serde_json::json!(["CAP_CHOWN"])),
        ("/process/noNewPrivileges", false.into()),
        ("/process/user/uid", u32::MAX.into()),
        ("/process/user/additionalGids", serde_json::json!([82, 4])),
        ("/process/args/0", "a\0b".into()),
        ("/annotations/x", MARK.into()),
        ("/root/path", "/".into()),
        ("/root/readonly", true.into()),
        ("/mounts/0", host("/etc")),
        ("/mounts/0", host("/run/podwright/pods/5b/shm")),
        ("/mounts/0", host("/cdi/0")),
        ("/mounts/0", sys),
        ("/mounts/0/destination", "proc".into()),
        ("/hooks", serde_json::json!({"prestart": [{"path": "/hook"}]})),
    ] {
        let mut spec = whole.clone();
        let (parent, name) = path.rsplit_once('/').unwrap();
        match spec.pointer_mut(path) {
            Some(old) => *old = value,
            None => spec.pointer_mut(parent).unwrap()[name] = value,
        }
        assert!(judged(spec).is_err(), "{path}");
    }
    // What was asked for to be read only.
    let mut spec = whole;
    let mounts = spec["mounts"].as_array_mut().unwrap();
    let mount = mounts.iter_mut().find(|mount| mount["source"] == "/vol").unwrap();
    mount["options"] = serde_json::json!(["rbind"]);
    assert!(judged(spec).is_err());
}
