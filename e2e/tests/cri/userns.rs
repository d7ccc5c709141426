//! Pods with users of their own, seen from both sides.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::{BUSYBOX, LAYERS};
use e2e::pod::{Pod, container, sandbox, shell};
use tonic::Code;

use crate::refused;

/// The first of the pod's ids on the host.
const HOST: u32 = 200_000;
const LENGTH: u32 = 65_536;

fn mapping(host_id: u32) -> Vec<IdMapping> {
    vec![IdMapping { host_id, container_id: 0, length: LENGTH }]
}

fn users(host_id: u32) -> UserNamespace {
    UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: mapping(host_id),
        gids: mapping(host_id),
    }
}

fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap()
}

fn pod_config(world: &World, name: &str) -> PodSandboxConfig {
    let mut config = sandbox(world, name);
    namespaces(&mut config).userns_options = Some(users(HOST));
    config
}

fn inside(mut config: ContainerConfig) -> ContainerConfig {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().userns_options = Some(users(HOST));
    config
}

fn pid(world: &World, id: &str) -> u64 {
    let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = world.client.container_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_u64().unwrap()
}

/// Whose a process is on the host; the kernel shows it once the program has begun.
fn is_owned(world: &World, pid: u64, by: &str) {
    let line = format!("stat -c %u /proc/{pid}");
    e2e::eventually("the process to be the pod's", || (world.sh(&line) == by).then_some(()));
}

/// Numbers apart by whatever blanks.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

