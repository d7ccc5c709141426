//! Mounts of host paths, seen from inside the container and from the host.

use std::path::PathBuf;

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX};
use e2e::image::{Image, Layer};
use e2e::pod::{Pod, container};
use serde_json::json;
use tonic::Code;

use crate::refused;

fn mount(host: &str, target: &str) -> Mount {
    Mount { host_path: host.into(), container_path: target.into(), ..Default::default() }
}

fn with(name: &str, mounts: Vec<Mount>) -> ContainerConfig {
    ContainerConfig { mounts, ..container(name, BUSYBOX, &[]) }
}

/// A tmpfs of the world's own, below which a test mounts what it likes.
fn volume(world: &World, name: &str, propagation: &str) -> String {
    let dir = world.path(name).display().to_string();
    world.sh(&format!(
        "mkdir -p {dir} && mount -t tmpfs e2e {dir} && mount --make-{propagation} {dir}"
    ));
    dir
}

/// The options of one mount, as the container has it.
fn options(world: &World, id: &str, target: &str) -> Vec<String> {
    let table = world.exec(id, "cat /proc/self/mountinfo");
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(target));
    let line = line.unwrap_or_else(|| panic!("{target} is no mount:\n{table}"));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

fn eventually_in(world: &World, id: &str, path: &str, there: bool) {
    let line = format!("test -e {path} && echo yes || echo no");
    let wanted = if there { "yes\n" } else { "no\n" };
    e2e::eventually(path, || (world.exec(id, &line) == wanted).then_some(()));
}

