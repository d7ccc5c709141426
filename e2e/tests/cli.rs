//! `podwright`, the command, against the real daemon: what a user types and what comes back.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::process::Output;

use e2e::cri::{ImageSpec, ImageStatusRequest, ListContainersRequest, ListPodSandboxRequest};
use e2e::image::catalogue::{BUSYBOX, CLOCK, FOREIGN, WEB};
use e2e::{Options, World, eventually, place};

/// Runs the command in the world, on the world's daemon.
fn podwright(world: &World, arguments: &[&str]) -> Output {
    world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(world.path("state/podwright.sock"))
        .args(arguments)
        .output()
        .expect("nsenter is installed")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Stdout of a command that has to succeed.
#[track_caller]
fn says(world: &World, arguments: &[&str]) -> String {
    let output = podwright(world, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Stderr of a command that has to fail.
#[track_caller]
fn fails(world: &World, arguments: &[&str]) -> String {
    let output = podwright(world, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn nothing_is_left(world: &World) {
    let pods = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    let containers = world.client.list_containers(ListContainersRequest::default()).unwrap();
    assert!(pods.items.is_empty() && containers.containers.is_empty(), "{pods:?} {containers:?}");
    assert_eq!(world.sh("ls -A /var/log/pods"), "");
}

#[test]
fn a_pod_lives_and_ends() {
    let world = World::start(Options::default());
    let web = format!("web={WEB}");
    let clock = format!("clock={CLOCK}");
    let told = says(&world, &["run", "--name", "demo", "--container", &web, "--container", &clock]);
    assert!(
        told.lines().any(|line| line.starts_with("pod ") && line.contains(" 10.88.")),
        "{told}"
    );
    assert!(says(&world, &["pods"]).contains(" 2/2\n"));
    assert_eq!(says(&world, &["ps", "-q"]).lines().count(), 2);
    assert!(says(&world, &["images"]).contains(CLOCK));

    let lines = eventually("two lines of log", || {
        Some(says(&world, &["logs", "clock"])).filter(|log| log.lines().count() >= 2)
    });
    assert!(lines.starts_with(lines.lines().next().unwrap()));
    assert_eq!(says(&world, &["logs", "--tail", "1", "-t", "demo/clock"]).lines().count(), 1);
    let exec = podwright(&world, &["exec", "web", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let (out, err) = (text(&exec.stdout), text(&exec.stderr));
    assert_eq!((exec.status.code(), out.as_str(), err.as_str()), (Some(7), "out\n", "err\n"));

    let yaml = says(&world, &["inspect", "--output", "yaml", "demo", "web", WEB]);
    assert!(yaml.lines().filter(|line| *line == "---").count() == 3, "{yaml}");
    assert!(yaml.contains("  state: CONTAINER_RUNNING\n"), "{yaml}");
    let told: serde_json::Value = serde_json::from_str(&says(&world, &["inspect", "web"])).unwrap();
    assert_eq!(told["status"]["state"], "CONTAINER_RUNNING");
    assert!(told["info"]["pid"].as_u64().is_some_and(|pid| pid > 0), "{told:#}");

    assert!(fails(&world, &["run", "--name", "demo", BUSYBOX]).contains("a pod demo already"));
    assert!(fails(&world, &["rm", "demo"]).contains("is running"));
    assert_eq!(says(&world, &["stop", "--time", "1", "demo"]), "demo\n");
    assert!(says(&world, &["pods"]).contains(" stopped "));
    assert_eq!(says(&world, &["ps", "-q"]), "");
    assert!(says(&world, &["ps", "-a"]).contains(" exited 137 "));
    assert_eq!(says(&world, &["rm", "demo"]), "demo\n");
    nothing_is_left(&world);
    says(&world, &["rmi", WEB, CLOCK]);
    assert!(fails(&world, &["rmi", WEB]).contains("no such image"));
    world.finish();
}

#[test]
fn a_watched_pod_ends_with_its_container() {
    let world = World::start(Options::default());
    let line =
        ["run", "--rm", "-e", "A=b", BUSYBOX, "--", "sh", "-c", "echo $A; echo e >&2; exit 5"];
    let output = podwright(&world, &line);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(text(&output.stdout), "b\n");
    assert!(text(&output.stderr).ends_with("\ne\n"), "{}", text(&output.stderr));
    nothing_is_left(&world);
    world.finish();
}

#[test]
fn a_registry_is_explained() {
    let world = World::start(Options::default());
    let registry = BUSYBOX.split('/').next().unwrap();
    let dir = world.path("certs.d").join(registry);
    std::fs::create_dir_all(&dir).unwrap();
    let hosts = format!("server = \"http://{registry}\"\n[host.\"http://127.0.0.1:1\"]\n");
    std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    let told = says(&world, &["registry", "explain", "--json", BUSYBOX]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let [mirror, server] = told["endpoints"].as_array().unwrap().as_slice() else {
        panic!("{told:#}")
    };
    let from = |endpoint: &serde_json::Value| endpoint["from"].as_str().unwrap().to_owned();
    assert!(from(mirror).ends_with("hosts.toml:2") && from(server).ends_with("hosts.toml:1"));
    assert!(mirror["failure"].as_str().unwrap().contains("refused"), "{told:#}");
    assert!(server["digest"].as_str().unwrap().starts_with("sha256:"), "{told:#}");
    let text = says(&world, &["registry", "explain", BUSYBOX]);
    assert!(text.contains("2. http://") && text.contains("the registry's server"), "{text}");
    std::fs::write(dir.join("hosts.toml"), "server = 7\n").unwrap();
    let err = fails(&world, &["registry", "explain", BUSYBOX]);
    assert!(err.contains("hosts.toml:1: server: needs a URL"), "{err}");
    assert!(fails(&world, &["registry", "explain", "A B"]).contains("invalid image reference"));
    world.finish();
}

#[test]
fn what_fails_is_told_and_undone() {
    let world = World::start(Options::default());
    assert!(fails(&world, &["run", BUSYBOX, "/nope"]).contains("starting busybox: "));
    assert!(fails(&world, &["run", FOREIGN]).contains(FOREIGN));
    assert!(fails(&world, &["run", "--runtime", "nope", BUSYBOX]).contains("nope"));
    assert!(fails(&world, &["exec", "nope", "true"]).contains("no such container: nope"));
    assert!(fails(&world, &["exec", "-i", "nope", "sh"]).contains("no such container: nope"));
    assert!(fails(&world, &["attach", "nope"]).contains("no such container: nope"));
    assert!(fails(&world, &["port-forward", "nope", "80"]).contains("nope"));
    nothing_is_left(&world);
    world.finish();
}

/// Runs a shell line with the command as `$P`.
fn shell(world: &World, line: &str) -> Output {
    let (program, socket) = (place::binary("podwright"), world.path("state/podwright.sock"));
    let (program, socket) = (program.display(), socket.display());
    world.try_sh(&format!("P='{program} --socket {socket}'; {line}"))
}

#[test]
fn commands_take_input_and_a_terminal() {
    let world = World::start(Options::default());
    says(&world, &["run", "--name", "demo", BUSYBOX]);
    let output =
        shell(&world, "printf hello | $P exec -i demo sh -c 'wc -c; echo err >&2; exit 9'");
    assert_eq!(
        (output.status.code(), text(&output.stdout), text(&output.stderr)),
        (Some(9), "5\n".into(), "err\n".into())
    );
    // More than all buffers on the way, there and back.
    let output = shell(&world, "busybox head -c 30000000 /dev/zero | $P exec -i demo cat | wc -c");
    assert_eq!(text(&output.stdout), "30000000\n");
    assert!(text(&shell(&world, "$P exec -it demo sh </dev/null").stderr).contains("leave out -t"));
    // `script` gives it a terminal, which has to be as it was afterwards.
    let line = "script -qec \"stty -a > before; $P exec -it demo sh -c 'tty; stty size; exit 4'; echo code \\$?; stty -a > after; cmp before after && echo same\" /dev/null";
    let dir = world.path("terminal");
    std::fs::create_dir_all(&dir).unwrap();
    let output = shell(&world, &format!("cd {}; {line}", dir.display()));
    let told = text(&output.stdout);
    assert!(
        told.contains("/dev/pts/") && told.contains("code 4") && told.contains("same"),
        "{told} {}",
        text(&output.stderr)
    );
    says(&world, &["rm", "-f", "demo"]);
    nothing_is_left(&world);
    world.finish();
}

#[test]
fn files_are_copied_and_ports_reached() {
    let world = World::start(Options::default());
    says(&world, &["run", "--name", "demo", WEB]);
    let dir = world.path("files");
    std::fs::create_dir_all(dir.join("tree/below")).unwrap();
    std::fs::write(dir.join("tree/below/a file"), "deep").unwrap();
    std::fs::write(dir.join("one"), vec![7; 3_000_000]).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    says(&world, &["cp", &at("one"), "demo:/tmp/two"]);
    says(&world, &["cp", "demo:/tmp/two", &at("three")]);
    assert!(std::fs::read(dir.join("three")).unwrap() == vec![7; 3_000_000]);
    says(&world, &["cp", &at("tree"), "demo:/tmp"]);
    says(&world, &["cp", "demo:/tmp/tree", &at("back")]);
    assert_eq!(std::fs::read_to_string(dir.join("back/below/a file")).unwrap(), "deep");
    assert!(fails(&world, &["cp", "a", "b"]).contains("CONTAINER:PATH"));
    let missing = podwright(&world, &["cp", "demo:/no/such", &at("x")]);
    assert!(!missing.status.success());
    assert!(
        std::fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    );

    let forwarding = world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(world.path("state/podwright.sock"))
        .args(["port-forward", "demo", "18080:80", "18081:81"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the port to be open", || {
        (world.listens(18080) && world.listens(18081)).then_some(())
    });
    for _ in 0..3 {
        let got = world.sh("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc 127.0.0.1 18080");
        assert!(got.ends_with("hello from podwright\n"), "{got}");
    }
    world.sh("printf x | busybox nc 127.0.0.1 18081");
    world.sh("kill -INT $(busybox pidof podwright)");
    let output = forwarding.wait_with_output().unwrap();
    assert!(text(&output.stderr).contains("connect: "), "{}", text(&output.stderr));
    says(&world, &["rm", "-f", "demo"]);
    nothing_is_left(&world);
    world.finish();
}

#[test]
fn a_daemon_that_does_not_run_is_told() {
    let world = World::without_daemon(Options::default());
    let told = fails(&world, &["ps"]);
    assert!(
        told.contains("podwrightd is not running at ") && told.contains("start it with"),
        "{told}"
    );
}

fn status(world: &World, image: &str) -> Option<e2e::cri::Image> {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    world.client.image_status(ImageStatusRequest { image, verbose: false }).unwrap().image
}

#[test]
fn images_go_out_and_come_in_as_archives() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let was = status(&world, BUSYBOX).unwrap();
    let archive = world.path("busybox.tar");
    let archive = archive.to_str().unwrap();
    says(&world, &["image", "export", BUSYBOX, archive]);
    assert!(fails(&world, &["image", "export", "none:1", archive]).contains("not found"));
    world.remove_image(BUSYBOX);

    let told = says(&world, &["image", "import", archive]);
    assert_eq!(told.split_whitespace().take(2).collect::<Vec<_>>(), [BUSYBOX, was.id.as_str()]);
    assert_eq!(status(&world, BUSYBOX), Some(was.clone()), "as it was pulled");

    // Compressed; as a directory, under another name; from a pipe.
    let dir = world.path("layout");
    let dir = dir.to_str().unwrap();
    world.sh(&format!("mkdir {dir} && tar -C {dir} -xf {archive} && gzip -k {archive}"));
    says(&world, &["image", "import", &format!("{archive}.gz")]);
    says(&world, &["image", "import", "--name", "local/box:2", dir]);
    let command = place::binary("podwright");
    let socket = world.path("state/podwright.sock");
    let (command, socket) = (command.display(), socket.display());
    world.sh(&format!("{command} --socket {socket} image import --name piped - < {archive}"));
    let now = status(&world, "piped").unwrap();
    assert_eq!(now.id, was.id);
    let names = [BUSYBOX, "docker.io/local/box:2", "docker.io/library/piped:latest"];
    assert_eq!(now.repo_tags, names);
    let told = fails(&world, &["image", "import", &format!("{archive}.none")]);
    assert!(told.contains("reading "), "{told}");
    let told = fails(&world, &["image", "import", "/etc/passwd"]);
    assert!(told.contains("the archive is refused"), "{told}");

    // What lies in the import directory comes by itself.
    world.remove_image(&was.id);
    let import = world.path("root/import");
    let import = import.display();
    world.sh(&format!("mkdir {import} && echo no > {import}/broken.tar && cp {archive} {import}/"));
    eventually("the import", || status(&world, BUSYBOX));
    says(&world, &["run", "--name", "imported", "--container", &format!("c={BUSYBOX}")]);
    says(&world, &["rm", "-f", "imported"]);
    world.remove_image(BUSYBOX);
    world.finish();
}

#[test]
fn pinned_images_are_told_to_the_kubelet() {
    let config = "[image]\npinned = [\"127.0.0.1:5000/busybox:*\"]\n".to_owned();
    let world = World::start(Options { config, ..Default::default() });
    world.pull(BUSYBOX);
    world.pull(WEB);
    assert!(status(&world, BUSYBOX).unwrap().pinned);
    assert!(!status(&world, WEB).unwrap().pinned);
    world.remove_image(BUSYBOX);
    assert_eq!(status(&world, BUSYBOX), None, "whoever removes it by name is obeyed");
    world.finish();
}

#[test]
fn usage_and_events_are_shown() {
    let world = World::start(Options::default());
    let mut listener = world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(world.path("state/podwright.sock"))
        .arg("events")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(listener.stdout.take().unwrap()));
    // It says nothing of what was before it, so pods are made until it speaks.
    let said = std::thread::spawn(move || {
        lines.map_while(Result::ok).find(|line| line.contains(" stopped (exited 3)"))
    });
    eventually("an event", || {
        podwright(&world, &["run", "--rm", BUSYBOX, "--", "sh", "-c", "exit 3"]);
        said.is_finished().then_some(())
    });
    assert!(said.join().unwrap().is_some());
    listener.kill().unwrap();
    listener.wait().unwrap();
    says(&world, &["run", "--name", "busy", "--container", &format!("web={WEB}")]);
    let told = says(&world, &["stats", "--once"]);
    assert!(told.lines().any(|line| line.contains(" web ") && line.contains(" busy ")), "{told}");
    let told: serde_json::Value =
        serde_json::from_str(&says(&world, &["stats", "--json"])).unwrap();
    assert!(told["stats"][0]["memory"]["workingSetBytes"]["value"].is_string(), "{told:#}");
    says(&world, &["rm", "--force", "busy"]);
    nothing_is_left(&world);
    world.finish();
}

/// What `podwright doctor` tells: about what, its verdict, and the text.
fn doctor(world: &World) -> Vec<(String, String, String)> {
    let output = podwright(world, &["doctor", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let field = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap().to_owned();
    let all = told.as_array().unwrap().iter();
    let all: Vec<_> =
        all.map(|one| (field(one, "about"), field(one, "verdict"), field(one, "text"))).collect();
    let to_fix = all.iter().any(|(_, verdict, _)| verdict == "fix");
    assert_eq!(output.status.code(), Some(i32::from(to_fix)), "{all:#?}");
    all
}

#[test]
fn a_node_is_examined_with_a_daemon_and_without() {
    let mut world = World::start(Options::default());
    world.pull(BUSYBOX);
    let told = doctor(&world);
    let about = |told: &[(String, String, String)], what: &str| -> (String, String) {
        let one = told.iter().find(|(about, ..)| about == what);
        let (_, verdict, said) = one.unwrap_or_else(|| panic!("nothing about {what}: {told:#?}"));
        (verdict.clone(), said.clone())
    };
    assert_eq!(about(&told, "daemon").0, "ok", "{told:#?}");
    let (verdict, said) = about(&told, "network");
    assert!(verdict == "ok" && said.contains("bridge, host-local"), "{told:#?}");
    let (verdict, said) = about(&told, "runtime");
    assert!(verdict == "ok" && said.contains("crun version"), "{told:#?}");
    assert!(told.iter().any(|(.., said)| said.contains("the default, ")), "{told:#?}");
    let (verdict, said) = about(&told, "registry");
    assert!(verdict == "ok" && said.contains(BUSYBOX), "{told:#?}");
    let lines = text(&podwright(&world, &["doctor", FOREIGN]).stdout);
    assert!(lines.lines().any(|line| line.starts_with("ok       daemon ")), "{lines}");
    assert!(lines.contains(&format!(" has {FOREIGN}")), "{lines}");

    std::fs::remove_file(world.path("cni/conf/10-pods.conflist")).unwrap();
    let told = doctor(&world);
    assert_eq!(about(&told, "network").0, "fix", "{told:#?}");

    world.end_daemon(rustix::process::Signal::TERM);
    let told = doctor(&world);
    let (verdict, said) = about(&told, "daemon");
    assert!(verdict == "fix" && said.contains("podwrightd is not running at "), "{told:#?}");
    for what in ["cgroup", "kernel", "overlay", "disk", "clock"] {
        about(&told, what);
    }
    world.start_daemon();
    world.remove_image(BUSYBOX);
    world.finish();
}

/// Runs `podwright top` on a terminal of its own, with that typed; what was on the terminal, and whether it is as it
/// was before.
fn top(world: &World, typed: &str, meanwhile: impl FnOnce()) -> (String, bool) {
    let dir = world.path("terminal");
    std::fs::create_dir_all(&dir).unwrap();
    let (program, socket) = (place::binary("podwright"), world.path("state/podwright.sock"));
    let line = format!(
        "stty cols 100 rows 20; stty -a >before; {} --socket {} top; echo code $?; stty -a >after",
        program.display(),
        socket.display()
    );
    let mut script = world
        .command("sh")
        .args([
            "-c",
            &format!("cd {} && exec script -qfec '{line}' seen >/dev/null", dir.display()),
        ])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = script.stdin.take().unwrap();
    std::io::Write::write_all(&mut keys, typed.as_bytes()).unwrap();
    meanwhile();
    script.wait().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let seen = text(&std::fs::read(dir.join("seen")).unwrap());
    (seen, read("before") == read("after") && !read("before").is_empty())
}

#[test]
fn top_shows_pods_and_leaves_the_terminal_as_it_was() {
    let world = World::start(Options::default());
    says(&world, &["run", "--name", "busy", "--container", &format!("web={WEB}")]);
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    let (seen, same) = top(&world, "mq", || ());
    assert!(seen.contains("busy") && seen.contains("pods 1  containers 1"), "{seen:?}");
    assert!(seen.contains(enter) && seen.contains("code 0"), "{seen:?}");
    assert!(same && seen.rfind(leave) > seen.rfind(enter), "{seen:?}");
    // Ended by a signal, once it is there.
    let shown = || {
        let seen = std::fs::read(world.path("terminal/seen")).unwrap_or_default();
        text(&seen).contains(enter).then_some(())
    };
    std::fs::remove_file(world.path("terminal/seen")).unwrap();
    let (seen, same) = top(&world, "", || {
        eventually("the screen", shown);
        world.sh("kill -TERM $(busybox pidof podwright)");
    });
    assert!(same && seen.contains("code 0") && seen.rfind(leave) > seen.rfind(enter), "{seen:?}");
    assert!(fails(&world, &["top"]).contains("needs a terminal"));
    says(&world, &["rm", "--force", "busy"]);
    nothing_is_left(&world);
    world.finish();
}
