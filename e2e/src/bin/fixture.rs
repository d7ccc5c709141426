//! Processes that a world needs and no package has: its pid 1.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio, exit};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["init", script] => init(script),
        _ => {
            eprintln!("fixture init SCRIPT");
            ExitCode::FAILURE
        }
    }
}

/// Pid 1 of a world: prepares it, says `ready`, reaps, and leaves when its standard input closes.
fn init(script: &str) -> ExitCode {
    let prepared = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).status();
    if !prepared.is_ok_and(|status| status.success()) {
        return ExitCode::FAILURE;
    }
    // One child that never ends, so that waiting for any child always blocks.
    let anchor = Command::new("/bin/busybox").args(["sleep", "2147483647"]).spawn();
    if anchor.is_err() || writeln!(std::io::stdout(), "ready").is_err() {
        return ExitCode::FAILURE;
    }
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        exit(0);
    });
    loop {
        if let Err(err) = rustix::process::wait(rustix::process::WaitOptions::empty()) {
            eprintln!("wait: {err}");
            return ExitCode::FAILURE;
        }
    }
}
