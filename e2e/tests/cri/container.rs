//! Containers: life, what the image and the configuration make of the process, idempotence, filters.

use e2e::World;
use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX, LAYERS, USERS, WEB};
use e2e::pod::{container, shell};
use e2e::registry::HOST;
use tonic::Code;

use crate::{NO_SUCH_ID, code, refused};

on_each_runtime! {
    fn lives_from_create_to_remove(world) {
        let image = world.pull(BUSYBOX);
        let pod = world.pod("life");
        let config = container("c", BUSYBOX, &[]);
        let id = pod.create(config.clone());
        let status = world.container_status(&id).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerCreated);
        assert_eq!((status.started_at, status.finished_at), (0, 0));
        assert_eq!(status.metadata, config.metadata);
        assert_eq!(status.labels, config.labels);
        assert_eq!(status.image.unwrap().image, BUSYBOX);
        assert_eq!(status.image_id, image);
        assert!(!status.image_ref.is_empty());
        assert!(status.log_path.ends_with("/c.log"), "{}", status.log_path);
        world.start_container(&id).unwrap();
        let status = world.container_status(&id).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerRunning);
        assert!(status.started_at >= status.created_at);
        assert_eq!(code(&world.start_container(&id)), Code::FailedPrecondition);
        world.stop_container(&id, 0).unwrap();
        let status = world.container_status(&id).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!(status.exit_code, 137);
        assert!(status.finished_at >= status.started_at);
        assert_eq!(code(&world.start_container(&id)), Code::FailedPrecondition);
        world.stop_container(&id, 0).unwrap();
        world.remove_container(&id).unwrap();
        assert_eq!(code(&world.container_status(&id)), Code::NotFound);
        world.remove_container(&id).unwrap();
        pod.end();
    }

    fn a_running_container_can_be_removed(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("remove");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let created = pod.create(container("created", BUSYBOX, &[]));
        world.remove_container(&id).unwrap();
        world.remove_container(&created).unwrap();
        let list = world.client.list_containers(ListContainersRequest::default()).unwrap();
        assert!(list.containers.is_empty());
        pod.end();
    }

    fn entrypoint_and_command_as_the_kubelet_defines_them(world) {
        let pod = world.pod("entry");
        let cases = [
            ("entrypoint", &[][..], &[][..], "from-entrypoint"),
            ("entrypoint", &[], &["arg"], "from-entrypoint arg"),
            ("cmd", &[], &[], "from-cmd"),
            ("cmd", &[], &["echo", "arg"], "arg"),
            ("both", &[], &[], "from-entrypoint from cmd"),
            ("both", &[], &["arg"], "from-entrypoint arg"),
            ("both", &["echo", "command"], &[], "command"),
            ("both", &["echo", "command"], &["arg"], "command arg"),
        ];
        for (number, (tag, command, args, prints)) in cases.into_iter().enumerate() {
            let image = format!("{HOST}/entry:{tag}");
            world.pull(&image);
            let name = format!("case-{number}");
            let mut config = container(&name, &image, command);
            config.args = args.iter().map(ToString::to_string).collect();
            world.ended(&pod.run(config));
            assert!(pod.log(&name).ends_with(&format!(" stdout F {prints}\n")), "{}", pod.log(&name));
        }
        let none = format!("{HOST}/entry:none");
        world.pull(&none);
        refused(&pod.try_create(container("none", &none, &[])), Code::InvalidArgument, "");
        pod.end();
    }

    fn environment_directory_and_hostname(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("env");
        let mut config = container("c", BUSYBOX, &[]);
        config.working_dir = "/made/here".into();
        for (key, value) in [("FROM", "request"), ("MORE", "a b=c")] {
            config.envs.push(KeyValue { key: key.into(), value: value.into() });
        }
        let id = pod.run(config);
        assert_eq!(world.exec(&id, "pwd"), "/made/here\n");
        assert_eq!(world.exec(&id, "echo $FROM:$MORE:$PATH"), "request:a b=c:/bin\n");
        assert_eq!(world.exec(&id, "hostname; cat /etc/hostname; echo $HOSTNAME"), "env\nenv\nenv\n");
        pod.end();
    }

    fn users_of_images_and_of_requests(world) {
        let pod = world.pod("users");
        for (number, (.., prints)) in USERS.iter().enumerate() {
            let image = catalogue::user_image(number);
            world.pull(&image);
            let id = pod.run(container(&format!("user-{number}"), &image, &[]));
            let id_line = world.exec(&id, "id");
            assert_eq!(groups(&id_line), groups(prints), "image user {:?}", USERS[number].0);
        }
        let of = |name: &str, change: &dyn Fn(&mut LinuxContainerSecurityContext)| {
            let mut config = container(name, BUSYBOX, &[]);
            change(config.linux.as_mut().unwrap().security_context.as_mut().unwrap());
            config
        };
        world.pull(BUSYBOX);
        let id = pod.run(of("uid", &|security| {
            security.run_as_user = Some(Int64Value { value: 1000 });
            security.run_as_group = Some(Int64Value { value: 7 });
            security.supplemental_groups = vec![3000];
        }));
        let id_line = world.exec(&id, "id");
        assert!(id_line.starts_with("uid=1000(worker) gid=7"), "{id_line}");
        assert!(id_line.contains("3000") && id_line.contains("2000(extra)"), "{id_line}");
        let user = world.container_status(&id).unwrap().user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid), (1000, 7));
        let id = pod.run(of("name", &|security| security.run_as_username = "worker".into()));
        assert!(world.exec(&id, "id").starts_with("uid=1000(worker) gid=1001(workers)"));
        let unknown = of("unknown", &|security| security.run_as_username = "nobody-here".into());
        assert!(pod.try_create(unknown).unwrap_err().message().contains("nobody-here"));
        let group = of("group", &|security| security.run_as_group = Some(Int64Value { value: 7 }));
        assert_eq!(code(&pod.try_create(group)), Code::InvalidArgument);
        pod.end();
    }

    fn the_root_file_system_is_the_image(world) {
        world.pull(LAYERS);
        let pod = world.pod("layers");
        let id = pod.run(container("c", LAYERS, &[]));
        let ls = world.exec(&id, "cd /data; ls | sort | tr '\\n' ' '");
        let long = "long".repeat(40);
        assert_eq!(
            ls.trim(),
            format!("attributed fifo hidden link linked {long} null owned replaced")
        );
        assert_eq!(world.exec(&id, "cat /data/replaced; ls /data/hidden"), "upperabove\n");
        let numbers = world.exec(&id, "stat -c '%a %h %u:%g' /data /data/replaced /data/linked /data/owned");
        let numbers: Vec<&str> = numbers.lines().collect();
        assert!(numbers[0].starts_with("750 "));
        assert_eq!(numbers[1..], ["600 1 0:0", "644 2 0:0", "640 1 1000:1001"]);
        assert_eq!(world.exec(&id, "test -p /data/fifo && stat -c '%t:%T %F' /data/null").trim(),
            "1:3 character special file");
        world.exec(&id, "echo written > /data/new && rm /data/owned");
        let second = pod.run(container("second", LAYERS, &[]));
        assert_eq!(world.exec(&second, "ls /data/new 2>/dev/null; cat /data/owned || true"), "owned");
        pod.end();
    }

    fn a_read_only_root_and_mounts(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("mounts");
        let dir = world.path("volume");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("file"), "from the host").unwrap();
        std::os::unix::fs::symlink(&dir, world.path("volume-link")).unwrap();
        let mut config = container("c", BUSYBOX, &[]);
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().readonly_rootfs = true;
        let mount = |to: &str, from: &str, readonly: bool| Mount {
            container_path: to.into(),
            host_path: world.path(from).display().to_string(),
            readonly,
            ..Default::default()
        };
        config.mounts = vec![
            mount("/deep/er/ro", "volume", true),
            mount("/deep/er/rw", "volume-link", false),
            mount("/made", "made-by-podwright", false),
        ];
        let id = pod.run(config);
        assert_eq!(world.exec(&id, "cat /deep/er/ro/file"), "from the host");
        assert_eq!(world.try_exec(&id, &shell("touch /x"), 5).unwrap().exit_code, 1);
        assert_eq!(world.try_exec(&id, &shell("touch /deep/er/ro/x"), 5).unwrap().exit_code, 1);
        world.exec(&id, "echo to the host > /deep/er/rw/written; touch /made/x /dev/shm/x");
        assert_eq!(std::fs::read_to_string(dir.join("written")).unwrap(), "to the host\n");
        let mounts = world.container_status(&id).unwrap().mounts;
        assert_eq!(mounts.len(), 3);
        assert!(mounts.iter().any(|mount| mount.container_path == "/deep/er/ro" && mount.readonly));
        pod.end();
    }

    fn privileges(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("plain");
        let plain = pod.run(container("plain", BUSYBOX, &[]));
        assert_ne!(world.try_exec(&plain, &shell("mount -t tmpfs x /tmp"), 5).unwrap().exit_code, 0);
        assert_eq!(world.exec(&plain, "grep CapEff /proc/self/status"), "CapEff:\t00000000a80425fb\n");
        let mut config = container("dropped", BUSYBOX, &[]);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.no_new_privs = true;
        security.capabilities = Some(Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        });
        let dropped = pod.run(config);
        let status = world.exec(&dropped, "grep -E 'CapEff|NoNewPrivs' /proc/self/status");
        assert_eq!(status, "CapEff:\t0000000000001000\nNoNewPrivs:\t1\n");
        let mut config = container("privileged", BUSYBOX, &[]);
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        assert!(pod.try_create(config.clone()).is_err(), "the sandbox is not privileged");
        let mut sandbox = e2e::pod::sandbox(world, "privileged");
        sandbox.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let privileged = world.pod_of(sandbox);
        let id = privileged.run(config);
        world.exec(&id, "mount -t tmpfs x /tmp && test -e /dev/kmsg");
        privileged.end();
        pod.end();
    }
}