on_each_runtime! {
    fn root_is_somebody_else_on_the_host(world) {
        world.pull(BUSYBOX);
        let pod = world.pod_of(pod_config(world, "users"));
        let mut config = inside(container("c", BUSYBOX, &[]));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        let add_capabilities = ["SYS_ADMIN", "NET_ADMIN"].map(Into::into).into();
        context.capabilities = Some(Capability { add_capabilities, ..Default::default() });
        let id = pod.run(config);
        let sh = |line: &str| world.exec(&id, line);
        let whole = ["0", "200000", "65536"];
        assert_eq!(words(&sh("cat /proc/self/uid_map")), whole);
        assert_eq!(words(&sh("cat /proc/1/gid_map")), whole);
        assert_eq!(sh("id -u; id -g"), "0\n0\n");
        let pid = pid(world, &id);
        is_owned(world, pid, "200000\n");

        // Files of the image are root's inside; what is written belongs to the pod's users on the disk too.
        assert_eq!(sh("stat -c %u:%g /bin/busybox /"), "0:0\n0:0\n");
        sh("echo new >/made && chown 7:9 /made && chmod 4755 /made && rm /bin/yes && mkdir /dir");
        assert_eq!(sh("stat -c %u:%g:%a /made"), "7:9:4755\n");
        let upper = world.path("root/snapshots/snapshots").join(&id).join("fs");
        let seen = world.sh(&format!("stat -c %u:%g {0} {0}/made {0}/dir", upper.display()));
        assert_eq!(seen, "200000:200000\n200007:200009\n200000:200000\n");
        assert!(world.try_sh(&format!("grep {id} /proc/1/mountinfo")).stdout.is_empty(), "no mount on the host");

        // What the pod shares with its containers is theirs.
        assert_eq!(sh("stat -c %u:%g /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname"), "0:0\n".repeat(4));
        assert_eq!(sh("touch /dev/shm/x && stat -c %u /dev/shm/x"), "0\n");
        assert_eq!(sh("echo out >/dev/stdout && hostname"), "out\nusers\n");
        assert_eq!(sh("hostname renamed && hostname"), "renamed\n", "its names are its own");
        assert_eq!(sh("cat /sys/class/net/eth0/ifindex >/dev/null && echo sysfs"), "sysfs\n");
        // The network belongs to its users too.
        assert!(sh("ip addr show eth0").contains(&pod.ip()));
        assert_eq!(sh("ip link set lo down && ip link set lo up && echo may"), "may\n");
        // Root here is nobody there.
        let denied = "mknod /x c 1 3 2>&1; echo 1 2>&1 >/proc/sys/vm/drop_caches; true";
        assert!(sh(denied).contains("denied") || sh(denied).contains("not permitted"));
        let told = world.sandbox_status(&pod.id).unwrap().linux.unwrap().namespaces.unwrap();
        assert_eq!(told.options.unwrap().userns_options, Some(users(HOST)));
        let second = pod.run(inside(container("other", BUSYBOX, &[])));
        let namespace = |id: &str| world.exec(id, "readlink /proc/self/ns/user; readlink /proc/self/ns/net");
        assert_eq!(namespace(&id), namespace(&second), "one for the pod");
        pod.end();
    }

    fn output_input_and_the_end_of_processes(world) {
        world.pull(BUSYBOX);
        let pod = world.pod_of(pod_config(world, "streams"));
        let line = "echo direct; echo anew >/dev/stdout; echo wrong >/dev/stderr; exit 7";
        let mut config = inside(container("c", BUSYBOX, &shell(line)));
        let id = pod.run(config.clone());
        assert_eq!(world.ended(&id).exit_code, 7);
        let log = pod.log("c");
        for text in ["stdout F direct\n", "stdout F anew\n", "stderr F wrong\n"] {
            assert!(log.contains(text), "{log}");
        }
        config.metadata.as_mut().unwrap().name = "user".into();
        config.log_path = "user.log".into();
        config.command = shell("id -u; echo anew >/dev/stdout; exec sleep 1000").map(Into::into).into();
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.run_as_user = Some(Int64Value { value: 1000 });
        let id = pod.run(config);
        e2e::eventually("its output", || pod.log("user").contains("stdout F 1000\n").then_some(()));
        let pid = pid(world, &id);
        is_owned(world, pid, "201000\n");
        world.stop_container(&id, 0).unwrap();
        assert_eq!(world.container_status(&id).unwrap().exit_code, 137);
        pod.end();
    }

    fn volumes_have_the_owners_that_their_mount_says(world) {
        world.pull(BUSYBOX);
        world.pull(LAYERS);
        let dir = world.path("volume").display().to_string();
        world.sh(&format!(
            "mkdir -p {dir}/mapped {dir}/plain && echo x >{dir}/mapped/file && chown 0:0 {dir}/mapped/file && \
             chmod 777 {dir}/plain && touch {dir}/log && chmod 666 {dir}/log"
        ));
        let pod = world.pod_of(pod_config(world, "volumes"));
        let mount = |name: &str, target: &str, mapped: bool| Mount {
            host_path: format!("{dir}/{name}"),
            container_path: target.into(),
            uid_mappings: if mapped { mapping(HOST) } else { vec![] },
            gid_mappings: if mapped { mapping(HOST) } else { vec![] },
            ..Default::default()
        };
        let image = Mount {
            container_path: "/image".into(),
            readonly: true,
            image: Some(ImageSpec { image: LAYERS.into(), ..Default::default() }),
            image_sub_path: "data".into(),
            uid_mappings: mapping(HOST),
            gid_mappings: mapping(HOST),
            ..Default::default()
        };
        let mounts = vec![
            mount("mapped", "/mapped", true),
            mount("plain", "/plain", false),
            mount("log", "/dev/termination-log", false),
            image,
        ];
        let id = pod.run(inside(ContainerConfig { mounts, ..container("c", BUSYBOX, &[]) }));
        let sh = |line: &str| world.exec(&id, line);
        assert_eq!(sh("stat -c %u:%g /mapped/file /plain"), "0:0\n65534:65534\n");
        sh("touch /mapped/new && chown 5:6 /mapped/new && touch /plain/new && echo why >/dev/termination-log");
        let owners = world.sh(&format!("stat -c %u:%g {dir}/mapped/new {dir}/plain/new; cat {dir}/log"));
        assert_eq!(owners, "5:6\n200000:200000\nwhy\n");
        assert_eq!(sh("cat /image/replaced; stat -c %u:%g /image"), "upper0:0\n");
        let status = world.container_status(&id).unwrap();
        assert_eq!(status.mounts[0].uid_mappings, mapping(HOST));
        pod.end();
    }

    fn processes_are_shared_among_the_pod_s_users(world) {
        world.pull(BUSYBOX);
        let mut config = pod_config(world, "shared");
        namespaces(&mut config).set_pid(NamespaceMode::Pod);
        let pod = world.pod_of(config);
        let run = |name: &str| {
            let mut config = inside(container(name, BUSYBOX, &[]));
            let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            context.namespace_options.as_mut().unwrap().set_pid(NamespaceMode::Pod);
            pod.run(config)
        };
        let (a, b) = (run("a"), run("b"));
        let namespace = |id: &str| world.exec(id, "readlink /proc/self/ns/pid");
        assert_eq!(namespace(&a), namespace(&b));
        // Its init is theirs too, and nobody among them.
        assert_eq!(world.exec(&a, "stat -c %u /proc/1"), "65534\n");
        e2e::eventually("both containers' processes", || {
            (world.exec(&b, "ps | grep -c [s]leep; true") == "2\n").then_some(())
        });
        pod.end();
    }

    fn privileged_and_on_the_host_s_network(world) {
        world.pull(BUSYBOX);
        let mut config = pod_config(world, "privileged");
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let pod = world.pod_of(config);
        let mut config = inside(container("c", BUSYBOX, &[]));
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let id = pod.run(config);
        assert_eq!(words(&world.exec(&id, "cat /proc/self/uid_map"))[1], "200000");
        assert_eq!(world.exec(&id, "mount -t tmpfs x /tmp && echo may"), "may\n");
        pod.end();

        let features = world.client.status(StatusRequest::default()).unwrap().features.unwrap();
        assert!(features.user_namespaces_host_network);
        let mut config = pod_config(world, "network");
        namespaces(&mut config).set_network(NamespaceMode::Node);
        let pod = world.pod_of(config);
        let mut config = inside(container("c", BUSYBOX, &[]));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().set_network(NamespaceMode::Node);
        let id = pod.run(config);
        let sh = |line: &str| world.exec(&id, line);
        assert_eq!(sh("readlink /proc/self/ns/net"), world.sh("readlink /proc/self/ns/net"));
        assert!(sh("ip link set lo down 2>&1 || true").contains("not permitted"));
        assert!(sh("ls /sys/class/net").contains("lo"));
        assert!(sh("touch /sys/kernel/x 2>&1 || true").contains("Read-only"));
        pod.end();
    }
}

