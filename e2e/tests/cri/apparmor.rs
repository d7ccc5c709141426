//! AppArmor: refused where the node lacks it, seen from inside where the machine is the tests' own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use e2e::cri::security_profile::ProfileType;
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, sandbox};
use e2e::{Options, World};
use tonic::Code;

use crate::{refused, security};

const DEFAULT: &str = "podwright-default (enforce)\n";
/// Of a profile that lets everything be but for one file.
const OWN: &str = "profile podwright-e2e flags=(attach_disconnected) {\n  file,\n  capability,\n  network,\n  \
    mount,\n  umount,\n  signal,\n  ptrace,\n  deny /tmp/forbidden w,\n}\n";

fn profile(kind: ProfileType, localhost_ref: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.into() })
}

fn with(name: &str, profile: Option<SecurityProfile>) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &[]);
    let security = security(&mut config);
    security.apparmor = profile;
    // So that only the profile is in the way of a mount.
    let add_capabilities = vec!["SYS_ADMIN".into()];
    security.capabilities = Some(Capability { add_capabilities, ..Default::default() });
    config
}

/// The older field, a text.
#[expect(deprecated, reason = "older kubelets send it")]
fn deprecated(name: &str, text: &str) -> ContainerConfig {
    let mut config = with(name, None);
    security(&mut config).apparmor_profile = text.into();
    config
}

/// A world that sees the kernel's AppArmor; `None`, with a word, where there is none to be had. What is loaded is everybody's: one at a time.
fn on(runtime: &'static str) -> Option<(World, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !(World::owns_machine() && enabled.is_ok_and(|enabled| enabled == "Y\n")) {
        println!("skipped: needs a machine of its own with AppArmor: ./dev vm-test apparmor");
        return None;
    }
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Some((World::start(Options { runtime, ..Default::default() }), alone))
}

fn confined(runtime: &'static str) {
    let Some((world, _alone)) = on(runtime) else { return };
    world.pull(BUSYBOX);
    let pod = world.pod("confined");
    let current = "cat /proc/1/attr/current; cat /proc/self/attr/current";
    let mount = "mount -t tmpfs x /tmp 2>&1 && umount /tmp && echo may";
    for (name, config) in [
        ("unsaid", with("unsaid", None)),
        ("asked", with("asked", profile(ProfileType::RuntimeDefault, ""))),
        ("text", deprecated("text", "runtime/default")),
    ] {
        let id = pod.run(config);
        assert_eq!(world.exec(&id, current), DEFAULT.repeat(2), "{name}");
        let told = world.exec(&id, &format!("{mount}; true"));
        assert!(told.contains("denied"), "{name}: {told}");
        // Of /proc it may change what is its own and no more.
        let denied =
            "echo 1 2>&1 >/proc/sys/vm/drop_caches; echo 7 >/proc/self/oom_score_adj; true";
        assert!(world.exec(&id, denied).contains("denied"), "{name}");
        // Signals reach it all the same.
        world.stop_container(&id, 0).unwrap();
        assert_eq!(world.ended(&id).exit_code, 137, "{name}");
    }
    for config in
        [with("free", profile(ProfileType::Unconfined, "")), deprecated("free-text", "unconfined")]
    {
        let id = pod.run(config);
        assert_eq!(world.exec(&id, current), "unconfined\n".repeat(2));
        assert_eq!(world.exec(&id, mount), "may\n");
    }
    pod.end();
    world.finish();
}

fn of_the_node(runtime: &'static str) {
    let Some((world, _alone)) = on(runtime) else { return };
    world.pull(BUSYBOX);
    let mut config = sandbox(&world, "own");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = world.pod_of(config);
    let local = |name: &str| profile(ProfileType::Localhost, name);
    let gone = pod.try_create(with("gone", local("podwright-e2e-gone")));
    refused(&gone, Code::InvalidArgument, "\"podwright-e2e-gone\" is not loaded on this node");
    std::fs::write(world.path("own"), OWN).unwrap();
    world.sh(&format!("apparmor_parser --replace --skip-cache {}", world.path("own").display()));
    let mut both = deprecated("newer", "unconfined");
    security(&mut both).apparmor = local("podwright-e2e");
    let mut privileged = with("privileged", local("podwright-e2e"));
    security(&mut privileged).privileged = true;
    for config in [
        with("own", local("podwright-e2e")),
        with("prefixed", local("localhost/podwright-e2e")),
        deprecated("text", "localhost/podwright-e2e"),
        both,
        privileged,
    ] {
        let id = pod.run(config);
        assert_eq!(world.exec(&id, "cat /proc/1/attr/current"), "podwright-e2e (enforce)\n");
        let told = world.exec(&id, "echo x >/tmp/let && echo x 2>&1 >/tmp/forbidden; true");
        assert!(told.contains("denied"), "{told}");
    }
    // Privileged, and without a profile of the node's: none at all.
    for (name, profile) in [("all", None), ("asked", profile(ProfileType::RuntimeDefault, ""))] {
        let mut config = with(name, profile);
        security(&mut config).privileged = true;
        let id = pod.run(config);
        assert_eq!(world.exec(&id, "cat /proc/1/attr/current"), "unconfined\n");
    }
    pod.end();
    world.sh(&format!("apparmor_parser --remove {}", world.path("own").display()));
    world.finish();
}

#[test]
fn the_default_confines_on_crun() {
    confined("crun");
}

#[test]
fn the_default_confines_on_runc() {
    confined("runc");
}

#[test]
fn a_profile_of_the_node_on_crun() {
    of_the_node("crun");
}

#[test]
fn a_profile_of_the_node_on_runc() {
    of_the_node("runc");
}

/// What was taken out of the kernel, as a restart of the service that loads profiles does, is there again.
#[test]
fn the_default_comes_back() {
    let Some((world, _alone)) = on("crun") else { return };
    world.pull(BUSYBOX);
    let pod = world.pod("back");
    pod.run(with("first", None));
    world.sh("printf podwright-default >/sys/kernel/security/apparmor/.remove");
    let id = pod.run(with("second", None));
    assert_eq!(world.exec(&id, "cat /proc/1/attr/current"), DEFAULT);
    pod.end();
    world.finish();
}

#[test]
fn a_node_without_it_says_so() {
    let world = World::start(Options { security_modules: false, ..Default::default() });
    world.pull(BUSYBOX);
    let pod = world.pod("without");
    for (config, says) in [
        (with("default", profile(ProfileType::RuntimeDefault, "")), "this node has no AppArmor"),
        (with("local", profile(ProfileType::Localhost, "mine")), "this node has no AppArmor"),
        (deprecated("text", "runtime/default"), "this node has no AppArmor"),
        (deprecated("local-text", "localhost/mine"), "this node has no AppArmor"),
    ] {
        refused(&pod.try_create(config), Code::Unimplemented, says);
    }
    refused(
        &pod.try_create(with("unnamed", profile(ProfileType::Localhost, ""))),
        Code::InvalidArgument,
        "apparmor.localhost_ref",
    );
    for config in [
        with("unsaid", None),
        with("free", profile(ProfileType::Unconfined, "")),
        deprecated("free-text", "unconfined"),
    ] {
        world.exec(&pod.run(config), "true");
    }
    pod.end();
    world.finish();
}
