//! Create, Start, Wait, Kill, Delete: what is true in between, and what is refused.

use std::fs;
use std::path::Path;

use shim::client::{Code, Error, Status};
use shim::record::ExitRecord;

use crate::bundle::Spec;
use crate::pod::{LIMIT, Pod, eventually};

#[tokio::test]
async fn a_container_runs_and_its_exit_is_told_once_it_is_on_record() {
    let pod = Pod::start().await;
    let task = pod.prepare("a", &Spec::sh("echo hello; exit 7"));
    let id = pod.container("a");
    let pid = pod.client.create(task, LIMIT).await.expect("created");
    let state = pod.client.state(&id, "", LIMIT).await.expect("a state");
    assert_eq!((state.pid, state.status, state.exit), (pid, Status::Created, None));
    let mounted = fs::read_dir(pod.bundle("a").join("rootfs")).expect("a directory").count();
    assert_eq!(mounted, 0, "the host sees the root file system");
    assert_eq!(pod.client.identify(&id, LIMIT).await.expect("pids").1, pid);

    pod.client.start(&id, "", LIMIT).await.expect("started");
    let exit = pod.client.wait(&id, "").await.expect("an exit");
    let record = ExitRecord::read(&pod.bundle("a").join("exit.json")).expect("readable");
    let record = record.expect("written before the exit was told");
    assert_eq!((exit.status, record.status, record.pid, record.signal), (7, 7, pid, None));
    assert_eq!((record.id.as_str(), record.oom_killed), (id.as_str(), false));
    assert_eq!(pod.client.wait(&id, "").await.expect("again"), exit);
    let state = pod.client.state(&id, "", LIMIT).await.expect("a state");
    assert_eq!((state.status, state.exit), (Status::Stopped, Some(exit)));
    assert!(pod.client.kill(&id, "", 15, false, LIMIT).await.unwrap_err().is_not_found());
    assert!(pod.log("a").ends_with(" stdout F hello\n"));

    assert_eq!(pod.finish("a").await, 7);
    assert!(pod.client.wait(&id, "").await.unwrap_err().is_not_found());
    pod.end().await;
}

#[tokio::test]
async fn signals_arrive_and_become_exit_codes() {
    let pod = Pod::start().await;
    pod.run("term", &Spec::sh("trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done")).await;
    eventually("it is up", || pod.log("term").contains("up"));
    pod.client.kill(&pod.container("term"), "", 15, false, LIMIT).await.expect("sent");
    assert_eq!(pod.finish("term").await, 3);

    pod.run("kill", &Spec::new(&["sleep", "1000"])).await;
    assert_eq!(pod.remove("kill").await, 137);
    let record = ExitRecord::read(&pod.bundle("kill").join("exit.json")).expect("readable");
    let record = record.expect("a record");
    assert_eq!((record.status, record.signal, record.oom_killed), (137, Some(9), false));

    pod.run("bad", &Spec::new(&["sleep", "1000"])).await;
    let error = pod.client.kill(&pod.container("bad"), "", 4242, false, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code::InvalidArgument, .. }), "{error}");
    pod.remove("bad").await;
    pod.end().await;
}

#[tokio::test]
async fn what_the_runtime_says_reaches_the_caller() {
    let pod = Pod::start().await;
    let task = pod.prepare("missing", &Spec::new(&["/no/such/program"]));
    let error = pod.client.create(task, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("create: ") && error.to_lowercase().contains("no such file"), "{error}");

    let mut task = pod.prepare("mount", &Spec::new(&["true"]));
    task.rootfs[0].layers = vec!["/no/such/layer".into()];
    let error = pod.client.create(task, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("root file system"), "{error}");

    let mut task = pod.prepare("log", &Spec::new(&["true"]));
    if let shim::client::Options::Podwright(options) = &mut task.options {
        options.log_path = Some(pod.dir.join("logs/none/0.log"));
    }
    let error = pod.client.create(task, LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("container streams"), "{error}");

    let mut task = pod.prepare("runtime", &Spec::new(&["true"]));
    if let shim::client::Options::Podwright(options) = &mut task.options {
        options.runtime = "/no/such/runtime".into();
    }
    assert!(pod.client.create(task, LIMIT).await.is_err());
    pod.end().await;
}

