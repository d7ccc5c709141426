//! Seccomp from inside: what calls come to under each kind of profile.

use std::collections::BTreeMap;

use e2e::World;
use e2e::cri::security_profile::ProfileType;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, shell};
use tonic::Code;

use crate::{inside, refused, security};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Calls by name, with the numbers that x86_64 and aarch64 have for them and arguments with which they do no harm.
/// Let through, none of them fails as it does when it is stopped.
const CALLS: [(&str, u32, u32, &str); 9] = [
    ("keyctl", 250, 219, "9999,0,0"),
    ("get_mempolicy", 239, 236, "0,0,0,0,0"),
    ("process_madvise", 440, 440, "-1,0,0,0,0"),
    ("kcmp", 312, 272, "0,0,999,0,0"),
    ("pidfd_getfd", 438, 438, "-1,0,0"),
    ("clone3", 435, 435, "0,0"),
    ("personality", 135, 92, "0x40000"),
    ("socket", 41, 198, "38,5,0"),
    ("unshare", 272, 97, "0x10000000"),
];

/// The error of each call in a container; 0 for none. Perl is the host's, with the libraries that it needs.
fn attempts(world: &World, id: &str) -> BTreeMap<&'static str, i32> {
    let try_one = |(name, x86, arm, arguments): &(&'static str, u32, u32, &str)| {
        let number = if cfg!(target_arch = "aarch64") { arm } else { x86 };
        let script = format!("print syscall({number},{arguments}) == -1 ? $!+0 : 0");
        let answer = world.try_exec(id, &["/usr/bin/perl", "-e", &script], 30).unwrap();
        let errno = String::from_utf8_lossy(&answer.stdout).trim().parse();
        (*name, errno.unwrap_or_else(|_| panic!("{name}: {answer:?}")))
    };
    CALLS.iter().map(try_one).collect()
}

/// A container with the host's programs.
fn with_programs(name: &str, seccomp: Option<SecurityProfile>) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &[]);
    for dir in ["/usr", "/lib", "/lib64"] {
        if std::path::Path::new(dir).exists() {
            let (container_path, host_path) = (dir.to_owned(), dir.to_owned());
            config.mounts.push(Mount {
                container_path,
                host_path,
                readonly: true,
                ..Default::default()
            });
        }
    }
    security(&mut config).seccomp = seccomp;
    config
}

fn profile(kind: ProfileType, localhost_ref: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.into() })
}

fn default() -> Option<SecurityProfile> {
    profile(ProfileType::RuntimeDefault, "")
}

fn with(mut config: ContainerConfig, capability: &str) -> ContainerConfig {
    let add_capabilities = vec![capability.to_owned()];
    security(&mut config).capabilities =
        Some(Capability { add_capabilities, ..Default::default() });
    config
}

