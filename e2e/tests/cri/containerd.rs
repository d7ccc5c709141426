//! containerd's interface, as those see it who look for a containerd: `ctr` itself, and cAdvisor by its calls.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use e2e::containerd::containers::containers_client::ContainersClient;
use e2e::containerd::containers::{Container, GetContainerRequest};
use e2e::containerd::tasks::tasks_client::TasksClient;
use e2e::containerd::tasks::{GetRequest, WaitRequest, WaitResponse};
use e2e::containerd::version::version_client::VersionClient;
use e2e::cri::NamespaceMode;
use e2e::image::catalogue::{BUSYBOX, MULTI};
use e2e::pod::{self, Pod, container, namespaces, shell};
use e2e::{Options, World, eventually};
use serde_json::Value;
use tonic::{Code, Request, Status};

use super::NO_SUCH_ID;

/// What cAdvisor gives a call.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks for a task that is not there yet.
const TRIES: u32 = 5;

/// Into the namespace that the kubelet's flags name.
fn within<T>(mut request: Request<T>, namespace: &str) -> Request<T> {
    request.metadata_mut().insert(e2e::containerd::NAMESPACE, namespace.parse().unwrap());
    request
}

fn load(world: &World, id: &str) -> Result<Container, Status> {
    let request = GetContainerRequest { id: id.into() };
    let answer = world.client.timed(PATIENCE, request, |channel, request| async move {
        ContainersClient::new(channel).get(within(request, "k8s.io")).await
    });
    answer.map(|answer| answer.container.expect("a container"))
}

fn task_pid(world: &World, id: &str) -> Result<u32, Status> {
    let request = GetRequest { container_id: id.into(), exec_id: String::new() };
    let answer = world.client.timed(PATIENCE, request, |channel, request| async move {
        TasksClient::new(channel).get(within(request, "k8s.io")).await
    });
    answer.map(|answer| answer.process.expect("a process").pid)
}

/// A pod as the kubelet labels it.
fn labelled<'w>(world: &'w World, name: &str, pid: NamespaceMode) -> Pod<'w> {
    let mut config = pod::sandbox(world, name);
    config.labels.insert("io.kubernetes.pod.name".into(), name.into());
    config.labels.insert("io.kubernetes.pod.namespace".into(), "tests".into());
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options =
        Some(namespaces(NamespaceMode::Pod, pid));
    world.pod_of(config)
}

fn run(pod: &Pod<'_>, name: &str, line: &str) -> String {
    let mut config = container(name, BUSYBOX, &shell(line));
    config.labels.insert("io.kubernetes.container.name".into(), name.into());
    let value = b"of the container".to_vec();
    config.envs.push(e2e::cri::KeyValue { key: "WATCHED_ONE".into(), value });
    pod.run(config)
}

/// The handler that cAdvisor makes of a cgroup: what it reads, in its order.
struct Handler {
    labels: BTreeMap<String, String>,
    image: String,
    env: Vec<String>,
    pid: u32,
    /// Lines of the network's counters, which it reads for sandboxes alone.
    network: Option<String>,
}

fn handle(world: &World, cgroup: &str) -> Handler {
    let id = id_of(cgroup).expect("a container's cgroup");
    // It asks first whether it can, and then again.
    load(world, id).unwrap();
    let found = load(world, id).unwrap();
    let spec: Value = serde_json::from_slice(&found.spec.expect("a spec").value).unwrap();
    let mut pause = Duration::from_millis(100);
    let pid = (1..=TRIES).find_map(|nth| match task_pid(world, id) {
        Ok(pid) => Some(pid),
        Err(status) => {
            assert!(status.code() == Code::NotFound && nth < TRIES, "{status}");
            std::thread::sleep(pause);
            pause *= 2;
            None
        }
    });
    let pid = pid.expect("a task");
    // It does not ask whether there is a process in the spec.
    let process = spec["process"].as_object().expect("a process");
    let env = process.get("env").and_then(Value::as_array).into_iter().flatten();
    let env = env.filter_map(Value::as_str).filter(|one| one.starts_with("WATCHED_"));
    let is_sandbox = found.labels["io.cri-containerd.kind"] == "sandbox";
    Handler {
        env: env.map(str::to_owned).collect(),
        network: is_sandbox.then(|| world.sh(&format!("cat /proc/{pid}/net/dev"))),
        labels: found.labels,
        image: found.image,
        pid,
    }
}

