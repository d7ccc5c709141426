//! Further processes in a container.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use shim::client::{Exec, Status};

use crate::bundle::Spec;
use crate::lifecycle::futures_join;
use crate::pod::{LIMIT, Pod, eventually};

/// A FIFO for one stream of an exec.
pub(crate) fn fifo(pod: &Pod, name: &str) -> PathBuf {
    let path = pod.dir.join(name);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a fifo");
    path
}

async fn status(pod: &Pod, exec: &Exec) -> u32 {
    let (id, exec_id) = (&exec.id, &exec.exec_id);
    let exit = tokio::time::timeout(LIMIT, pod.client.wait(id, exec_id)).await;
    let exit = exit.expect("in time").expect("an exit");
    assert_eq!(pod.client.delete(id, exec_id, LIMIT).await.expect("deleted"), exit);
    exit.status
}

#[tokio::test]
async fn exit_codes_and_streams() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let mut exec = pod.exec("a", "e1", &["sh", "-c", "cat; echo err >&2; exit 5"]);
    let paths = ["in", "out", "err"].map(|name| fifo(&pod, name));
    let [input, output, error] = &paths;
    exec.stdio.stdin = input.to_string_lossy().into_owned();
    exec.stdio.stdout = output.to_string_lossy().into_owned();
    exec.stdio.stderr = error.to_string_lossy().into_owned();
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    let state = pod.client.state(&exec.id, "e1", LIMIT).await.expect("a state");
    assert_eq!((state.status, state.pid), (Status::Created, 0));
    let readers = [output.clone(), error.clone()].map(|path| {
        std::thread::spawn(move || {
            let mut text = String::new();
            File::open(path).expect("a fifo").read_to_string(&mut text).expect("text");
            text
        })
    });
    let pid = pod.client.start(&exec.id, "e1", LIMIT).await.expect("started");
    assert!(pod.client.pids(&exec.id, LIMIT).await.expect("pids").contains(&pid));
    let early = pod.client.delete(&exec.id, "e1", LIMIT).await.unwrap_err().to_string();
    assert!(early.contains("running"), "{early}");
    let mut writer = File::options().write(true).open(input).expect("a fifo");
    writer.write_all(b"through\n").expect("written");
    drop(writer);
    pod.client.close_stdin(&exec.id, "e1", LIMIT).await.expect("closed");
    let [out, err] = readers.map(|reader| reader.join().expect("read to the end"));
    assert_eq!((out.as_str(), err.as_str()), ("through\n", "err\n"));
    assert_eq!(status(&pod, &exec).await, 5);
    pod.remove("a").await;
    pod.end().await;
}

#[tokio::test]
async fn killed_missing_and_never_started() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let exec = pod.exec("a", "long", &["sleep", "1000"]);
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    pod.client.start(&exec.id, "long", LIMIT).await.expect("started");
    pod.client.kill(&exec.id, "long", 15, false, LIMIT).await.expect("killed");
    assert_eq!(status(&pod, &exec).await, 143);

    let exec = pod.exec("a", "missing", &["/no/such/program"]);
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    let error = pod.client.start(&exec.id, "missing", LIMIT).await.unwrap_err().to_string();
    assert!(error.contains("exec: ") && error.to_lowercase().contains("no such file"), "{error}");
    pod.client.delete(&exec.id, "missing", LIMIT).await.expect("deleted");

    let exec = pod.exec("a", "never", &["true"]);
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    assert!(pod.client.exec(exec.clone(), LIMIT).await.is_err(), "twice");
    pod.client.delete(&exec.id, "never", LIMIT).await.expect("deleted");
    assert!(pod.client.start(&exec.id, "never", LIMIT).await.unwrap_err().is_not_found());
    let left = fs::read_dir(pod.bundle("a")).expect("a bundle").flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    pod.remove("a").await;
    pod.end().await;
}

#[tokio::test]
async fn many_at_once_each_with_its_own_end() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let all = (0..20).map(|number| {
        let pod = &pod;
        async move {
            let script = format!("exit {number}");
            let exec = pod.exec("a", &format!("e{number}"), &["sh", "-c", &script]);
            pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
            pod.client.start(&exec.id, &exec.exec_id, LIMIT).await.expect("started");
            assert_eq!(status(pod, &exec).await, number);
        }
    });
    futures_join(all).await;
    pod.remove("a").await;
    pod.end().await;
}

#[tokio::test]
async fn zombies_are_reaped_and_the_end_of_the_container_ends_its_execs() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    // Leaves a child behind, which becomes the container's; then the shim's when all is over.
    let exec = pod.exec("a", "e", &["sh", "-c", "setsid sleep 1000 & sleep 1000"]);
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    pod.client.start(&exec.id, "e", LIMIT).await.expect("started");
    let wait = pod.client.wait(&exec.id, "e");
    let kill = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        pod.client.kill(&pod.container("a"), "", 9, false, LIMIT).await.expect("killed");
    };
    let (exit, ()) = tokio::join!(wait, kill);
    assert_eq!(exit.expect("an exit").status, 137);
    assert_eq!(pod.finish("a").await, 137);
    let shim = pod.bootstrap.pid.expect("podwright-shim tells its pid");
    eventually("no zombies", || {
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children"));
        children.is_ok_and(|children| children.trim().is_empty())
    });
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_s_output_waits_for_a_slow_reader_and_not_for_one_that_has_gone() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let reader = |name: &str| {
        let path = fifo(&pod, name);
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(&path).expect("a fifo");
        rustix::pipe::fcntl_setpipe_size(&opened, 4096).expect("a size");
        rustix::io::ioctl_fionbio(&opened, false).expect("a descriptor");
        (path, opened)
    };
    let start = async |id: &str, path: &PathBuf| {
        // More than the pipe holds, less than a terminal does.
        let mut spec = Spec::sh("head -c 7000 /dev/zero | tr '\\0' x");
        spec.terminal = true;
        let mut exec = pod.exec("a", id, &[]);
        exec.process = spec.process().to_string().into_bytes();
        exec.stdio.terminal = true;
        exec.stdio.stdout = path.to_string_lossy().into_owned();
        pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
        pod.client.start(&exec.id, id, LIMIT).await.expect("started");
        exec
    };
    let (path, mut slow) = reader("slow");
    let exec = start("slow", &path).await;
    let early = tokio::time::timeout(Duration::from_secs(2), pod.client.wait(&exec.id, "slow"));
    assert!(early.await.is_err(), "the rest of the output was given up");
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        slow.read_to_end(&mut text).expect("text");
        text.len()
    });
    assert_eq!(status(&pod, &exec).await, 0);
    assert_eq!(reading.join().expect("read to the end"), 7000);
    let (path, gone) = reader("gone");
    let exec = start("gone", &path).await;
    drop(gone);
    status(&pod, &exec).await;
    pod.remove("a").await;
    pod.end().await;
}