/// `id`'s line as (who, the set of groups); one that names only its own group may leave the list out.
fn groups(line: &str) -> (String, Vec<String>) {
    let line = line.trim();
    let (who, list) = line.split_once(" groups=").unwrap_or((line, ""));
    let own = who.split(" gid=").nth(1).unwrap_or_default().to_owned();
    let mut list: Vec<String> = list.split(',').map(str::to_owned).collect();
    list.retain(|group| !group.is_empty() && *group != own);
    list.sort();
    (who.to_owned(), list)
}

fn list(world: &World, filter: ContainerFilter) -> Vec<String> {
    let request = ListContainersRequest { filter: Some(filter) };
    let mut ids: Vec<String> = world
        .client
        .list_containers(request)
        .unwrap()
        .containers
        .into_iter()
        .map(|c| c.id)
        .collect();
    ids.sort();
    ids
}

#[test]
fn filters_and_prefixes() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("filters");
    let other = world.pod("other");
    let running = pod.run(container("running", BUSYBOX, &[]));
    let created = pod.create(container("created", BUSYBOX, &[]));
    let elsewhere = other.create(container("running", BUSYBOX, &[]));
    let of_pod = ContainerFilter { pod_sandbox_id: pod.id[..10].to_owned(), ..Default::default() };
    let mut both = [running.clone(), created.clone()];
    both.sort();
    assert_eq!(list(&world, of_pod.clone()), both);
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() });
    assert_eq!(list(&world, ContainerFilter { state, ..of_pod }), [running.as_str()]);
    let label_selector = [("container".to_owned(), "running".to_owned())].into();
    let mut labelled = [running.clone(), elsewhere.clone()];
    labelled.sort();
    assert_eq!(list(&world, ContainerFilter { label_selector, ..Default::default() }), labelled);
    let short = running[..12].to_owned();
    assert_eq!(list(&world, ContainerFilter { id: short.clone(), ..Default::default() }).len(), 1);
    assert_eq!(world.container_status(&short).unwrap().id, running);
    assert_eq!(world.exec(&short, "echo short"), "short\n");
    pod.end();
    other.end();
    world.finish();
}