on_each_runtime! {
    fn the_default_profile_stops_what_no_capability_allows(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("default");
        // Without a profile, of whatever way to say so.
        let free = pod.run(with_programs("none", None));
        assert_eq!(inside(world, &free, "Seccomp"), "0");
        let unconfined = pod.run(with_programs("unconfined", profile(ProfileType::Unconfined, "")));
        assert_eq!(inside(world, &unconfined, "Seccomp"), "0");
        let free = attempts(world, &free);
        assert_eq!(attempts(world, &unconfined), free);
        // One that the node itself stops says nothing.
        let told = |name: &str| ![EPERM, ENOSYS].contains(&free[name]);
        assert!(CALLS.iter().filter(|(name, ..)| told(name)).count() > 5, "{free:?}");

        let stopped = pod.run(with_programs("default", default()));
        assert_eq!(inside(world, &stopped, "Seccomp"), "2");
        for (name, errno) in attempts(world, &stopped).into_iter().filter(|(name, _)| told(name)) {
            assert_eq!(errno, if name == "clone3" { ENOSYS } else { EPERM }, "{name}");
        }
        // What programs live by goes on: threads, pipes, sockets, other execution domains.
        let line = "linux32 uname -m && nproc | cat && nc -l -p 1 -e true & kill $!";
        world.exec(&stopped, &line.replace("linux32", "busybox linux32"));

        for (capability, calls) in [
            ("SYS_NICE", &["get_mempolicy"][..]),
            ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
            ("SYS_ADMIN", &["clone3", "unshare"]),
        ] {
            let id = pod.run(with(with_programs(capability, default()), capability));
            for (name, errno) in attempts(world, &id).into_iter().filter(|(name, _)| told(name)) {
                let passes = ![EPERM, ENOSYS].contains(&errno);
                assert_eq!(passes, calls.contains(&name), "{name} with {capability}: {errno}");
            }
        }
        pod.end();
    }

    fn a_profile_of_the_node(world) {
        world.pull(BUSYBOX);
        let path = world.path("no-chmod.json");
        std::fs::write(
            &path,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#,
        )
        .unwrap();
        let pod = world.pod("localhost");
        let path = path.display().to_string();
        let prefixed = format!("localhost/{path}");
        let mut configs = [
            container("absolute", BUSYBOX, &[]),
            container("prefixed", BUSYBOX, &[]),
            container("deprecated", BUSYBOX, &[]),
        ];
        security(&mut configs[0]).seccomp = profile(ProfileType::Localhost, &path);
        security(&mut configs[1]).seccomp = profile(ProfileType::Localhost, &prefixed);
        deprecated(&mut configs[2], &prefixed);
        for config in configs {
            let id = pod.run(config);
            assert_eq!(inside(world, &id, "Seccomp"), "2");
            let answer = world.try_exec(&id, &shell("chmod 600 /etc/passwd"), 10).unwrap();
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert!(answer.exit_code != 0 && said.contains("No space left"), "{said}");
            world.exec(&id, "chown 1:1 /etc/passwd");
        }
        pod.end();
    }

    fn a_capability_and_its_calls_go_together(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("together");
        let sethostname = |pod: &Pod<'_>, config: ContainerConfig| {
            let id = pod.run(config);
            world.try_exec(&id, &shell("hostname changed"), 10).unwrap().exit_code == 0
        };
        let mut plain = container("plain", BUSYBOX, &[]);
        security(&mut plain).seccomp = default();
        assert!(!sethostname(&pod, plain.clone()));
        plain.metadata.as_mut().unwrap().name = "admin".into();
        plain.log_path = "admin.log".into();
        assert!(sethostname(&pod, with(plain.clone(), "SYS_ADMIN")));
        // A profile that forbids it is not opened by the capability.
        let path = world.path("no-hostname.json");
        let rule = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}"#;
        std::fs::write(&path, rule).unwrap();
        plain.metadata.as_mut().unwrap().name = "forbidden".into();
        plain.log_path = "forbidden.log".into();
        security(&mut plain).seccomp = profile(ProfileType::Localhost, path.to_str().unwrap());
        assert!(!sethostname(&pod, with(plain, "SYS_ADMIN")));
        pod.end();
    }
}

#[allow(deprecated, reason = "what older kubelets send")]
fn deprecated(config: &mut ContainerConfig, path: &str) {
    security(config).seccomp_profile_path = path.to_owned();
}

#[test]
fn profiles_that_cannot_hold_are_refused() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    let local = ProfileType::Localhost;
    let written = |text: &str| {
        let path = world.path("profile.json");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let misspelt = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod", "chmodd"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let vax = r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_VAX"]}"#;
    let cases: [(&dyn Fn() -> Option<SecurityProfile>, &str); 9] = [
        (&|| profile(local, ""), "localhost_ref"),
        (&|| profile(local, "relative.json"), "is not an absolute path"),
        (&|| profile(local, "/no/such/profile.json"), "/no/such/profile.json: No such file"),
        (&|| profile(local, world.path("").to_str().unwrap()), "not a regular file"),
        (&|| profile(local, &written("")), "EOF"),
        (&|| profile(local, &written("{}")), "defaultAction"),
        (&|| profile(local, &written(misspelt)), "\"chmodd\" is no system call"),
        (&|| profile(local, &written(vax)), "SCMP_ARCH_VAX"),
        (&|| profile(ProfileType::RuntimeDefault, "/x.json"), "localhost_ref"),
    ];
    for (i, (profile, says)) in cases.into_iter().enumerate() {
        let mut config = container(&format!("case-{i}"), BUSYBOX, &[]);
        security(&mut config).seccomp = profile();
        refused(&pod.try_create(config), Code::InvalidArgument, says);
    }
    pod.end();
    world.finish();
}
