//! Image volumes: an image as a read-only directory of a container.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX, LAYERS};
use e2e::image::{Image, Layer};
use e2e::pod::container;
use e2e::registry::HOST;
use serde_json::json;
use tonic::Code;

use crate::refused;

fn volume(image: &str, path: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageSpec { image: image.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

fn with(mounts: Vec<Mount>) -> ContainerConfig {
    ContainerConfig { mounts, ..container("c", BUSYBOX, &[]) }
}

/// The host's mounts, as they were before the container.
fn mounts(world: &World) -> String {
    world.sh("grep -c . /proc/self/mountinfo; grep volumes /proc/self/mountinfo || true")
}

on_each_runtime! {
    fn an_image_is_seen_read_only(world) {
        world.pull(BUSYBOX);
        let id = world.pull(LAYERS);
        let pod = world.pod("volumes");
        let before = mounts(world);
        let config = with(vec![
            volume(LAYERS, "/mnt/whole", ""),
            volume(&id, "/mnt/part", "data"),
            volume(LAYERS, "/mnt/one", "/data/../tmp"),
            volume(BUSYBOX, "/mnt/single", ""),
        ]);
        let container = pod.run(config);
        let sh = |line: &str| world.exec(&container, line);
        assert_eq!(sh("cat /mnt/whole/data/replaced /mnt/part/replaced"), "upperupper");
        assert_eq!(sh("ls /mnt/part/hidden"), "above\n");
        assert_eq!(sh("test -e /mnt/part/removed || echo gone"), "gone\n");
        assert_eq!(sh("stat -c %a /mnt/part /mnt/one"), "750\n1777\n");
        assert_eq!(sh("/mnt/single/bin/busybox echo runs"), "runs\n");
        for path in ["whole", "part", "one", "single"] {
            let line = format!("touch /mnt/{path}/x 2>&1; rm -rf /mnt/{path}/bin 2>&1; true");
            let said = sh(&line);
            assert!(said.contains("Read-only file system"), "{path}: {said}");
        }
        let status = world.container_status(&container).unwrap();
        let told = &status.mounts[1];
        assert_eq!(told.image_sub_path, "data");
        assert_eq!(told.image.as_ref().unwrap().image_ref, id);
        assert_eq!(told.image.as_ref().unwrap().image, id);
        assert_eq!(mounts(world), before, "nothing is mounted on the host");
        pod.end();
    }

    fn its_layers_stay_while_a_container_uses_them(world) {
        world.pull(BUSYBOX);
        let marker = Layer::new().dir("deep", 0o755).file("deep/marker", 0o644, "held");
        let image = Image::new(&[Layer::new().dir("deep", 0o755), marker], &json!({"Cmd": ["x"]}));
        let name = catalogue::storage().put("held", "1", &image);
        world.pull(&name);
        let pod = world.pod("held");
        let created = pod.create(with(vec![volume(&name, "/v", "deep")]));
        world.remove_image(&name);
        // The removal's sweep has been when another's layers are gone.
        let used = || {
            let info = world.client.image_fs_info(ImageFsInfoRequest {}).unwrap();
            info.image_filesystems[0].used_bytes.unwrap().value
        };
        let with_it = used();
        world.start_container(&created).unwrap();
        assert_eq!(world.exec(&created, "cat /v/marker"), "held");
        pod.end();
        e2e::eventually("its layers to go", || (used() < with_it).then_some(()));
    }
}

#[test]
fn a_restart_forgets_no_volume() {
    let mut world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let marker = Layer::new().file("marker", 0o644, "kept");
    let name = catalogue::storage().put("kept", "1", &Image::new(&[marker], &json!({})));
    world.pull(&name);
    let pod = {
        let pod = world.pod("kept");
        let created = pod.create(with(vec![volume(&name, "/v", "")]));
        world.remove_image(&name);
        (pod.id.clone(), created)
    };
    world.end_daemon(rustix::process::Signal::KILL);
    world.start_daemon();
    world.start_container(&pod.1).unwrap();
    assert_eq!(world.exec(&pod.1, "cat /v/marker"), "kept");
    let sandbox = StopPodSandboxRequest { pod_sandbox_id: pod.0.clone() };
    world.client.stop_pod_sandbox(sandbox).unwrap();
    let sandbox = RemovePodSandboxRequest { pod_sandbox_id: pod.0 };
    world.client.remove_pod_sandbox(sandbox).unwrap();
    world.finish();
}

#[test]
fn what_cannot_be_mounted_is_said_so_that_the_kubelet_knows() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("refused");
    let outside = world.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    let escape = Layer::new()
        .symlink("out", outside.to_str().unwrap())
        .symlink("up", "../../../../../../../../tmp")
        .file("file", 0o644, "x");
    let name = catalogue::storage().put("escape", "1", &Image::new(&[escape], &json!({})));
    world.pull(&name);
    for (image, sub_path) in [
        (name.as_str(), "none"),
        (&name, "file"),
        (&name, "out"),
        (&name, "up"),
        (&name, "file/../.."),
        (&format!("{HOST}/not-pulled:1"), ""),
    ] {
        let made = pod.try_create(with(vec![volume(image, "/v", sub_path)]));
        refused(&made, Code::Unknown, "ImageVolumeMountFailed: mounts[0]: ");
    }
    for (field, change) in [
        ("readonly", (|m| m.readonly = false) as fn(&mut Mount)),
        ("host_path", |m| m.host_path = "/tmp".into()),
        ("propagation", |m| m.set_propagation(MountPropagation::PropagationBidirectional)),
        ("image_sub_path", |m| m.image_sub_path = "a\0b".into()),
    ] {
        let mut mount = volume(BUSYBOX, "/v", "");
        change(&mut mount);
        refused(&pod.try_create(with(vec![mount])), Code::InvalidArgument, field);
    }
    pod.end();
    world.finish();
}

#[test]
fn an_image_is_pulled_for_known_handlers_only() {
    let world = World::start(e2e::Options::default());
    let pull = |handler: &str| {
        let image = ImageSpec {
            image: BUSYBOX.into(),
            runtime_handler: handler.into(),
            ..Default::default()
        };
        world.client.pull_image(PullImageRequest { image: Some(image), ..Default::default() })
    };
    refused(&pull("no-such-handler"), Code::InvalidArgument, "no-such-handler");
    pull("crun").unwrap();
    pull("").unwrap();
    world.finish();
}
