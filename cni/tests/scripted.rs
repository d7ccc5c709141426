//! Plugins that the test writes: what they get, and how they fail.

mod support;

use std::time::{Duration, Instant};

use cni::{Attachment, Cancel, CniResult, Deadline, Error, Network, Result};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use support::{Node, PATIENCE, eventually, network, prints_result, processes_with, soon};

/// An ADD in a pod of the node, through one plugin.
fn add_with(node: &Node, body: &str, deadline: &Deadline) -> Result<CniResult> {
    node.script("odd", body);
    let network = network("1.0.0", &[json!({ "type": "odd" })]);
    let pod = node.pod("pod1");
    let result = node.run(|| node.runtime.add(&network, &pod, deadline));
    node.remove_netns("pod1");
    result
}

#[test]
fn a_chain_passes_results_on_and_goes_back_the_other_way() {
    let node = Node::new();
    node.script("first", &prints_result("10.0.0.2/24"));
    node.script("second", &prints_result("10.0.0.3/24"));
    let first = json!({ "type": "first", "odd": {"deep": [1, 2.50]} });
    let second = json!({ "type": "second", "capabilities": { "mac": true, "dns": false } });
    let network = network("0.4.0", &[first, second]);
    let mut pod = node.pod("pod1");
    pod.capabilities.mac = Some("02:00:00:00:00:02".into());
    pod.capabilities.dns = Some(cni::Dns { servers: vec!["1.1.1.1".into()], ..Default::default() });

    let result = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap();
    assert_eq!(result.addresses("eth0")[0].to_string(), "10.0.0.3");
    let (one, two) = (node.read("first", "ADD"), node.read("second", "ADD"));
    assert_eq!(one["name"], "net");
    assert_eq!((&one["odd"]["deep"][1], one.get("prevResult")), (&json!(2.50), None));
    assert_eq!(one.get("runtimeConfig"), None);
    assert_eq!(two["runtimeConfig"], json!({ "mac": "02:00:00:00:00:02" }));
    assert_eq!(two["prevResult"]["ips"][0]["address"], "10.0.0.2/24");
    assert_eq!(two["prevResult"]["cniVersion"], "0.4.0");
    let env = node.env("first");
    let netns = node.netns("pod1");
    for line in [
        "CNI_COMMAND=ADD".to_owned(),
        "CNI_CONTAINERID=pod1".to_owned(),
        "CNI_IFNAME=eth0".to_owned(),
        format!("CNI_NETNS={}", netns.display()),
        format!("CNI_PATH={}:{}", node.path("bin").display(), support::plugins().display()),
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod1;\
         K8S_POD_INFRA_CONTAINER_ID=pod1;K8S_POD_UID=uid-1"
            .to_owned(),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }

    node.script("second", "echo 'no json' ; exit 1");
    node.remove_netns("pod1");
    let error = node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap_err();
    assert_eq!(error.plugin(), Some("second"));
    assert_eq!(node.calls(), ["first ADD", "second ADD", "second DEL", "first DEL"]);
    assert_eq!(node.read("first", "DEL")["prevResult"]["ips"][0]["address"], "10.0.0.3/24");
    assert!(node.env("first").contains("CNI_NETNS=\n"), "a namespace that is gone is not named");
    assert_eq!(node.cached(), 1, "kept for the next try");
    node.script("second", "exit 0");
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    assert_eq!(node.read("second", "DEL")["runtimeConfig"]["mac"], "02:00:00:00:00:02");
    node.assert_clean();
}