/// The 64 digits by which it takes a cgroup for a container's.
fn id_of(cgroup: &str) -> Option<&str> {
    let name = cgroup.rsplit('/').next()?;
    let part = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split(part).find(|part| part.len() == 64)
}

/// The cgroups below the world's by those digits, each in one of the hierarchies in which it holds something.
fn cgroups(world: &World) -> BTreeMap<String, String> {
    let found = world.sh(&format!("find /sys/fs/cgroup -type d -path '*/{}/*'", world.cgroup()));
    let holds = |path: &&str| !world.try_sh(&format!("cat {path}/cgroup.procs")).stdout.is_empty();
    let of = |path: &str| Some((id_of(path)?.to_owned(), path.to_owned()));
    found.lines().filter(holds).filter_map(of).collect()
}

#[test]
fn cadvisor_knows_whose_every_cgroup_is() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let request = Request::new(());
    let version = world.client.timed(PATIENCE, (), |channel, _| async move {
        VersionClient::new(channel).version(within(request, "k8s.io")).await
    });
    assert_eq!(version.unwrap().revision, "podwright");
    let pods = [
        labelled(&world, "shared", NamespaceMode::Pod),
        labelled(&world, "apart", NamespaceMode::Container),
    ];
    let all: Vec<(String, &Pod<'_>, &str)> = pods
        .iter()
        .flat_map(|pod| ["one", "two"].map(|name| (run(pod, name, "exec sleep 10000"), pod, name)))
        .collect();
    let known = cgroups(&world);
    for (id, pod, name) in &all {
        let cgroup = &known[id];
        let handler = handle(&world, cgroup);
        let pod_name = &pod.config.metadata.as_ref().unwrap().name;
        assert_eq!(handler.labels["io.cri-containerd.kind"], "container");
        assert_eq!(&handler.labels["io.kubernetes.container.name"], name);
        assert_eq!((handler.image.as_str(), handler.network), (BUSYBOX, None));
        assert_eq!(handler.env, ["WATCHED_ONE=of the container"]);
        let inside = world.sh(&format!("cat {cgroup}/cgroup.procs"));
        assert!(
            inside.lines().any(|pid| pid == handler.pid.to_string()),
            "{} {inside}",
            handler.pid
        );
        // Its pod's name it has of the labels of the pod, which the kubelet gives containers as well.
        let sandbox = load(&world, &pod.id).unwrap();
        assert_eq!(&sandbox.labels["io.kubernetes.pod.name"], pod_name);
        assert_eq!(load(&world, id).unwrap().sandbox, pod.id);
    }
    // A pod with a process of its own has a cgroup by which it is found, and its network with it.
    let sandbox = handle(&world, &known[&pods[0].id]);
    assert_eq!(sandbox.labels["io.kubernetes.pod.name"], "shared");
    let network = sandbox.network.unwrap();
    assert!(network.contains("eth0:") && network.contains("lo:"), "{network}");
    // Any other cgroup that looks like a container's is not ours.
    assert_eq!(load(&world, NO_SUCH_ID).unwrap_err().code(), Code::NotFound);
    assert_eq!(load(&world, &all[0].0[..13]).unwrap_err().code(), Code::NotFound, "no beginnings");
    pods.into_iter().for_each(Pod::end);
    world.finish();
}

fn wait(world: &World, id: &str) -> Result<WaitResponse, Status> {
    let request = WaitRequest { container_id: id.into(), exec_id: String::new() };
    world.client.timed(Duration::from_secs(30), request, |channel, request| async move {
        TasksClient::new(channel).wait(within(request, "k8s.io")).await
    })
}