#[tokio::test]
async fn wrong_moments_are_refused() {
    let pod = Pod::start().await;
    let spec = Spec::new(&["sleep", "1000"]);
    pod.run("a", &spec).await;
    let id = pod.container("a");
    let refused = |error: Error| match error {
        Error::Refused { code, .. } => code,
        other => panic!("{other}"),
    };
    let again = pod.client.create(pod.prepare("a", &spec), LIMIT).await.unwrap_err();
    assert_eq!(refused(again), Code::AlreadyExists);
    let again = pod.client.start(&id, "", LIMIT).await.unwrap_err();
    assert_eq!(refused(again), Code::FailedPrecondition);
    let early = pod.client.delete(&id, "", LIMIT).await.unwrap_err();
    assert_eq!(refused(early), Code::FailedPrecondition);
    let absent = pod.client.start("none", "", LIMIT).await.unwrap_err();
    assert_eq!(refused(absent), Code::NotFound);
    // A shim with containers does not go.
    pod.client.shutdown(&pod.id, false, LIMIT).await.expect("answered");
    assert_eq!(pod.client.pids(&id, LIMIT).await.expect("pids").len(), 1);
    pod.remove("a").await;

    // One that was never started can be deleted as it is.
    pod.client.create(pod.prepare("b", &spec), LIMIT).await.expect("created");
    pod.client.delete(&pod.container("b"), "", LIMIT).await.expect("deleted");
    pod.end().await;
}

#[tokio::test]
async fn a_create_that_hangs_can_be_killed() {
    let pod = Pod::start().await;
    let script = pod.dir.join("hangs");
    fs::write(&script, "#!/bin/sh\ncase \"$*\" in *create*) sleep 1000;; esac\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("executable");
    let mut task = pod.prepare("a", &Spec::new(&["true"]));
    if let shim::client::Options::Podwright(options) = &mut task.options {
        options.runtime = script;
    }
    let create = pod.client.create(task, LIMIT);
    let kill = async {
        let runs = || {
            crate::pod::processes(&pod.id)
                .iter()
                .any(|line| line.contains("sleep") || line.contains("hangs"))
        };
        while !runs() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        pod.client.kill(&pod.container("a"), "", 9, false, LIMIT).await.expect("killed");
    };
    let (created, ()) = tokio::join!(create, kill);
    assert!(created.unwrap_err().to_string().contains("killed"), "it was killed");
    pod.end().await;
}

#[tokio::test]
async fn many_containers_at_once() {
    let pod = Pod::start().await;
    let names: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    let all = names.iter().map(|name| async {
        let number = name[1..].parse::<u32>().expect("a number");
        pod.run(name, &Spec::sh(&format!("sleep 0.1; exit {number}"))).await;
        assert_eq!(pod.finish(name).await, number);
    });
    futures_join(all).await;
    pod.end().await;
}

#[tokio::test]
async fn pause_resume_and_update() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let id = pod.container("a");
    pod.client.pause(&id, LIMIT).await.expect("paused");
    let state = pod.client.state(&id, "", LIMIT).await.expect("a state");
    assert_eq!(state.status, Status::Paused);
    pod.client.resume(&id, LIMIT).await.expect("resumed");
    pod.client.update(&id, br#"{"pids":{"limit":55}}"#.to_vec(), LIMIT).await.expect("updated");
    let v1 = Path::new("/sys/fs/cgroup/pids").join(&id).join("pids.max");
    let v2 = Path::new("/sys/fs/cgroup").join(&id).join("pids.max");
    let limit = fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).expect("a limit");
    assert_eq!(limit.trim(), "55");
    assert!(pod.client.update(&id, b"nonsense".to_vec(), LIMIT).await.is_err());
    // Killed while frozen: it dies all the same.
    pod.client.pause(&id, LIMIT).await.expect("paused");
    assert_eq!(pod.remove("a").await, 137);
    pod.end().await;
}

/// Runs futures side by side on one task.
pub(crate) async fn futures_join<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut left: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        left.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if left.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
