//! What a container's process inherits: nothing of the shim's.

use std::fs;

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, eventually};

#[tokio::test]
async fn a_container_starts_from_a_clean_slate() {
    let pod = Pod::start().await;
    let script = "cat /proc/self/status /proc/self/oom_score_adj; ls -l /proc/self/fd; \
                  readlink /proc/self/fd/0; umask";
    pod.run("a", &Spec::sh(script)).await;
    assert_eq!(pod.finish("a").await, 0);
    let log = pod.log("a");
    let lines: Vec<_> = log.lines().map(|line| &line[40..]).collect();
    let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for set in ["SigBlk:", "SigIgn:", "SigPnd:"] {
        assert_eq!(field(set), Some("0000000000000000"), "{set}");
    }
    assert!(lines.contains(&"0022"), "umask: {log}");
    assert!(lines.contains(&"/dev/null"), "stdin: {log}");
    let ours = fs::read_to_string("/proc/self/oom_score_adj").expect("a score");
    assert!(lines.contains(&ours.trim()), "oom_score_adj: {log}");
    // The one with which `ls` reads the directory is gone by the time it looks.
    let fds = lines.iter().filter(|line| line.contains(" -> ")).count();
    assert_eq!(fds, 3, "{log}");
    pod.end().await;
}

#[tokio::test]
async fn the_shim_itself_is_private_and_alone() {
    let pod = Pod::start().await;
    let shim = pod.bootstrap.pid.expect("a pid");
    let socket = fs::metadata(pod.dir.join("shim/shim.sock")).expect("a socket");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
    let threads = || fs::read_dir(format!("/proc/{shim}/task")).expect("threads").count();
    assert_eq!(threads(), 1, "no second thread before there is a log");
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).expect("alive");
    let session = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(4));
    assert_eq!(session, Some(shim.to_string().as_str()), "a session of its own");
    // The connection has been accepted once it answers.
    pod.client.ping(LIMIT).await.expect("an answer");
    let fds = || fs::read_dir(format!("/proc/{shim}/fd")).expect("descriptors").count();
    let before = fds();
    for number in 0..5 {
        let name = format!("c{number}");
        pod.run(&name, &Spec::sh("echo x")).await;
        pod.finish(&name).await;
    }
    assert_eq!(threads(), 2);
    // Two eventfds and an epoll came with the log thread.
    eventually("no descriptor is left", || fds() <= before + 4);
    // SIGTERM is not how a shim ends.
    let pid = rustix::process::Pid::from_raw(i32::try_from(shim).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert!(!pod.client.ping(LIMIT).await.expect("still there").is_empty());
    pod.end().await;
}