#[test]
fn a_task_is_there_while_it_runs() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pod = labelled(&world, "tasks", NamespaceMode::Container);
    let missing = |id: &str| assert_eq!(task_pid(&world, id).unwrap_err().code(), Code::NotFound);
    missing(&pod.id);
    let id =
        pod.create(container("c", BUSYBOX, &shell("while [ ! -e /stop ]; do :; done; exit 3")));
    missing(&id);
    assert_eq!(wait(&world, &id).unwrap_err().code(), Code::NotFound);
    assert_eq!(load(&world, &id).unwrap().snapshot_key, id);
    world.start_container(&id).unwrap();
    let pid = task_pid(&world, &id).unwrap();
    assert_eq!(task_pid(&world, &pod.id).unwrap(), pid, "a process by which its network is found");
    let exit = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&world, &id));
        world.exec(&id, "touch /stop");
        waiting.join().unwrap()
    });
    // Whoever asks too late learns that there is none.
    if let Ok(exit) = exit {
        let ended = world.ended(&id);
        let at = exit.exited_at.unwrap();
        assert_eq!((exit.exit_status, at.seconds), (3, ended.finished_at / 1_000_000_000));
    }
    world.ended(&id);
    missing(&id);
    missing(&pod.id);
    load(&world, &id).unwrap();
    world.remove_container(&id).unwrap();
    assert_eq!(load(&world, &id).unwrap_err().code(), Code::NotFound);
    let request = GetContainerRequest { id: pod.id.clone() };
    let unnamed = world.client.timed(PATIENCE, request.clone(), |channel, request| async move {
        ContainersClient::new(channel).get(request).await
    });
    assert_eq!(unnamed.unwrap_err().code(), Code::FailedPrecondition);
    let other = world.client.timed(PATIENCE, request, |channel, request| async move {
        ContainersClient::new(channel).get(within(request, "moby")).await
    });
    assert_eq!(other.unwrap_err().code(), Code::NotFound);
    pod.end();
    world.finish();
}

/// containerd's own client in a world.
struct Ctr<'w>(&'w World);

impl Ctr<'_> {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.0.command(self.0.ctr().expect("unpacked by e2e/ctr"));
        command.arg("--address").arg(self.0.path("state/podwright.sock"));
        command.args(["--namespace", "k8s.io"]).args(arguments);
        command
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn is_refused(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && err.contains("changes them by CRI alone"), "{err}");
    }
}

