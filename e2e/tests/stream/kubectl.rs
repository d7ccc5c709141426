//! kubectl itself, over SPDY and over WebSocket where it speaks that.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use e2e::image::catalogue::BUSYBOX;
use e2e::kube::Kube;
use e2e::pod::{container, shell};
use e2e::{World, eventually};

use crate::world;

/// The first that speaks WebSocket by default, minor version of 1.
const WEBSOCKETS_SINCE: u32 = 31;

/// One kubectl of each minor version there is: its program, its version, and that minor one.
fn kubectls(world: &World) -> Vec<(PathBuf, String, u32)> {
    let mut found: Vec<(PathBuf, String, u32)> = Vec::new();
    for program in world.kubectls().into_iter().chain(["kubectl".into()]) {
        let asked = Command::new(&program).args(["version", "--client", "-o", "json"]).output();
        let Ok(told) = asked else { continue };
        let Ok(told) = serde_json::from_slice::<serde_json::Value>(&told.stdout) else { continue };
        let told = &told["clientVersion"];
        let (version, minor) = (told["gitVersion"].to_string(), told["minor"].as_str());
        let minor = minor.map(|minor| minor.trim_end_matches('+'));
        let minor: u32 = minor.and_then(|minor| minor.parse().ok()).unwrap_or(0);
        if found.iter().all(|(_, _, known)| *known != minor) {
            found.push((program, version, minor));
        }
    }
    found
}

/// Runs `test` with each kubectl, once for each protocol that it speaks, beside a pod that echoes on port 7000.
fn with_kubectl(test: impl Fn(&Kube<'_>, &dyn Fn(&[&str]) -> Command)) {
    let world = world();
    let kubectls = kubectls(&world);
    if kubectls.is_empty() {
        return eprintln!("skipped: no kubectl; Debian's kubernetes-client brings one");
    }
    world.pull(BUSYBOX);
    let pod = world.pod("kubectl");
    let id = pod.run(container("c", BUSYBOX, &shell("exec nc -ll -p 7000 -e cat")));
    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(":7000 ").then_some(())
    });
    let ways = kubectls.iter().flat_map(|(program, version, minor)| {
        let ways = if *minor >= WEBSOCKETS_SINCE { &[false, true][..] } else { &[false] };
        ways.iter().map(move |websockets| (program, version, *websockets))
    });
    for (program, version, websockets) in ways {
        println!("kubectl {version} over {}", if websockets { "WebSocket" } else { "SPDY" });
        let kube = Kube::new(&world, &pod.id, &id);
        let home = tempfile::tempdir().unwrap();
        let command = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(["--server", &kube.url(), "--namespace", "default"]).args(arguments);
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string());
            command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
            command.env("HOME", home.path()).env_remove("KUBECONFIG");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        std::thread::scope(|scope| {
            kube.serve(scope);
            let stop = Stop(&kube);
            test(&kube, &command);
            drop(stop);
        });
    }
    pod.end();
    world.finish();
}

/// Ends the stand-in also when the test fails.
struct Stop<'a>(&'a Kube<'a>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn feed(mut child: Child, input: &[u8]) -> std::process::Output {
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    })
}

#[test]
fn exec_and_cp() {
    with_kubectl(|kube, command| {
        let output =
            command(&["exec", &kube.pod, "--", "sh", "-c", "echo out; echo err >&2; exit 5"])
                .output()
                .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(5), &b"out\n"[..]), "{told}");
        assert!(told.contains("err\n") && told.contains("exit code 5"), "{told}");
        let child = command(&["exec", "-i", &kube.pod, "--", "sh", "-c", "wc -c; echo end"])
            .stdin(Stdio::piped())
            .spawn();
        let output = feed(child.unwrap(), &vec![b'x'; 5 << 20]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\nend\n", 5 << 20));
        let dir = tempfile::tempdir().unwrap();
        let (there, back) = (dir.path().join("there"), dir.path().join("back"));
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&there, &bytes).unwrap();
        let remote = format!("{}:/tmp/file", kube.pod);
        for (from, to) in [(there.to_str().unwrap(), &*remote), (&*remote, back.to_str().unwrap())]
        {
            let output = command(&["cp", from, to]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(std::fs::read(&back).unwrap() == bytes);
    });
}

#[test]
fn port_forward() {
    with_kubectl(|kube, command| {
        let mut child = command(&["port-forward", &kube.pod, ":7000"]).spawn().unwrap();
        let mut line = String::new();
        let mut out = child.stdout.take().unwrap();
        let mut byte = [0];
        while !line.ends_with('\n') && out.read(&mut byte).unwrap() == 1 {
            line.push(char::from(byte[0]));
        }
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 =
            port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                    let sent: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
                    let mut got = vec![0; sent.len()];
                    let mut writer = socket.try_clone().unwrap();
                    std::thread::scope(|scope| {
                        scope.spawn(|| writer.write_all(&sent).unwrap());
                        socket.read_exact(&mut got).unwrap();
                    });
                    assert!(got == sent);
                });
            }
        });
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
