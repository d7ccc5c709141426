//! The daemon as a service: what systemd hears of it, where its log goes, and what it tells of what goes wrong in it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, sandbox, shell};
use e2e::{Options, World, eventually, scripted};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

/// systemd's end: what it has heard so far.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen(world: &World) -> Self {
        let socket = UnixDatagram::bind(world.path("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new() }
    }

    fn hears(&mut self, state: &str, times: usize) {
        eventually(&format!("{state:?} {times} times"), || {
            let mut buffer = [0; 256];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            let count = self.heard.iter().filter(|heard| *heard == state).count();
            (count >= times).then_some(())
        });
    }
}

/// A shim, or the runtime that it calls, that saw systemd's socket would wait for the container to say that it is ready.
#[test]
fn systemd_hears_how_the_daemon_is_and_nobody_else_hears_of_systemd() {
    let mut world = World::without_daemon(Options { runtime: "runc", ..Default::default() });
    let mut manager = Manager::listen(&world);
    let log = world.path("daemon.log");
    let journal = std::fs::File::create(&log).unwrap().metadata().unwrap();
    world.set_environment("NOTIFY_SOCKET", world.path("notify").to_str().unwrap());
    world.set_environment("WATCHDOG_USEC", "1500000");
    world.set_environment("JOURNAL_STREAM", &format!("{}:{}", journal.dev(), journal.ino()));
    world.begin();
    manager.hears("READY=1", 1);
    manager.hears("WATCHDOG=1", 2);

    world.pull(BUSYBOX);
    let pod = world.pod("served");
    let id = pod.run(container("main", BUSYBOX, &shell("sleep 10000")));
    let environment = world.exec(&id, "cat /proc/1/environ");
    assert!(!environment.contains("NOTIFY_SOCKET"), "{environment}");
    pod.end();
    let fed = manager.heard.iter().filter(|heard| *heard == "WATCHDOG=1").count();
    manager.hears("WATCHDOG=1", fed + 1);
    for line in world.read(&log).lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("the journal gets JSON");
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
    world.end_daemon(Signal::TERM);
    manager.hears("STOPPING=1", 1);
    // What stands there may be another's: a log that is none of the journal's is text.
    world.set_environment("JOURNAL_STREAM", "1:1");
    std::fs::write(&log, "").unwrap();
    world.start_daemon();
    assert!(world.read(&log).lines().any(|line| line.contains(" INFO serving CRI ")));
    world.finish();
}

#[test]
fn a_slow_operation_is_told_while_it_lasts_and_the_flight_recorder_has_its_stages() {
    let (mut world, script) = scripted::plugin(300);
    std::fs::write(world.path("conf.d/slow.toml"), "slow_operation_seconds = 1\n").unwrap();
    world.end_daemon(Signal::TERM);
    world.start_daemon();
    script.order("ADD", scripted::WAIT);
    let config = sandbox(&world, "slow");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let gave_up = world.client.run_pod_sandbox_within(Duration::from_secs(1), request).unwrap_err();
    assert_eq!(gave_up.code(), Code::DeadlineExceeded, "{gave_up}");
    script.until_it_hangs();

    let daemon = Pid::from_raw(world.daemon_pid().unwrap().try_into().unwrap()).unwrap();
    kill_process(daemon, Signal::USR1).unwrap();
    let dumps = world.path("state/flight-recorder");
    let dump = eventually("a dump", || {
        let all = std::fs::read_dir(world.seen(&dumps)).ok()?.flatten();
        let whole = all.map(|entry| entry.path()).find(|path| path.extension().is_some())?;
        std::fs::read_to_string(whole).ok()
    });
    let (under_way, happened) = dump.split_once("\nwhat happened").expect("two parts");
    let attaching = "run sandbox tests/slow: attaching the network and starting the shim";
    assert!(under_way.contains("SIGUSR1 at ") && under_way.contains(attaching), "{dump}");
    let at = |text: &str| happened.find(text).unwrap_or_else(|| panic!("no {text}: {dump}"));
    assert!(at("serving CRI") < at("run sandbox tests/slow: recording the intent"), "{dump}");
    assert!(at("run sandbox tests/slow: recording the intent") < at(attaching), "{dump}");

    let log = eventually("the third threshold", || {
        let log = world.read(world.path("daemon.log"));
        log.contains("thresholds=4").then_some(log)
    });
    script.go();
    let pod = world.pod_of(config);
    let slow: Vec<&str> = log.lines().filter(|line| line.contains("operation is slow")).collect();
    for times in [1, 2, 4] {
        let told = slow.iter().find(|line| line.contains(&format!("thresholds={times}")));
        let told = told.unwrap_or_else(|| panic!("not told at {times}: {slow:?}"));
        let parts =
            ["WARN", "verb=\"run sandbox\"", "object=\"tests/slow\"", "attaching", "/scripted"];
        // On a busy disk the first finds it at an earlier stage.
        for part in &parts[..if times == 1 { 3 } else { 5 }] {
            assert!(told.contains(part), "no {part}: {told}");
        }
    }
    pod.end();
    std::fs::remove_dir_all(world.seen(&dumps)).unwrap();
    world.finish();
}
