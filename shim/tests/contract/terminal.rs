//! Terminals: the console socket, the log, an exec's FIFOs, resizing.

use std::fs::File;
use std::io::{Read, Write};

use crate::bundle::Spec;
use crate::exec::fifo;
use crate::pod::{LIMIT, Pod, eventually};

#[tokio::test]
async fn a_container_s_terminal_goes_to_its_log() {
    let pod = Pod::start().await;
    let mut spec = Spec::sh("[ -t 1 ] && echo tty; echo err >&2; exit 4");
    spec.terminal = true;
    pod.run("a", &spec).await;
    assert_eq!(pod.finish("a").await, 4);
    let log = pod.log("a");
    let lines: Vec<_> = log.lines().map(|line| &line[31..]).collect();
    assert_eq!(lines, ["stdout F tty", "stdout F err"]);
    pod.end().await;
}

#[tokio::test]
async fn an_exec_s_terminal_is_copied_and_resized() {
    let pod = Pod::start().await;
    pod.run("a", &Spec::new(&["sleep", "1000"])).await;
    let mut spec = Spec::sh("while read line; do echo \"<$line>\"; stty size; done");
    spec.terminal = true;
    let mut exec = pod.exec("a", "e", &[]);
    exec.process = spec.process().to_string().into_bytes();
    exec.stdio.terminal = true;
    let (input, output) = (fifo(&pod, "in"), fifo(&pod, "out"));
    exec.stdio.stdin = input.to_string_lossy().into_owned();
    exec.stdio.stdout = output.to_string_lossy().into_owned();
    // As containerd does: the reader's FIFO is open before the process starts.
    let mut reader = File::options().read(true).write(true).open(&output).expect("a fifo");
    let mut writer = File::options().read(true).write(true).open(&input).expect("a fifo");
    pod.client.exec(exec.clone(), LIMIT).await.expect("registered");
    pod.client.start(&exec.id, "e", LIMIT).await.expect("started");
    pod.client.resize(&exec.id, "e", (91, 37), LIMIT).await.expect("resized");
    writer.write_all(b"hi\n").expect("written");
    let mut seen = String::new();
    while !seen.contains("37 91") {
        let mut bytes = [0; 100];
        let count = reader.read(&mut bytes).expect("output");
        seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(seen.contains("<hi>"), "{seen}");
    pod.client.kill(&exec.id, "e", 9, false, LIMIT).await.expect("killed");
    let exit = pod.client.wait(&exec.id, "e").await.expect("an exit");
    assert_eq!(exit.status, 137);
    pod.client.delete(&exec.id, "e", LIMIT).await.expect("deleted");
    pod.remove("a").await;
    let sockets = || std::fs::read_dir(pod.dir.join("shim")).expect("a bundle").flatten();
    eventually("no console socket is left", || {
        sockets().all(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    });
    pod.end().await;
}