#[test]
fn unknown_ids() {
    let world = World::start(e2e::Options::default());
    let id = NO_SUCH_ID;
    refused(&world.container_status(id), Code::NotFound, ": not found");
    refused(&world.start_container(id), Code::NotFound, ": not found");
    refused(&world.try_exec(id, &["true"], 1), Code::NotFound, ": not found");
    let update = UpdateContainerResourcesRequest { container_id: id.into(), ..Default::default() };
    refused(&world.client.update_container_resources(update), Code::NotFound, ": not found");
    let reopen = ReopenContainerLogRequest { container_id: id.into() };
    refused(&world.client.reopen_container_log(reopen), Code::NotFound, ": not found");
    world.stop_container(id, 1).unwrap();
    world.remove_container(id).unwrap();
    let create = CreateContainerRequest {
        pod_sandbox_id: id.into(),
        config: Some(container("c", BUSYBOX, &[])),
        sandbox_config: Some(e2e::pod::sandbox(&world, "none")),
    };
    assert_eq!(code(&world.client.create_container(create)), Code::NotFound);
    world.finish();
}

#[test]
fn wrong_configurations_leave_nothing() {
    let world = World::start(e2e::Options::default());
    let pod = world.pod("wrong");
    let missing = pod.try_create(container("c", "127.0.0.1:5000/never-pulled:1", &[]));
    refused(&missing, Code::NotFound, "never-pulled");
    world.pull(BUSYBOX);
    let nameless = ContainerConfig { metadata: None, ..container("c", BUSYBOX, &[]) };
    assert_eq!(code(&pod.try_create(nameless)), Code::InvalidArgument);
    let escaping =
        ContainerConfig { log_path: "../../escape.log".into(), ..container("c", BUSYBOX, &[]) };
    assert!(pod.try_create(escaping).is_err());
    let mut device = container("c", BUSYBOX, &[]);
    device.devices.push(Device {
        container_path: "/dev/none".into(),
        host_path: "/dev/no-such-device".into(),
        permissions: "rwm".into(),
    });
    assert!(pod.try_create(device).is_err());
    let list = world.client.list_containers(ListContainersRequest::default()).unwrap();
    assert!(list.containers.is_empty(), "{list:?}");
    pod.end();
    world.finish();
}

