//! Specs as a whole against expected JSON, and each rule of cri.md 2.1 by itself.

use serde_json::{Value, json};

use super::super::config::{HugepageLimit, PidMode, Propagation, Resources, SecurityProfile};
use super::fixture::{CAPABILITIES, Fixture, device, plain, privileged};
use super::resources;

/// Capabilities are sets: sorted, so that they can be compared.
fn sorted(mut spec: Value) -> Value {
    if let Some(sets) = spec.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut() {
            if let Some(set) = set.as_array_mut() {
                set.sort_by_key(|name| name.as_str().map(str::to_owned));
            }
        }
    }
    spec
}

fn matches(fixture: &Fixture, expected: &str) {
    let spec = sorted(fixture.json());
    let expected: Value = serde_json::from_str(expected).unwrap();
    assert_eq!(spec, expected, "is\n{}", serde_json::to_string_pretty(&spec).unwrap());
}

fn error(fixture: &Fixture) -> String {
    fixture.build().unwrap_err().to_string()
}

#[test]
fn a_plain_container() {
    let mut fixture = plain();
    fixture.mount("/var/lib/kubelet/pods/4c1b/etc-hosts", "/etc/hosts");
    fixture.mount("/var/lib/kubelet/pods/4c1b/volumes/x/nested", "/data/deep/er").readonly = true;
    fixture.mount("/var/lib/kubelet/pods/4c1b/volumes/x", "/data");
    matches(&fixture, include_str!("expected/plain.json"));
}

#[test]
fn a_privileged_container() {
    matches(&privileged(), include_str!("expected/privileged.json"));
}

#[test]
fn commands_and_arguments() {
    for (entrypoint, cmd, command, args, all) in [
        (&["e"][..], &["c"][..], &[][..], &[][..], &["e", "c"][..]),
        (&["e"], &["c"], &["x"], &[], &["x"]),
        (&["e"], &["c"], &["x"], &["y"], &["x", "y"]),
        (&["e"], &["c"], &[], &["y"], &["e", "y"]),
        (&[""], &["c"], &[], &[], &["c"]),
        (&[], &["c"], &[], &[], &["c"]),
    ] {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut fixture = plain();
        (fixture.image.entrypoint, fixture.image.cmd) = (own(entrypoint), own(cmd));
        (fixture.config.command, fixture.config.args) = (own(command), own(args));
        assert_eq!(fixture.json()["process"]["args"], json!(all));
    }
    let mut fixture = plain();
    (fixture.image.entrypoint, fixture.image.cmd) = (vec![], vec![]);
    assert_eq!(error(&fixture), "command: neither the container nor its image names one");
}

#[test]
fn working_directories() {
    for (asked, image, cwd) in
        [("", "", "/"), ("", "/a", "/a"), ("", "a/b", "/a/b"), ("/x", "/a", "/x")]
    {
        let mut fixture = plain();
        (fixture.config.working_dir, fixture.image.working_dir) = (asked.into(), image.into());
        assert_eq!(fixture.json()["process"]["cwd"], json!(cwd));
    }
    for leak in ["/proc/self/fd/7", "proc/./1/fd/../fd/8", "/dev/fd/3", "//proc/thread-self/fd"] {
        let mut fixture = plain();
        fixture.image.working_dir = leak.into();
        assert!(fixture.build().is_err(), "{leak}");
    }
}

#[test]
fn environment_in_order_and_without_duplicates() {
    let mut fixture = plain();
    fixture.config.tty = true;
    fixture.image.env.extend(["NOVALUE".into(), "A=b=c".into()]);
    let value = vec![0xff, b'x'];
    fixture.config.envs.push(super::super::config::EnvVar { key: "BYTES".into(), value });
    assert_eq!(
        fixture.json()["process"]["env"],
        json!([
            "PATH=/usr/sbin:/usr/bin",
            "TERM=xterm",
            "HOSTNAME=web-7d9",
            "MODE=production",
            "NGINX=1",
            "A=b=c",
            "BYTES=\u{fffd}x"
        ])
    );
}