#[test]
fn what_a_plugin_says_is_what_the_error_says() {
    let node = Node::new();
    let error = |body: &str| add_with(&node, body, &soon()).unwrap_err();
    let later = error(r#"echo '{"code":11,"msg":"busy","details":"lock held"}'; exit 1"#);
    assert_eq!(later.to_string(), "plugin type=\"odd\" failed (add): busy; lock held (code 11)");
    assert!(later.is_try_again_later() && !later.is_not_ready());
    let polite = error(r#"echo '{"cniVersion":"1.0.0","code":7,"msg":"bad config"}'"#);
    assert_eq!(polite.code(), Some(7));
    let mute = error("echo first >&2; echo why >&2; exit 4").to_string();
    assert!(mute.contains("exit status: 4") && mute.contains(r"first\nwhy"), "{mute}");
    let killed = error("kill -9 $$").to_string();
    assert!(killed.contains("signal: 9"), "{killed}");
    for (body, part) in [
        ("echo '<html>'", "stdout: \"<html>\""),
        ("printf '\\033[2Jx\\377'", r"\u{1b}[2J"),
        ("exit 0", "not JSON"),
        (r#"echo '{"ips":[{"address":"no"}]}'"#, "not a result"),
        (r#"echo '{"cniVersion":"1.0.0"} trailing'"#, "trailing"),
    ] {
        let error = error(body);
        assert!(
            matches!(error, Error::Broken { .. }) && error.to_string().contains(part),
            "{error}"
        );
    }
    node.assert_clean();
}

#[test]
fn an_add_that_hangs_ends_at_its_deadline_with_all_its_processes() {
    let node = Node::new();
    let marker = format!("{}/hang", node.path("").display());
    let hang = format!("sh -c 'sleep 1000; true {marker}' & wait");
    let error = add_with(&node, &hang, &Deadline::after(Duration::from_secs(1))).unwrap_err();
    assert!(matches!(&error, Error::TimedOut { plugin, .. } if plugin == "odd"), "{error}");
    eventually("the group dies", || processes_with(&marker).is_empty());
    node.assert_clean();
}

#[test]
fn a_cancel_ends_an_add_and_a_del() {
    let node = Node::new();
    let cancel = Cancel::new().unwrap();
    node.script("odd", &format!("exec sleep 1000.{}", std::process::id()));
    let network = network("1.0.0", &[json!({ "type": "odd" }), json!({ "type": "odd" })]);
    let pod = node.pod("pod1");
    let started = Instant::now();
    let error = std::thread::scope(|scope| {
        let adding =
            scope.spawn(|| node.run(|| node.runtime.add(&network, &pod, &soon().or(&cancel))));
        eventually("the plugin runs", || node.path("odd.ADD").exists());
        cancel.cancel();
        adding.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, Error::Cancelled { .. }) && started.elapsed() < PATIENCE, "{error}");
    node.calls();
    let error = node.run(|| node.runtime.del(&network, &pod, &soon().or(&cancel))).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    assert!(node.calls().is_empty(), "nothing runs after a cancel");
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn a_plugin_that_hangs_on_del_leaves_time_for_the_others() {
    let node = Node::new();
    node.script("first", "exit 0");
    node.script("second", "exec sleep 1000");
    let network = network("1.0.0", &[json!({ "type": "first" }), json!({ "type": "second" })]);
    let pod = Attachment::for_pod("pod1", "n", "p", "u");
    let deadline = Deadline::after(Duration::from_secs(6));
    let error = node.run(|| node.runtime.del(&network, &pod, &deadline)).unwrap_err();
    assert!(matches!(&error, Error::TimedOut { plugin, .. } if plugin == "second"), "{error}");
    assert_eq!(node.calls(), ["second DEL", "first DEL"]);
    node.assert_clean();
}

/// As of a host-local that hangs, or was stopped, between making a lease and filling it.
#[test]
fn a_del_does_not_wait_for_leases_that_stay_locked() {
    let node = Node::new();
    node.script("odd", "exit 0");
    let ipam = json!({"type": "host-local", "dataDir": node.path("leases")});
    let network = network("1.0.0", &[json!({"type": "odd", "ipam": ipam})]);
    std::fs::create_dir_all(node.path("leases/net")).unwrap();
    std::fs::write(node.path("leases/net/10.0.0.3"), "").unwrap();
    let held = std::fs::File::create(node.path("leases/net/lock")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let del = |limit| {
        let (runtime, network) = (node.runtime.clone(), network.clone());
        let pod = Attachment::for_pod("pod1", "n", "p", "u");
        let deleting =
            std::thread::spawn(move || runtime.del(&network, &pod, &Deadline::after(limit)));
        eventually("the delete ends", || deleting.is_finished());
        deleting.join().unwrap()
    };
    let error = del(Duration::from_secs(1)).unwrap_err();
    let is_told = matches!(&error, Error::TimedOut { plugin, .. } if plugin == "host-local");
    assert!(is_told || error.plugin() == Some("odd"), "{error}");
    assert_eq!(node.leases(), ["10.0.0.3"], "it may be being filled");
    drop(held);
    del(PATIENCE).unwrap();
    node.assert_clean();
}

#[test]
fn floods_and_held_pipes_do_not_hold_us() {
    let node = Node::new();
    let error = add_with(&node, "exec cat /dev/zero", &soon()).unwrap_err();
    assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
    let started = Instant::now();
    let pid = node.path("pid");
    let body = format!("sleep 1000 & echo $! >{}\n{}", pid.display(), prints_result("10.0.0.2/24"));
    add_with(&node, &body, &soon()).unwrap();
    assert!(started.elapsed() < PATIENCE);
    let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let pod = Attachment::for_pod("pod1", "n", "p", "u");
    node.script("odd", "exit 0");
    let network = network("1.0.0", &[json!({ "type": "odd" })]);
    node.run(|| node.runtime.del(&network, &pod, &soon())).unwrap();
    node.assert_clean();
}

#[test]
fn a_file_that_is_no_program_is_blamed_on_its_plugin() {
    let node = Node::new();
    let network = network("1.0.0", &[json!({ "type": "odd" })]);
    let pod = node.pod("pod1");
    for (mode, part) in [(0o644, "Permission denied"), (0o755, "No such file")] {
        let path = node.path("bin/odd");
        std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        let error = node.run(|| node.runtime.add(&network, &pod, &soon())).unwrap_err();
        assert!(error.plugin() == Some("odd") && error.to_string().contains(part), "{error}");
    }
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn status_is_asked_from_1_1_on() {
    let node = Node::new();
    node.script("odd", r#"echo '{"code":50,"msg":"no route yet"}'; exit 1"#);
    let plugins = [json!({ "type": "odd" })];
    node.runtime.status(&network("1.0.0", &plugins), &soon()).unwrap();
    assert!(node.calls().is_empty());
    let newer = network("1.1.0", &plugins);
    let error = node.runtime.status(&newer, &soon()).unwrap_err();
    assert!(error.is_not_ready() && error.to_string().contains("no route yet"), "{error}");
    assert_eq!(node.calls(), ["odd STATUS"]);
    node.script("odd", "exit 0");
    node.runtime.status(&newer, &soon()).unwrap();
    let missing = network("1.1.0", &[json!({ "type": "absent" })]);
    assert_eq!(node.runtime.missing(&missing), ["absent"]);
    let error = node.runtime.status(&missing, &soon()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn gc_releases_what_is_in_the_cache_and_tells_plugins_what_is_valid() {
    let node = Node::new();
    node.script("old", &prints_result("10.0.0.2/24"));
    node.script("new", &prints_result("10.0.0.2/24"));
    let made_with = network("1.1.0", &[json!({ "type": "old" })]);
    for id in ["stays", "goes"] {
        let pod = node.pod(id);
        node.run(|| node.runtime.add(&made_with, &pod, &soon())).unwrap();
    }
    node.remove_netns("goes");
    node.calls();
    let valid = [("stays".to_owned(), "eth0".to_owned())];
    let now = network("1.1.0", &[json!({ "type": "new" })]);
    node.run(|| node.runtime.gc(&now, &valid, &soon())).unwrap();
    // By the list that the attachment was made with, not by the one there is now.
    assert_eq!(node.calls(), ["old DEL", "new GC"]);
    let expected = json!([{ "containerID": "stays", "ifname": "eth0" }]);
    assert_eq!(node.read("new", "GC")["cni.dev/valid-attachments"], expected);
    assert_eq!(node.read("new", "GC")["cni.dev/attachments"], expected);
    assert_eq!(node.cached(), 1);
    let off = json!({ "cniVersion": "1.1.0", "name": "net", "disableGC": true,
                      "plugins": [{ "type": "new" }] });
    let off = Network::parse(off.to_string().as_bytes()).unwrap();
    node.run(|| node.runtime.gc(&off, &[], &soon())).unwrap();
    assert!(node.calls().is_empty() && node.cached() == 1);
    node.run(|| node.runtime.gc(&made_with, &[], &soon())).unwrap();
    node.remove_netns("stays");
    node.assert_clean();
}

#[test]
fn nothing_is_executed_for_what_is_no_attachment() {
    let node = Node::new();
    node.script("odd", "exit 0");
    let network = network("1.0.0", &[json!({ "type": "odd" })]);
    let good = node.pod("pod1");
    for bad in [
        Attachment { netns: None, ..good.clone() },
        Attachment { netns: Some("/etc/passwd".into()), ..good.clone() },
        Attachment { netns: Some("/proc/self/ns/mnt".into()), ..good.clone() },
        Attachment { container_id: "../x".into(), ..good.clone() },
        Attachment { ifname: "eth/0".into(), ..good.clone() },
        Attachment { args: vec![("a".into(), "b;c=d".into())], ..good.clone() },
    ] {
        let error = node.run(|| node.runtime.add(&network, &bad, &soon())).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    assert!(node.calls().is_empty());
    node.remove_netns("pod1");
    node.assert_clean();
}

#[test]
fn checks_can_be_disabled_and_are_young() {
    let node = Node::new();
    node.script("odd", "exit 1");
    let pod = Attachment::for_pod("pod1", "n", "p", "u");
    let list = |version: &str, disable: bool| {
        let list = json!({ "cniVersion": version, "name": "net", "disableCheck": disable,
                           "plugins": [{ "type": "odd" }] });
        Network::parse(list.to_string().as_bytes()).unwrap()
    };
    node.runtime.check(&list("1.0.0", true), &pod, &soon()).unwrap();
    assert!(node.runtime.check(&list("0.3.1", true), &pod, &soon()).is_err());
    assert!(node.runtime.check(&list("1.0.0", false), &pod, &soon()).is_err());
    assert!(node.calls().is_empty());
}

/// Not a test: the daemon of the test below, in a process of its own.
#[test]
#[ignore = "run by plugins_do_not_outlive_the_daemon"]
fn daemon_that_waits_for_a_plugin() {
    let bin = std::env::var_os("PODWRIGHT_TEST_BIN").unwrap();
    let runtime = cni::Runtime { bin_dirs: vec![bin.into()], ..Default::default() };
    let network = network("1.1.0", &[json!({ "type": "odd" })]);
    let _ = runtime.status(&network, &soon());
}

#[test]
fn plugins_do_not_outlive_the_daemon() {
    let node = Node::new();
    node.script("odd", &format!("echo $$ >{}; exec sleep 1000", node.path("pid").display()));
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_that_waits_for_a_plugin"])
        .env("PODWRIGHT_TEST_BIN", node.path("bin"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = || std::fs::read_to_string(node.path("pid")).unwrap_or_default();
    eventually("the plugin runs", || pid().ends_with('\n'));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let proc = format!("/proc/{}/cmdline", pid().trim());
    // A zombie, which somebody else has to reap, has no command line.
    let gone = || std::fs::read(&proc).map_or(true, |line| line.is_empty());
    eventually("the plugin dies", gone);
    node.assert_clean();
}
