//! SELinux: what a node without it does with labels, and labels seen from inside where the machine is the tests' own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, LAYERS};
use e2e::pod::{Pod, container, sandbox};
use e2e::{Options, World};
use tonic::Code;

use crate::{refused, security};

fn options(r#type: &str, level: &str) -> Option<SeLinuxOption> {
    Some(SeLinuxOption { r#type: r#type.into(), level: level.into(), ..Default::default() })
}

fn with(name: &str, selinux_options: Option<SeLinuxOption>) -> ContainerConfig {
    let mut config = container(name, BUSYBOX, &[]);
    security(&mut config).selinux_options = selinux_options;
    config
}

fn pod_config(world: &World, name: &str, options: Option<SeLinuxOption>) -> PodSandboxConfig {
    let mut config = sandbox(world, name);
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.selinux_options = options;
    config
}

/// A world that sees the kernel's SELinux; `None`, with a word, where there is none to be had. The policy is in force for everybody: one at a time.
fn on(runtime: &'static str) -> Option<(World, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let enforce = std::path::Path::new("/sys/fs/selinux/enforce");
    if !(World::owns_machine() && enforce.exists()) {
        println!("skipped: needs a machine of its own with SELinux: ./dev vm-test selinux");
        return None;
    }
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    Some((World::start(Options { runtime, ..Default::default() }), alone))
}

/// The label of a container's first process; commands have the same.
fn process(world: &World, id: &str) -> String {
    let both = world.exec(id, "cat /proc/1/attr/current; echo; cat /proc/self/attr/current");
    let labels: Vec<&str> = both.split(['\0', '\n']).filter(|label| !label.is_empty()).collect();
    assert_eq!(labels[0], labels[1]);
    labels[0].to_owned()
}

/// The labels of files in a container, as its node sees them.
fn files(world: &World, id: &str, paths: &str) -> Vec<String> {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.client.container_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let paths: Vec<_> =
        paths.split(' ').map(|path| format!("/proc/{}/root{path}", info["pid"])).collect();
    let labels = world.sh(&format!("stat -L -c %C {}", paths.join(" ")));
    labels.lines().map(str::to_owned).collect()
}

fn level(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap()
}

fn labelled(runtime: &'static str) {
    let Some((world, _alone)) = on(runtime) else { return };
    world.pull(BUSYBOX);
    world.pull(LAYERS);
    let pod = world.pod("one");
    let volume = |name: &str, selinux_relabel: bool| {
        let host_path = world.path(&format!("volumes/{name}")).display().to_string();
        world.sh(&format!("mkdir -p {host_path}/below && touch {host_path}/below/file"));
        Mount { container_path: format!("/{name}"), host_path, selinux_relabel, ..Mount::default() }
    };
    let image = Mount {
        container_path: "/image".into(),
        readonly: true,
        image: Some(ImageSpec { image: LAYERS.into(), ..Default::default() }),
        image_sub_path: "data".into(),
        ..Default::default()
    };
    let mounts = vec![volume("mine", true), volume("other", false), image];
    let id = pod.run(ContainerConfig { mounts, ..with("c", None) });
    let own = process(&world, &id);
    assert!(own.contains(":container_t:s0:c"), "{own}");
    let labels = files(&world, &id, "/ /bin/busybox /mine/below/file /image /dev/shm /etc/hosts");
    for label in &labels {
        assert_eq!(level(label), level(&own), "{labels:?}");
        assert!(label.contains(":container_file_t:"), "{labels:?}");
    }
    let other = files(&world, &id, "/other/below/file").remove(0);
    assert!(!other.contains("container_file_t"), "{other}");
    // What is written is labelled as what is read.
    world.exec(&id, "echo x >/new");
    assert_eq!(files(&world, &id, "/new"), labels[..1]);

    let second = pod.run(with("second", None));
    assert_eq!(process(&world, &second), own, "one for the pod");
    let asked = pod.run(with("asked", options("spc_t", "s0:c7,c9")));
    assert!(process(&world, &asked).ends_with(":spc_t:s0:c7,c9"));
    let elsewhere = world.pod("two");
    let other = elsewhere.run(with("c", None));
    assert_ne!(level(&process(&world, &other)), level(&own), "none for two pods");
    elsewhere.end();
    let told = pod.try_create(with("wrong", options("no_such_type_t", "")));
    refused(&told, Code::InvalidArgument, "selinux_options: the policy does not know the label");
    pod.end();

    let chosen = world.pod_of(pod_config(&world, "chosen", options("", "s0:c3,c4")));
    let id = chosen.run(with("c", None));
    assert_eq!(level(&process(&world, &id)), "s0:c3,c4");
    chosen.end();
    world.finish();
}

/// With the policy in force a pod neither reads the files of the host nor those of another pod.
fn enforced(runtime: &'static str) {
    let Some((world, _alone)) = on(runtime) else { return };
    world.pull(BUSYBOX);
    let dir = world.path("volume").display().to_string();
    world.sh(&format!("mkdir -p {dir}/a {dir}/b && echo secret | tee {dir}/a/file >{dir}/b/file"));
    let mount = |name: &str, selinux_relabel: bool| Mount {
        container_path: "/volume".into(),
        host_path: format!("{dir}/{name}"),
        selinux_relabel,
        ..Mount::default()
    };
    let run = |pod: &Pod<'_>, name: &str, mount: Mount| {
        pod.run(ContainerConfig { mounts: vec![mount], ..with(name, None) })
    };
    let (one, two) = (world.pod("one"), world.pod("two"));
    let mine = run(&one, "mine", mount("a", true));
    let unlabelled = run(&one, "unlabelled", mount("b", false));
    let foreign = run(&two, "foreign", mount("a", false));
    let read = |id: &str| world.exec(id, "cat /volume/file 2>&1; true");
    assert_eq!(read(&foreign), "secret\n", "nothing is in the way of it but the policy");
    let enforcing = Enforcing::new(&world);
    assert_eq!(read(&mine), "secret\n");
    for id in [&unlabelled, &foreign] {
        assert!(read(id).contains("ermission denied"), "{}", read(id));
    }
    drop(enforcing);
    one.end();
    two.end();
    world.finish();
}

/// The policy is in force until this goes.
struct Enforcing<'w>(&'w World);