#[test]
fn the_same_request_gets_the_same_container() {
    let world = World::start(e2e::Options::default());
    world.pull(BUSYBOX);
    let pod = world.pod("again");
    let config = container("c", BUSYBOX, &[]);
    let first = pod.create(config.clone());
    assert_eq!(pod.create(config.clone()), first);
    let other = ContainerConfig { working_dir: "/tmp".into(), ..config.clone() };
    assert_eq!(code(&pod.try_create(other)), Code::AlreadyExists);
    let mut next = config;
    next.metadata.as_mut().unwrap().attempt = 1;
    next.log_path = "c-1.log".into();
    assert_ne!(pod.create(next), first);
    pod.end();
    world.finish();
}

#[test]
fn verbose_status_tells_pid_and_specification() {
    let world = World::start(e2e::Options::default());
    world.pull(WEB);
    let pod = world.pod("verbose");
    let id = pod.run(container("web", WEB, &[]));
    let request = ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let info = world.client.container_status(request).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["sandboxID"], pod.id.as_str());
    let pid = info["pid"].as_u64().unwrap();
    // The OCI runtime's start returns a moment before its child becomes the container's program.
    e2e::poll::eventually("the container's program is the process that was told", || {
        (world.sh(&format!("cat /proc/{pid}/comm")).trim() == "httpd").then_some(())
    });
    let cgroup = info["runtimeSpec"]["linux"]["cgroupsPath"].as_str().unwrap();
    assert!(cgroup.contains(&id), "{cgroup}");
    pod.end();
    world.finish();
}