on_each_runtime! {
    fn propagation_in_each_mode(world) {
        world.pull(BUSYBOX);
        let dir = volume(world, "shared", "shared");
        let pod = world.pod("propagation");
        let run = |name: &str, propagation: MountPropagation| {
            let mut mount = mount(&dir, "/vol");
            mount.set_propagation(propagation);
            let mut config = with(name, vec![mount]);
            let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            context.capabilities =
                Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
            // AppArmor's default lets nobody mount, where there is AppArmor.
            context.apparmor = Some(SecurityProfile {
                profile_type: security_profile::ProfileType::Unconfined.into(),
                ..Default::default()
            });
            pod.run(config)
        };
        let private = run("private", MountPropagation::PropagationPrivate);
        let slave = run("slave", MountPropagation::PropagationHostToContainer);
        let shared = run("shared", MountPropagation::PropagationBidirectional);
        let from = |place: &str| format!("mkdir -p {place} && mount -t tmpfs e2e {place} && touch {place}/mark");
        world.sh(&from(&format!("{dir}/host")));
        eventually_in(world, &slave, "/vol/host/mark", true);
        eventually_in(world, &shared, "/vol/host/mark", true);
        eventually_in(world, &private, "/vol/host/mark", false);
        for (id, name, reaches) in [(&private, "p", false), (&slave, "s", false), (&shared, "b", true)] {
            world.exec(id, &from(&format!("/vol/{name}")));
            let seen = world.sh(&format!("test -e {dir}/{name}/mark && echo yes || echo no"));
            assert_eq!(seen, if reaches { "yes\n" } else { "no\n" }, "{name}");
        }
        world.sh(&format!("umount {dir}/host"));
        eventually_in(world, &slave, "/vol/host/mark", false);
        let status = world.container_status(&shared).unwrap();
        assert_eq!(status.mounts[0].propagation(), MountPropagation::PropagationBidirectional);
        pod.end();
        world.sh(&format!("umount -R {dir}"));
    }

    fn read_only_alone_and_with_all_below(world) {
        world.pull(BUSYBOX);
        let dir = volume(world, "tree", "private");
        world.sh(&format!("mkdir {dir}/below && mount -t tmpfs e2e {dir}/below"));
        let pod = world.pod("readonly");
        let run = |name: &str, recursive: bool| {
            let mut mount = mount(&dir, "/vol");
            (mount.readonly, mount.recursive_read_only) = (true, recursive);
            pod.run(with(name, vec![mount]))
        };
        let (alone, all) = (run("alone", false), run("all", true));
        let write = |id: &str, path: &str| {
            world.exec(id, &format!("touch {path} 2>&1 && echo written || true"))
        };
        for id in [&alone, &all] {
            assert!(write(id, "/vol/x").contains("Read-only file system"));
        }
        assert_eq!(write(&alone, "/vol/below/x"), "written\n");
        assert!(write(&all, "/vol/below/x").contains("Read-only file system"));
        let told = |id: &str| world.container_status(id).unwrap().mounts[0].recursive_read_only;
        assert_eq!((told(&alone), told(&all)), (false, true));
        let status = world.client.status(StatusRequest::default()).unwrap();
        assert!(status.runtime_handlers.len() >= 3);
        for handler in &status.runtime_handlers {
            assert!(handler.features.unwrap().recursive_read_only_mounts, "{handler:?}");
        }
        for change in [
            (|m| m.readonly = false) as fn(&mut Mount),
            |m| m.set_propagation(MountPropagation::PropagationHostToContainer),
            |m| m.set_propagation(MountPropagation::PropagationBidirectional),
        ] {
            let mut mount = mount(&dir, "/vol");
            (mount.readonly, mount.recursive_read_only) = (true, true);
            change(&mut mount);
            let made = pod.try_create(with("wrong", vec![mount]));
            refused(&made, Code::InvalidArgument, "recursive_read_only");
        }
        pod.end();
        world.sh(&format!("umount -R {dir}"));
    }

    fn options_restrict_a_mount(world) {
        world.pull(BUSYBOX);
        let dir = volume(world, "options", "private");
        let pod = world.pod("options");
        let mut mount = mount(&dir, "/vol");
        mount.mount_options = vec!["noexec".into(), "nosuid".into(), "nodev".into(), "noatime".into()];
        let id = pod.run(with("c", vec![mount]));
        let set = options(world, &id, "/vol");
        for option in ["rw", "noexec", "nosuid", "nodev", "noatime"] {
            assert!(set.iter().any(|one| one == option), "{option}: {set:?}");
        }
        let line = "cp /bin/busybox /vol/busybox && /vol/busybox true 2>&1 || true";
        assert!(world.exec(&id, line).contains("Permission denied"));
        assert_eq!(world.container_status(&id).unwrap().mounts[0].mount_options.len(), 4);
        assert!(world.client.status(StatusRequest::default()).unwrap().features.unwrap().mount_options);
        pod.end();
        world.sh(&format!("umount {dir}"));
    }

    fn sources_that_are_links_missing_or_files(world) {
        world.pull(BUSYBOX);
        let dir = world.path("sources").display().to_string();
        world.sh(&format!(
            "mkdir -p {dir}/real && echo inside >{dir}/real/file && ln -s real {dir}/link && \
             ln -s {dir}/link/file {dir}/file-link"
        ));
        let pod = world.pod("sources");
        let at = |name: &str, target: &str| mount(&format!("{dir}/{name}"), target);
        let id = pod.run(with("c", vec![
            at("link", "/link"),
            at("file-link", "/etc/one-file"),
            at("made/deep", "/made"),
        ]));
        assert_eq!(world.exec(&id, "cat /link/file /etc/one-file"), "inside\ninside\n");
        world.exec(&id, "touch /made/x /link/y");
        world.sh(&format!("test -f {dir}/made/deep/x && test -f {dir}/real/y"));
        world.sh(&format!("ln -s nowhere {dir}/dangling"));
        let made = pod.try_create(with("wrong", vec![at("dangling", "/x")]));
        refused(&made, Code::InvalidArgument, "mounts[0].host_path: ");
        pod.end();
    }

    fn targets_nested_hidden_and_behind_links_of_the_image(world) {
        let outside = world.path("outside").display().to_string();
        // The image has a directory of the same name, which is the one that is meant.
        let mut layer = Layer::new()
            .symlink("to-data", "/data")
            .dir("data", 0o755)
            .symlink("out", &format!("../../../../../../../..{outside}"));
        for (at, _) in outside.match_indices('/').skip(1) {
            layer = layer.dir(&outside[1..at], 0o755);
        }
        layer = layer.dir(&outside[1..], 0o755);
        let image = Image::new(&[catalogue::base(), layer], &json!({"Cmd": ["sleep", "1000"]}));
        let name = catalogue::storage().put("links", "1", &image);
        world.pull(&name);
        let dir = world.path("nested").display().to_string();
        world.sh(&format!("mkdir -p {outside}; for d in a b c d e; do mkdir -p {dir}/$d; echo $d >{dir}/$d/mark; done"));
        let pod = world.pod("targets");
        let at = |name: &str, target: &str| mount(&format!("{dir}/{name}"), target);
        let mut config = with("c", vec![
            // The deeper one first: it must not be hidden by the one it lies in.
            at("b", "/data/inner/b"),
            at("a", "/data"),
            at("c", "/to-data/c"),
            at("d", "/out/d"),
            at("e", "/etc/hosts.d/../hosts.d"),
        ]);
        config.image.as_mut().unwrap().image = name;
        world.sh(&format!("mkdir -p {dir}/a/inner/b {dir}/a/c"));
        let id = pod.run(config);
        let sh = |line: &str| world.exec(&id, line);
        assert_eq!(sh("cat /data/mark /data/inner/b/mark /data/c/mark /etc/hosts.d/mark"), "a\nb\nc\ne\n");
        assert_eq!(sh("cat /out/d/mark"), "d\n");
        assert_eq!(world.sh(&format!("ls -A {outside}")), "", "a link of the image leads nowhere on the host");
        pod.end();
    }
}

