//! Daemons come and go; so may a shim.

use std::io::Write;
use std::os::unix::net::UnixStream;

use shim::launch;

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, binary, eventually, processes, shim as shim_of};

#[tokio::test]
async fn containers_and_logs_do_not_notice_a_daemon_s_death() {
    let mut pod = Pod::start().await;
    let script = "n=0; while [ $n -lt 40 ]; do echo line $n; n=$((n+1)); sleep 0.01; done; exit 9";
    pod.run("a", &Spec::sh(script)).await;
    let id = pod.container("a");
    {
        // A wait is under way when the connection breaks.
        let client = pod.client.clone();
        let wait = client.wait(&id, "");
        let breaks = pod.reconnect();
        let (lost, ()) = tokio::join!(wait, breaks);
        assert!(lost.unwrap_err().is_lost());
        client.lost().await;
    }
    assert_eq!(pod.finish("a").await, 9);
    let log = pod.log("a");
    let numbers: Vec<_> =
        log.lines().map(|line| line.rsplit(' ').next().expect("a number")).collect();
    assert_eq!(numbers, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
    pod.end().await;
}

#[tokio::test]
async fn what_a_killed_shim_leaves_is_deleted() {
    let pod = Pod::start().await;
    let wanted =
        shim::client::CreateSandbox { id: pod.id.clone(), shared_pid: true, ..Default::default() };
    pod.client.create_sandbox(wanted, LIMIT).await.expect("created");
    let started = pod.client.start_sandbox(&pod.id, LIMIT).await.expect("started");
    let mut spec = Spec::new(&["sleep", "1000"]);
    spec.namespaces = vec![("pid", started.namespaces.pid)];
    pod.run("shared", &spec).await;
    pod.run("own", &Spec::new(&["sleep", "1000"])).await;
    let pid = i32::try_from(pod.bootstrap.pid.expect("a pid")).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    pod.client.lost().await;
    let error = pod.client.pids(&pod.container("own"), LIMIT).await.unwrap_err();
    assert!(error.is_lost(), "{error}");
    let binary = binary();
    let status = launch::delete(&shim_of(&pod.id, &pod.dir, &binary), LIMIT).await;
    assert_eq!(status.expect("deleted"), 137);
    let again = launch::delete(&shim_of(&pod.id, &pod.dir, &binary), LIMIT).await;
    assert_eq!(again.expect("deleted"), 137);
    pod.check_leaks();
}

#[tokio::test]
async fn a_shim_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("shim")).expect("a directory");
    let binary = binary();
    let bad = shim_of("../bad", dir.path(), &binary);
    let error = launch::start(&bad, &shim::client::Options::None, LIMIT);
    let error = error.await.unwrap_err().to_string();
    assert!(error.contains("invalid id"), "{error}");
}

#[tokio::test]
async fn garbage_on_the_socket_harms_nobody() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let path = pod.bootstrap.address.strip_prefix("unix://").expect("a path");
    for bytes in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 9]] {
        let mut socket = UnixStream::connect(path).expect("a connection");
        socket.write_all(bytes).expect("written");
    }
    let half = UnixStream::connect(path).expect("a connection");
    (&half).write_all(&[0, 0, 0]).expect("written");
    assert_eq!(pod.client.pids(&pod.container("a"), LIMIT).await.expect("pids").len(), 1);
    assert!(!pod.client.ping(LIMIT).await.expect("an answer").is_empty());
    drop(half);
    pod.remove("a").await;
    let id = pod.id.clone();
    pod.end().await;
    eventually("the shim is gone", || processes(&id).is_empty());
}