/// Runs `test` with a client, if there is one.
fn with_ctr(test: impl FnOnce(&World, &Ctr<'_>)) {
    let world = World::start(Options::default());
    if world.ctr().is_none() {
        return eprintln!("skipped: no ctr; ./dev test unpacks it");
    }
    world.pull(BUSYBOX);
    test(&world, &Ctr(&world));
    world.finish();
}

fn sorted(lines: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn ctr_sees_what_cri_made_and_changes_nothing() {
    with_ctr(|world, ctr| {
        let pod = labelled(world, "seen", NamespaceMode::Pod);
        let id = run(&pod, "c", "exec sleep 10000");
        let created = pod.create(container("later", BUSYBOX, &shell("exit 0")));
        let told = ctr.says(&["version"]);
        assert!(told.contains("Revision: podwright") && told.contains("UUID: "), "{told}");
        assert_eq!(ctr.says(&["namespaces", "ls", "-q"]), "k8s.io\n");
        let mut all = [&pod.id, &id, &created].map(String::as_str);
        all.sort_unstable();
        assert_eq!(sorted(&ctr.says(&["containers", "ls", "-q"])), all);
        assert_eq!(ctr.says(&["--namespace", "moby", "containers", "ls", "-q"]), "");
        let kind = r#"labels."io.cri-containerd.kind"==sandbox"#;
        assert_eq!(ctr.says(&["containers", "ls", "-q", kind]), format!("{}\n", pod.id));
        let told = ctr.says(&["containers", "ls"]);
        let line = told.lines().find(|line| line.starts_with(&id)).expect("the container");
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, [&id, BUSYBOX, "io.containerd.runc.v2"]);
        described(&ctr.says(&["containers", "info", &id]), &id);
        described(&ctr.says(&["containers", "info", &pod.id]), &pod.id);
        let told = ctr.says(&["tasks", "ls"]);
        let pids: BTreeMap<&str, &str> = told
            .lines()
            .filter_map(|line| line.strip_suffix("RUNNING")?.split_once(' '))
            .map(|(id, pid)| (id, pid.trim()))
            .collect();
        assert_eq!(pids.len(), 2, "{told}");
        assert_eq!(world.sh(&format!("cat /proc/{}/comm", pids[id.as_str()])), "sleep\n");
        assert!(ctr.says(&["plugins", "ls"]).contains("io.containerd.grpc.v1"));
        ctr.is_refused(&["tasks", "kill", &id]);
        ctr.is_refused(&["containers", "rm", &created]);
        ctr.is_refused(&["containers", "label", &created, "a=b"]);
        ctr.is_refused(&["images", "rm", BUSYBOX]);
        ctr.is_refused(&["namespaces", "create", "another"]);
        ctr.is_refused(&["snapshots", "ls"]);
        assert_eq!(world.exec(&id, "echo there"), "there\n");
        pod.end();
    });
}

/// What `ctr containers info` tells of a container or sandbox.
fn described(told: &str, id: &str) {
    let told: Value = serde_json::from_str(told).unwrap_or_else(|err| panic!("{err}: {told}"));
    let labels = &told["Labels"];
    assert_eq!(
        (told["ID"].as_str(), told["Spec"]["process"]["cwd"].as_str()),
        (Some(id), Some("/"))
    );
    assert!(!told["CreatedAt"].as_str().unwrap().starts_with("0001"), "{told:#}");
    let (kind, name) = match labels["io.cri-containerd.kind"].as_str() {
        Some("container") => (labels["io.kubernetes.container.name"].as_str(), "c"),
        _ => (labels["io.kubernetes.pod.name"].as_str(), "seen"),
    };
    assert_eq!(kind, Some(name), "{told:#}");
    assert_eq!(told["Runtime"]["Name"], "io.containerd.runc.v2");
}

#[test]
fn ctr_reads_images_and_their_content() {
    with_ctr(|world, ctr| {
        world.pull(MULTI);
        let told = ctr.says(&["images", "ls"]);
        for name in [BUSYBOX, MULTI] {
            let line = told.lines().find(|line| line.starts_with(&format!("{name} ")));
            let fields: Vec<&str> =
                line.unwrap_or_else(|| panic!("{told}")).split_whitespace().collect();
            let (media_type, digest) = (fields[1], fields[2]);
            let bytes = ctr.command(&["content", "get", digest]).output().unwrap().stdout;
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(document["mediaType"], media_type, "{document:#}");
            let hex = digest.strip_prefix("sha256:").unwrap();
            assert!(
                world
                    .sh(&format!(
                        "sha256sum $(find {} -name {hex})",
                        world.path("root/images").display()
                    ))
                    .starts_with(hex)
            );
            assert!(fields[5].contains("linux/"), "its platforms: {line:?}");
            let listed = ctr.says(&["content", "ls"]);
            let line = listed.lines().find(|line| line.starts_with(digest)).expect("its digest");
            let repository = name.split(['/', ':']).nth(2).unwrap();
            let label = "containerd.io/distribution.source.127.0.0.1:5000=";
            let (_, sources) = line.split_once(label).expect("where it came from");
            assert!(sources.split(',').any(|one| one.trim() == repository), "{line}");
        }
        let only = ctr.says(&["images", "ls", "-q", &format!("name=={MULTI}")]);
        assert_eq!(only, format!("{MULTI}\n"));
        world.remove_image(MULTI);
    });
}

#[test]
fn ctr_hears_what_happens() {
    with_ctr(|world, ctr| {
        let pod = labelled(world, "heard", NamespaceMode::Container);
        let mut listening =
            ctr.command(&["events"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let stdout = BufReader::new(listening.stdout.take().unwrap());
        let reading = std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        // It says nothing of what was before it: containers are made until it speaks.
        let mut heard: Vec<String> = Vec::new();
        eventually("an event", || {
            let early = pod.create(container("early", BUSYBOX, &shell("exit 0")));
            world.remove_container(&early).unwrap();
            heard.extend(lines.try_iter());
            (!heard.is_empty()).then_some(())
        });
        let id = run(&pod, "c", "exit 3");
        world.ended(&id);
        world.remove_container(&id).unwrap();
        let sandbox = pod.id.clone();
        pod.end();
        eventually("the pod's end", || {
            heard.extend(lines.try_iter());
            let is_last =
                |line: &String| line.contains("/containers/delete") && line.contains(&sandbox);
            heard.iter().any(is_last).then_some(())
        });
        let of: Vec<&String> = heard.iter().filter(|line| line.contains(&id)).collect();
        let topics: Vec<&str> = of.iter().filter_map(|line| topic(line)).collect();
        let expected = [
            "/containers/create",
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete",
            "/containers/delete",
        ];
        assert_eq!(topics, expected, "{heard:#?}");
        assert!(of.iter().all(|line| line.contains(" k8s.io ")), "{of:#?}");
        let body = |at: usize| -> Value {
            serde_json::from_str(&of[at][of[at].find('{').unwrap()..]).unwrap()
        };
        assert_eq!((&body(0)["image"], &body(3)["exit_status"]), (&BUSYBOX.into(), &3.into()));
        assert_eq!(body(2)["pid"], body(3)["pid"], "who started ended");
        assert!(body(3)["pid"].as_u64().unwrap() > 0);
        world.sh("kill $(busybox pidof ctr)");
        listening.wait().unwrap();
        reading.join().unwrap();
    });
}

fn topic(line: &str) -> Option<&str> {
    line.split(' ').find(|word| word.starts_with('/'))
}