#[test]
fn a_restart_loses_no_user_namespace() {
    let mut world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let (pod, config, running, created) = {
        let pod = world.pod_of(pod_config(&world, "restart"));
        let running = pod.run(inside(container("running", BUSYBOX, &[])));
        let created = pod.create(inside(container("created", BUSYBOX, &[])));
        (pod.id.clone(), pod.config.clone(), running, created)
    };
    world.end_daemon(rustix::process::Signal::KILL);
    world.start_daemon();
    world.start_container(&created).unwrap();
    let namespace =
        |id: &str| world.exec(id, "readlink /proc/self/ns/user; cat /proc/self/uid_map");
    assert_eq!(namespace(&running), namespace(&created));
    let pod = Pod { world: &world, id: pod, config };
    let later = pod.run(inside(container("later", BUSYBOX, &[])));
    assert_eq!(namespace(&running), namespace(&later));
    pod.end();
    world.finish();
}

#[test]
fn what_is_no_pod_s_range_is_refused() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let status = world.client.status(StatusRequest::default()).unwrap();
    for handler in &status.runtime_handlers {
        assert!(handler.features.unwrap().user_namespaces, "{handler:?}");
    }
    let with = |change: &dyn Fn(&mut NamespaceOption)| {
        let mut config = pod_config(&world, "refused");
        change(namespaces(&mut config));
        world.try_pod(config).map(|pod| pod.id)
    };
    let of = |change: fn(&mut UserNamespace)| {
        with(&|options| change(options.userns_options.as_mut().unwrap()))
    };
    for (change, says) in [
        ((|o| o.uids.push(o.uids[0])) as fn(&mut UserNamespace), "uids: needs exactly one mapping"),
        (|o| o.gids.clear(), "gids: needs exactly one mapping"),
        (|o| o.uids[0].container_id = 1, "uids[0].container_id"),
        (|o| o.uids[0].length = 0, "uids[0].length"),
        (|o| o.gids[0].host_id = u32::MAX, "gids[0].length"),
        (|o| o.set_mode(NamespaceMode::Container), "mode"),
        (|o| o.set_mode(NamespaceMode::Target), "mode"),
        (|o| o.set_mode(NamespaceMode::Node), "mode"),
    ] {
        refused(&of(change), Code::InvalidArgument, says);
    }
    refused(
        &with(&|o| o.set_ipc(NamespaceMode::Node)),
        Code::InvalidArgument,
        "namespace_options.ipc",
    );
    refused(
        &with(&|o| o.set_pid(NamespaceMode::Node)),
        Code::InvalidArgument,
        "namespace_options.pid",
    );
    let pod = world.pod_of(pod_config(&world, "differs"));
    for users in [None, Some(users(HOST + 1))] {
        let mut config = inside(container("c", BUSYBOX, &[]));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().userns_options = users;
        refused(&pod.try_create(config), Code::InvalidArgument, "differs from the sandbox's");
    }
    pod.end();
    let pod = world.pod("plain");
    let made = pod.try_create(inside(container("c", BUSYBOX, &[])));
    refused(&made, Code::InvalidArgument, "differs from the sandbox's");
    pod.end();
    world.finish();
}

/// The kubelet looks at the handler's features before it asks for a pod with users of its own.
#[test]
fn a_file_system_that_cannot_map_owners_is_told() {
    let mut world = World::without_daemon(e2e::Options::default());
    world.start_registry();
    let snapshots = world.path("root/snapshots").display().to_string();
    world.sh(&format!("mkdir -p {snapshots} && mount -t ramfs ramfs {snapshots}"));
    world.start_daemon();
    world.settle();
    world.pull(BUSYBOX);
    let status = world.client.status(StatusRequest::default()).unwrap();
    for handler in &status.runtime_handlers {
        assert!(!handler.features.unwrap().user_namespaces, "{handler:?}");
    }
    assert!(!status.features.unwrap().user_namespaces_host_network);
    let made = world.try_pod(pod_config(&world, "refused")).map(|pod| pod.id);
    refused(&made, Code::Unimplemented, "has no user namespaces on this node");
    let log = world.read(world.path("daemon.log"));
    assert!(log.contains("owners cannot be mapped on the file system of"), "{log}");
    // All others are as they were.
    let pod = world.pod("plain");
    let id = pod.run(container("c", BUSYBOX, &[]));
    assert_eq!(words(&world.exec(&id, "cat /proc/self/uid_map"))[1], "0");
    pod.end();
    world.finish();
}