impl<'w> Enforcing<'w> {
    fn new(world: &'w World) -> Self {
        world.sh("echo 1 >/sys/fs/selinux/enforce");
        Self(world)
    }
}

impl Drop for Enforcing<'_> {
    fn drop(&mut self) {
        self.0.try_sh("echo 0 >/sys/fs/selinux/enforce");
    }
}

#[test]
fn labels_on_crun() {
    labelled("crun");
}

#[test]
fn labels_on_runc() {
    labelled("runc");
}

#[test]
fn denials_on_crun() {
    enforced("crun");
}

#[test]
fn denials_on_runc() {
    enforced("runc");
}

/// Whoever asks for labels asks for them wherever there are some: charts for all nodes say so of every one.
#[test]
fn a_node_without_it_takes_labels_and_refuses_what_is_none() {
    let world = World::start(Options { security_modules: false, ..Default::default() });
    world.pull(BUSYBOX);
    let pod = world.pod_of(pod_config(&world, "without", options("spc_t", "s0")));
    let mut config = with("asks", options("spc_t", "s0:c1,c2"));
    let host_path = world.path("volume").display().to_string();
    world.sh(&format!("mkdir {host_path} && echo x >{host_path}/file"));
    config.mounts = vec![Mount {
        container_path: "/volume".into(),
        host_path,
        selinux_relabel: true,
        ..Default::default()
    }];
    let id = pod.run(config);
    assert_eq!(world.exec(&id, "cat /volume/file"), "x\n");
    for (options, field) in [
        (options("spc_t\n", ""), "selinux_options.type"),
        (options("", "s0:c1,x"), "selinux_options.level"),
        (options("a:b", ""), "selinux_options.type"),
    ] {
        let made = pod.try_create(with("wrong", options.clone()));
        refused(&made, Code::InvalidArgument, field);
        let made = world.try_pod(pod_config(&world, "wrong", options));
        refused(&made.map(|pod| pod.id), Code::InvalidArgument, field);
    }
    pod.end();
    world.finish();
}