#[test]
fn pid_modes() {
    let path = |fixture: &Fixture| {
        let spec = fixture.json();
        let all = spec["linux"]["namespaces"].as_array().unwrap().clone();
        all.into_iter().find(|ns| ns["type"] == "pid").map(|ns| ns["path"].clone())
    };
    let mut fixture = plain();
    assert_eq!(path(&fixture), Some(Value::Null));
    fixture.config.security.pid = PidMode::Host;
    assert_eq!(path(&fixture), None);
    fixture.config.security.pid = PidMode::Pod;
    assert!(error(&fixture).starts_with("linux.security_context.namespace_options.pid: "));
    fixture.place.pid = Some("/proc/77/fd/7".into());
    assert_eq!(path(&fixture), Some(json!("/proc/77/fd/7")));
    fixture.config.security.pid = PidMode::Target("abc".into());
    assert!(fixture.build().is_err());
    fixture.facts.target_pid = Some("/proc/99/ns/pid".into());
    assert_eq!(path(&fixture), Some(json!("/proc/99/ns/pid")));
}

#[test]
fn privileges_need_a_privileged_sandbox() {
    let mut fixture = privileged();
    fixture.place.privileged = false;
    assert_eq!(
        error(&fixture),
        "linux.security_context.privileged: the sandbox was not made for privileged containers"
    );
}

#[test]
fn seccomp_profiles() {
    let mut fixture = plain();
    assert_eq!(fixture.json()["linux"].get("seccomp"), None);
    fixture.config.security.seccomp = Some(SecurityProfile::Unconfined);
    assert_eq!(fixture.json()["linux"].get("seccomp"), None);
    fixture.config.security.seccomp = Some(SecurityProfile::RuntimeDefault);
    let profile = &fixture.json()["linux"]["seccomp"];
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let local = json!({"defaultAction": "SCMP_ACT_LOG"});
    fixture.config.security.seccomp = Some(SecurityProfile::Localhost("/p.json".into()));
    assert!(fixture.build().is_err());
    fixture.facts.seccomp = serde_json::from_value(local.clone()).unwrap();
    assert_eq!(fixture.json()["linux"]["seccomp"], local);
    fixture.config.security.privileged = true;
    fixture.place.privileged = true;
    assert_eq!(fixture.json()["linux"].get("seccomp"), None);
}

