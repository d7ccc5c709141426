//! The pod's namespaces.

use std::fs;

use shim::client::CreateSandbox;

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, eventually};

fn sandbox(pod: &Pod) -> CreateSandbox {
    CreateSandbox {
        id: pod.id.clone(),
        bundle: pod.dir.join("shim"),
        hostname: "pod-name".into(),
        ..CreateSandbox::default()
    }
}

#[tokio::test]
async fn containers_share_ipc_and_uts_and_the_sysctls_in_them() {
    let pod = Pod::start().await;
    let mut wanted = sandbox(&pod);
    wanted.sysctls.insert("kernel.shmmni".into(), "1234".into());
    pod.client.create_sandbox(wanted, LIMIT).await.expect("created");
    assert!(!pod.client.sandbox_ready(&pod.id, LIMIT).await.expect("a status"));
    let started = pod.client.start_sandbox(&pod.id, LIMIT).await.expect("started");
    assert!(pod.client.sandbox_ready(&pod.id, LIMIT).await.expect("a status"));
    let again = pod.client.start_sandbox(&pod.id, LIMIT).await.expect("started");
    assert_eq!(again.namespaces, started.namespaces);
    let namespaces = started.namespaces;
    assert_eq!((namespaces.pid, namespaces.init_pid), (None, None));
    let own = fs::read_link("/proc/self/ns/uts").expect("a namespace");
    for name in ["a", "b"] {
        let mut spec =
            Spec::sh("hostname; cat /proc/sys/kernel/shmmni; readlink /proc/self/ns/uts");
        spec.namespaces = vec![("ipc", namespaces.ipc.clone()), ("uts", namespaces.uts.clone())];
        pod.run(name, &spec).await;
        assert_eq!(pod.finish(name).await, 0);
        let log = pod.log(name);
        let lines: Vec<_> = log.lines().map(|line| &line[40..]).collect();
        assert_eq!(lines[..2], ["pod-name", "1234"]);
        assert_ne!(lines[2], own.to_string_lossy());
    }
    let wait = pod.client.wait_sandbox(&pod.id);
    let stop = pod.client.stop_sandbox(&pod.id, LIMIT);
    let (waited, stopped) = tokio::join!(wait, stop);
    waited.expect("waited");
    stopped.expect("stopped");
    assert!(!pod.client.sandbox_ready(&pod.id, LIMIT).await.expect("a status"));
    pod.client.stop_sandbox(&pod.id, LIMIT).await.expect("again");
    pod.end().await;
}

#[tokio::test]
async fn the_host_s_parameters_are_refused() {
    let pod = Pod::start().await;
    for (name, value) in [("kernel.core_pattern", "|/bin/x"), ("net.ipv4.ip_forward", "1")] {
        let mut wanted = sandbox(&pod);
        wanted.sysctls.insert(name.into(), value.into());
        let error = pod.client.create_sandbox(wanted, LIMIT).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("does not belong"), "{error}");
    }
    let mut wanted = sandbox(&pod);
    wanted.netns = Some("/no/such/netns".into());
    let error = pod.client.create_sandbox(wanted, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/netns"), "{error}");
    pod.client.create_sandbox(sandbox(&pod), LIMIT).await.expect("created after all");
    pod.end().await;
}

#[tokio::test]
async fn a_shared_pid_namespace_has_an_init_that_reaps_and_has_nothing() {
    let pod = Pod::start().await;
    let mut wanted = sandbox(&pod);
    wanted.shared_pid = true;
    pod.client.create_sandbox(wanted, LIMIT).await.expect("created");
    let started = pod.client.start_sandbox(&pod.id, LIMIT).await.expect("started");
    let init = started.namespaces.init_pid.expect("an init");
    // Its name is the last thing that it sets but one.
    eventually("the init is set up", || {
        let name = fs::read_to_string(format!("/proc/{init}/comm"));
        name.is_ok_and(|name| name == "podwright-init\n")
    });
    let status = fs::read_to_string(format!("/proc/{init}/status")).expect("alive");
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(line("Uid:"), Some("65534\t65534\t65534\t65534"));
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapInh:", "CapAmb:"] {
        assert_eq!(line(set), Some("0000000000000000"), "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), Some("1"));
    let fds = fs::read_dir(format!("/proc/{init}/fd")).expect("descriptors").count();
    assert_eq!(fds, 0);
    let root = fs::read_dir(format!("/proc/{init}/root/")).expect("a root").count();
    assert_eq!(root, 0, "its root is empty");

    let mut spec = Spec::sh(
        "ls /proc/1/root/ 2>&1; (sleep 0.01 & ) ; ps -o comm | head -2; sleep 0.2; ps -o stat; sleep 1000",
    );
    spec.namespaces = vec![("pid", started.namespaces.pid.clone())];
    pod.run("a", &spec).await;
    eventually("it prints", || pod.log("a").lines().any(|line| line.ends_with("STAT")));
    let log = pod.log("a");
    assert!(log.contains("ermission denied"), "the init's root can be entered: {log}");
    assert!(log.contains("podwright-init"), "{log}");
    assert!(!log.contains("F Z"), "zombies: {log}");
    pod.client.stop_sandbox(&pod.id, LIMIT).await.expect("stopped");
    assert_eq!(pod.finish("a").await, 137);
    eventually("the init is gone", || !std::path::Path::new(&format!("/proc/{init}")).exists());
    pod.end().await;
}