/// The places that the runtime itself would fill.
#[test]
fn a_mount_of_the_request_takes_the_place_of_the_runtime_s() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let dir = world.path("replace").display().to_string();
    world.sh(&format!(
        "mkdir -p {dir}/shm && echo 9.9.9.9 own >{dir}/hosts && echo x >{dir}/shm/mark"
    ));
    let pod = world.pod("replace");
    let id = pod.run(with(
        "c",
        vec![
            mount(&format!("{dir}/hosts"), "/etc/hosts"),
            mount(&format!("{dir}/shm"), "/dev/shm/"),
        ],
    ));
    assert_eq!(world.exec(&id, "cat /etc/hosts; cat /dev/shm/mark"), "9.9.9.9 own\nx\n");
    let table = world.exec(&id, "cat /proc/self/mountinfo");
    for target in ["/etc/hosts", "/dev/shm"] {
        let count = table.lines().filter(|line| line.split(' ').nth(4) == Some(target)).count();
        assert_eq!(count, 1, "{target}:\n{table}");
    }
    pod.end();
    world.finish();
}

#[test]
fn what_a_mount_lacks_is_named() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let private = volume(&world, "private", "private");
    let shared = volume(&world, "peers", "shared");
    let slave = world.path("slave").display().to_string();
    world.sh(&format!(
        "mkdir {slave} && mount --bind {shared} {slave} && mount --make-slave {slave}"
    ));
    let pod = world.pod("refused");
    let wanted = |dir: &str, propagation: MountPropagation| {
        let mut mount = mount(&format!("{dir}/sub"), "/vol");
        mount.set_propagation(propagation);
        pod.try_create(with("c", vec![mount]))
    };
    let (down, both) =
        (MountPropagation::PropagationHostToContainer, MountPropagation::PropagationBidirectional);
    for (dir, propagation, lacks) in [
        (&private, down, "not shared or slave"),
        (&private, both, "not shared"),
        (&slave, both, "not shared"),
    ] {
        let made = wanted(dir, propagation);
        refused(&made, Code::InvalidArgument, "mounts[0].propagation: ");
        refused(
            &made,
            Code::InvalidArgument,
            &format!("{dir}/sub is on the mount {dir}, which is {lacks}"),
        );
    }
    for (dir, propagation) in [(&slave, down), (&shared, both)] {
        let made = wanted(dir, propagation).unwrap();
        world.remove_container(&made).unwrap();
    }
    let mut odd = mount(&private, "/vol");
    odd.mount_options = vec!["rshared".into()];
    refused(
        &pod.try_create(with("c", vec![odd])),
        Code::InvalidArgument,
        "mount_options[0]: \"rshared\"",
    );
    refused(
        &pod.try_create(with("c", vec![mount("relative", "/vol")])),
        Code::InvalidArgument,
        "mounts[0].host_path",
    );
    pod.end();
    world.sh(&format!("umount {private} {slave} {shared}"));
    world.finish();
}

/// A runtime of before `rro`: the kubelet knows the refusal by its first word.
#[test]
fn a_runtime_without_recursive_read_only_is_said_to_lack_it() {
    let world = World::start(e2e::Options {
        config: format!("[runtimes]\nold = \"{}\"\n", old_runtime().display()),
        ..Default::default()
    });
    world.pull(BUSYBOX);
    let status = world.client.status(StatusRequest::default()).unwrap();
    let old = status.runtime_handlers.iter().find(|handler| handler.name == "old").unwrap();
    let features = old.features.unwrap();
    assert!(!features.recursive_read_only_mounts && !features.user_namespaces);
    let request = RunPodSandboxRequest {
        config: Some(e2e::pod::sandbox(&world, "old")),
        runtime_handler: "old".into(),
    };
    let id = world.client.run_pod_sandbox(request.clone()).unwrap().pod_sandbox_id;
    let pod = Pod { world: &world, id, config: request.config.unwrap() };
    let mut mount = mount("/tmp", "/vol");
    (mount.readonly, mount.recursive_read_only) = (true, true);
    let made = pod.try_create(with("c", vec![mount]));
    let text = made.as_ref().unwrap_err().message().to_owned();
    refused(&made, Code::Unknown, "RROUnsupported: ");
    assert!(text.starts_with("RROUnsupported: "), "{text}");
    pod.end();
    world.finish();
}

/// A program that knows no `features`.
fn old_runtime() -> PathBuf {
    let program = PathBuf::from("/bin/false");
    assert!(program.exists());
    program
}