#[test]
fn mounts_replace_those_of_the_runtime() {
    let mut fixture = plain();
    fixture.mount("/host/shm", "/dev/shm/");
    let spec = fixture.json();
    let targets = |spec: &Value| -> Vec<String> {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().map(|m| m["destination"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(targets(&spec).iter().filter(|t| t.starts_with("/dev/shm")).count(), 1);
    fixture.mount("/dev", "/dev");
    fixture.mount("/sys", "/sys");
    let targets = targets(&fixture.json());
    assert!(
        !targets.contains(&"/dev/pts".to_owned()) && !targets.contains(&"/dev/mqueue".to_owned())
    );
    assert_eq!(targets.iter().filter(|t| *t == "/sys").count(), 1);
}

#[test]
fn propagation_reaches_the_root() {
    for (propagation, option, root) in [
        (Propagation::Private, "rprivate", None),
        (Propagation::HostToContainer, "rslave", Some("rslave")),
        (Propagation::Bidirectional, "rshared", Some("rshared")),
    ] {
        let mut fixture = plain();
        fixture.mount("/vol", "/vol").propagation = propagation;
        let spec = fixture.json();
        let mount = spec["mounts"].as_array().unwrap().last().unwrap().clone();
        let mounts = spec["mounts"].as_array().unwrap();
        let vol = mounts.iter().find(|m| m["destination"] == "/vol").unwrap_or(&mount);
        assert_eq!(vol["options"], json!(["rbind", option, "rw"]));
        assert_eq!(spec["linux"].get("rootfsPropagation").and_then(Value::as_str), root);
    }
}

#[test]
fn mount_options_and_recursive_read_only() {
    let mut fixture = plain();
    let mount = fixture.mount("/vol", "/vol");
    (mount.readonly, mount.recursive_read_only) = (true, true);
    mount.mount_options = vec!["noexec".into(), "nosuid".into()];
    assert!(error(&fixture).starts_with("RROUnsupported: "));
    fixture.facts.runtime.recursive_read_only = true;
    let spec = fixture.json();
    let vol = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["destination"] == "/vol")
        .unwrap()
        .clone();
    assert_eq!(vol["options"], json!(["rbind", "rprivate", "rro", "noexec", "nosuid"]));
    fixture.config.mounts[0].mount_options = vec!["rshared".into()];
    assert!(error(&fixture).starts_with("mounts[0].mount_options: "));
}

#[test]
fn devices_and_their_rules() {
    let mut fixture = plain();
    fixture.facts.devices = vec![device("/dev/kvm", 232), device("/dev/kvm", 232)];
    fixture.facts.host_devices = vec![device("/dev/mem", 1)];
    let linux = &fixture.json()["linux"];
    let node = json!({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232,
        "fileMode": 432, "uid": 0, "gid": 5});
    assert_eq!(linux["devices"], json!([node]));
    let rules = linux["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({"allow": false, "access": "rwm"}));
    assert_eq!(
        rules[1],
        json!({"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rw"})
    );
}

#[test]
fn limits_of_memory_swap_and_pages() {
    let limits = |resources: Resources, change: fn(&mut super::Node)| {
        let mut node = plain().node;
        change(&mut node);
        resources::limits(&resources, &node).map(|limits| serde_json::to_value(limits).unwrap())
    };
    let memory = Resources { memory_limit_in_bytes: 5, ..Resources::default() };
    let with_swap = Resources { memory_swap_limit_in_bytes: 9, ..memory.clone() };
    let unlimited = Resources { memory_swap_limit_in_bytes: -1, ..memory.clone() };
    for (resources, expected) in [
        (Resources::default(), json!({})),
        (memory.clone(), json!({"limit": 5, "swap": 5})),
        (with_swap, json!({"limit": 5, "swap": 9})),
        (unlimited, json!({"limit": 5, "swap": -1})),
    ] {
        assert_eq!(limits(resources, |_| {}).unwrap()["memory"], expected);
    }
    assert_eq!(limits(memory, |n| n.swap_limits = false).unwrap()["memory"], json!({"limit": 5}));
    let page = |size: &str, limit| HugepageLimit { page_size: size.into(), limit };
    let pages =
        Resources { hugepage_limits: vec![page("2MB", 0), page("1GB", 4)], ..Resources::default() };
    assert_eq!(
        limits(pages, |_| {}).unwrap()["hugepageLimits"],
        json!([{"pageSize": "2MB", "limit": 0}])
    );
    let err = limits(plain().config.resources, |n| n.cgroup_v2 = false).unwrap_err().to_string();
    assert!(err.starts_with("linux.resources.unified: "), "{err}");
}

#[test]
fn updates_change_only_what_they_name() {
    let old = plain().config.resources;
    assert_eq!(resources::merge(&old, &Resources::default()), old);
    let update = Resources {
        cpu_quota: -1,
        cpuset_cpus: "0-1".into(),
        unified: [("memory.high".to_owned(), "7".to_owned())].into(),
        ..Resources::default()
    };
    let new = resources::merge(&old, &update);
    assert_eq!((new.cpu_quota, new.cpu_shares, new.cpuset_cpus.as_str()), (-1, 512, "0-1"));
    assert_eq!(new.unified.len(), 2);
    assert_eq!(resources::merge(&new, &update), new);
    for (swap, expected) in [(0, 0), (7, 9), (8, 8), (-1, -1)] {
        let old = Resources {
            memory_limit_in_bytes: 7,
            memory_swap_limit_in_bytes: swap,
            ..Resources::default()
        };
        let update = Resources { memory_limit_in_bytes: 9, ..Resources::default() };
        assert_eq!(resources::merge(&old, &update).memory_swap_limit_in_bytes, expected);
    }
}

#[test]
fn oom_scores_are_never_below_what_we_may_set() {
    let mut fixture = plain();
    assert_eq!(fixture.json()["process"]["oomScoreAdj"], json!(-997));
    fixture.node.oom_score_adj_floor = Some(-3);
    assert_eq!(fixture.json()["process"]["oomScoreAdj"], json!(-3));
    fixture.config.resources.oom_score_adj = 1000;
    assert_eq!(fixture.json()["process"]["oomScoreAdj"], json!(1000));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let refused = |change: fn(&mut Fixture)| {
        let mut fixture = plain();
        change(&mut fixture);
        error(&fixture)
    };
    for (change, field) in [
        (
            (|f| {
                f.config.security.userns =
                    Some(super::super::config::UsernsOptions { uids: vec![], gids: vec![] });
            }) as fn(&mut Fixture),
            "linux.security_context.namespace_options.userns_options",
        ),
        (
            |f| f.config.security.apparmor = Some(SecurityProfile::RuntimeDefault),
            "linux.security_context.apparmor",
        ),
    ] {
        let err = refused(change);
        assert!(err.starts_with(&format!("{field}: ")), "{err}");
    }
}

#[test]
fn apparmor_profiles_that_were_looked_up() {
    let mut fixture = plain();
    fixture.node.apparmor = true;
    assert_eq!(fixture.json()["process"].get("apparmorProfile"), None);
    fixture.facts.apparmor = Some("mine".into());
    assert_eq!(fixture.json()["process"]["apparmorProfile"], "mine");
}

#[test]
fn selinux_labels() {
    let mut fixture = plain();
    let spec = fixture.json();
    assert_eq!(
        (spec["process"].get("selinuxLabel"), spec["linux"].get("mountLabel")),
        (None, None)
    );
    let labels =
        crate::host::selinux::Labels { process: "u:r:p:s0".into(), mount: "u:r:m:s0".into() };
    fixture.facts.labels = Some(labels);
    let spec = fixture.json();
    assert_eq!(spec["process"]["selinuxLabel"], "u:r:p:s0");
    assert_eq!(spec["linux"]["mountLabel"], "u:r:m:s0");
    fixture.config.security.privileged = true;
    fixture.place.privileged = true;
    let spec = fixture.json();
    assert_eq!(spec["process"].get("selinuxLabel"), None);
    assert_eq!(spec["linux"]["mountLabel"], "u:r:m:s0");
}

#[test]
fn limits_of_processes_are_not_above_ours() {
    use crate::config::Rlimit;
    use oci_spec::runtime::PosixRlimitType::{RlimitCore, RlimitNofile};
    let mut fixture = plain();
    assert_eq!(fixture.json()["process"].get("rlimits"), None);
    let limit = |kind, soft, hard| Rlimit { kind, soft, hard };
    fixture.handler.rlimits = vec![limit(RlimitNofile, 1024, 8192), limit(RlimitCore, 0, u64::MAX)];
    fixture.node.hard_limits = vec![(RlimitNofile, 4096)];
    let expected = json!([
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX},
    ]);
    assert_eq!(fixture.json()["process"]["rlimits"], expected);
}

#[test]
fn nothing_that_we_lack_is_granted() {
    let mut fixture = plain();
    fixture.config.security.add_capabilities = vec!["ALL".into()];
    let caps = fixture.json()["process"]["capabilities"].clone();
    let bounding = caps["bounding"].as_array().unwrap();
    assert_eq!(bounding.len(), CAPABILITIES.count_ones() as usize);
    assert!(!bounding.contains(&json!("CAP_SYS_RESOURCE")));
    assert_eq!(caps["inheritable"], json!([]));
}
