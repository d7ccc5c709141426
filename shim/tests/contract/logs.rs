//! CRI log files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, eventually};

#[tokio::test]
async fn both_streams_long_lines_and_unfinished_ones() {
    let pod = Pod::start().await;
    let script = "echo out; echo err >&2; printf '\\r\\n'; \
                  head -c 20000 /dev/zero | tr '\\0' x; echo; printf tail";
    pod.run("a", &Spec::sh(&script.replace("| tr", "| busybox tr"))).await;
    assert_eq!(pod.finish("a").await, 0);
    let mode = fs::metadata(pod.log_path("a")).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let log = pod.log("a");
    let lines: Vec<(&str, &str, &str)> = log
        .lines()
        .map(|line| {
            let mut parts = line.splitn(4, ' ');
            let stamp = parts.next().expect("a time");
            assert!(stamp.len() == 30 && stamp.ends_with('Z'), "{stamp}");
            let mut part = || parts.next().expect("a part");
            (part(), part(), part())
        })
        .collect();
    let out: Vec<_> = lines.iter().filter(|line| line.0 == "stdout").collect();
    let (first, second) = ("x".repeat(16384), "x".repeat(20000 - 16384));
    assert_eq!(
        out,
        [
            &("stdout", "F", "out"),
            &("stdout", "F", ""),
            &("stdout", "P", first.as_str()),
            &("stdout", "F", second.as_str()),
            &("stdout", "P", "tail"),
        ]
    );
    assert!(lines.contains(&("stderr", "F", "err")));
    assert_eq!(lines.len(), 6);
    pod.end().await;
}

#[tokio::test]
async fn nothing_is_lost_or_torn_across_rotations() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["seq", "1", "300000"])).await;
    let id = pod.container("a");
    let mut parts = Vec::new();
    for number in 0..20 {
        let rotated = pod.log_path("a").with_extension(format!("{number}"));
        if fs::rename(pod.log_path("a"), &rotated).is_ok() {
            parts.push(rotated);
        }
        // It may have exited meanwhile, which is no failure of the rotation.
        if let Err(error) = pod.client.reopen_log(&id, LIMIT).await {
            assert!(error.to_string().contains("not running"), "{error}");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(pod.finish("a").await, 0);
    parts.push(pod.log_path("a"));
    let mut expected = 1_u32;
    for part in parts {
        for line in fs::read_to_string(part).unwrap_or_default().lines() {
            let number = line.rsplit(' ').next().expect("a number");
            assert_eq!(number.parse(), Ok(expected), "{line}");
            expected += 1;
        }
    }
    assert_eq!(expected, 300_001);
    pod.end().await;
}

#[tokio::test]
async fn a_failed_reopen_leaves_no_file_and_no_gap() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["cat"]).with_stdin()).await;
    let id = pod.container("a");
    let (logs, away) = (pod.dir.join("logs"), pod.dir.join("away"));
    fs::rename(&logs, &away).expect("renamed");
    let error = pod.client.reopen_log(&id, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("reopen"), "{error}");
    assert!(!logs.exists());
    fs::rename(&away, &logs).expect("renamed");
    pod.client.reopen_log(&id, LIMIT).await.expect("reopened");
    // `cat` ends with its input.
    pod.client.close_stdin(&id, "", LIMIT).await.expect("closed");
    assert_eq!(pod.finish("a").await, 0);
    assert!(pod.client.reopen_log(&id, LIMIT).await.is_err());
    pod.end().await;
}

#[tokio::test]
async fn output_of_what_a_container_leaves_behind_does_not_hold_its_exit() {
    let pod = Pod::start().await;
    // Not in a pid namespace of its own, so the child survives its parent and holds the pipe.
    let mut spec = Spec::sh("setsid sleep 1000 & echo done");
    spec.host_pid = true;
    pod.run("a", &spec).await;
    assert_eq!(pod.finish("a").await, 0);
    assert!(pod.log("a").ends_with("stdout F done\n"));
    pod.end().await;
}

#[tokio::test]
async fn two_containers_share_the_log_thread() {
    let pod = Pod::start().await;
    for name in ["a", "b"] {
        pod.run(name, &Spec::sh(&format!("while :; do echo {name}; done"))).await;
    }
    let long = |name| fs::metadata(pod.log_path(name)).is_ok_and(|log| log.len() > 1 << 20);
    eventually("both write", || long("a") && long("b"));
    for name in ["a", "b"] {
        assert_eq!(pod.remove(name).await, 137);
        let end = format!("stdout F {name}");
        assert!(pod.log(name).lines().all(|line| line.ends_with(&end)));
    }
    pod.end().await;
}
