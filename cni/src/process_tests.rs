//! Programs that behave badly.

use super::*;
use crate::deadline::Cancel;
use std::time::Instant;

/// More than any of these programs needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(50);

fn sh(script: &str, stdin: &[u8], deadline: &Deadline) -> Result<Output, Failure> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let env = vec![("PATH", OsString::from("/usr/bin:/bin"))];
    run(&Program { path: &path, args: Vec::new(), env, stdin, max_stdout: 1 << 20 }, deadline)
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

#[test]
fn input_goes_in_and_output_comes_out() {
    let input = vec![b'x'; 300_000];
    let output = sh("cat; echo oops >&2; exit 3", &input, &soon()).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 300_000));
    assert_eq!(output.stderr, b"oops\n");
}

#[test]
fn a_program_that_does_not_read_is_not_waited_for() {
    let output = sh("exec <&-; echo done", &vec![b'x'; 1 << 20], &soon()).unwrap();
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_grandchild_that_holds_the_pipes_is_not_waited_for() {
    let started = Instant::now();
    let output = sh("sleep 60 & echo $!", b"", &soon()).unwrap();
    assert!(started.elapsed() < PATIENCE);
    let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn at_the_deadline_the_whole_group_dies() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let script = format!("sleep 60 & echo $! > {}; wait", file.display());
    let failure = sh(&script, b"", &Deadline::after(Duration::from_secs(3))).unwrap_err();
    assert!(matches!(failure, Failure::Over(Over::TimedOut)), "{failure:?}");
    let pid = std::fs::read_to_string(&file).unwrap();
    assert!(dies(pid.trim()), "{pid} lives");
}

fn dies(pid: &str) -> bool {
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(5)),
            _ => return true,
        }
    }
    false
}

#[test]
fn a_cancel_ends_the_wait() {
    let cancel = Cancel::new().unwrap();
    let deadline = soon().or(&cancel);
    let started = Instant::now();
    let waiting = std::thread::spawn(move || sh("exec sleep 60", b"", &deadline));
    cancel.cancel();
    let failure = waiting.join().unwrap().unwrap_err();
    assert!(
        matches!(failure, Failure::Over(Over::Cancelled)) && started.elapsed() < PATIENCE,
        "{failure:?}"
    );
}

#[test]
fn floods_are_cut() {
    let failure = sh("exec cat /dev/zero", b"", &soon()).unwrap_err();
    assert!(matches!(failure, Failure::TooMuch), "{failure:?}");
    let output = sh("head -c 3000000 /dev/zero >&2; echo end >&2", b"", &soon()).unwrap();
    assert_eq!(output.stderr.len(), MAX_STDERR);
    assert!(output.stderr.ends_with(b"end\n"));
    let failure = sh("exec cat /dev/zero >&2", b"", &Deadline::after(Duration::from_secs(1)));
    assert!(matches!(failure, Err(Failure::Over(Over::TimedOut))), "{failure:?}");
}

#[test]
fn nothing_of_ours_is_open_in_the_program() {
    // Inheritable on purpose: what a C library or whoever started us may have left.
    let leak = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let output =
        sh("ls /proc/self/fd | wc -l; env | cut -d= -f1 | sort | tr '\\n' ' '", b"", &soon())
            .unwrap();
    // 0, 1, 2 and the descriptor with which ls reads the directory.
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "4\nPATH PWD _ ".replace(" _", ""),
        "sh adds PWD"
    );
}

#[test]
fn what_cannot_be_executed_is_an_error() {
    let program = Program {
        path: Path::new("/none"),
        args: Vec::new(),
        env: Vec::new(),
        stdin: b"",
        max_stdout: 1,
    };
    assert!(matches!(run(&program, &soon()), Err(Failure::Io("execute", _))));
    let passed = Deadline::after(Duration::ZERO);
    assert!(matches!(run(&program, &passed), Err(Failure::Over(Over::TimedOut))));
}
