//! Docker's credential helpers: `docker-credential-<name> get`, the server on its standard input, a login as
//! JSON on its standard output.
//!
//! A helper may hang, flood us or leave children behind: its time and its output are bounded, and when either
//! runs out its whole process group is killed. What it prints is never logged.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Deserialize;

use super::super::error::Error;
use super::credentials::Login;

/// Longest answer.
const MAX_ANSWER: usize = 256 << 10;
/// How long a helper may take; some ask a cloud's service.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What a helper prints when it has nothing for a server.
const NONE: &str = "credentials not found";
/// The user name by which a helper says that the secret is an identity token.
const TOKEN: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper; `None`: it has nothing for that server. Blocks.
pub(super) fn get(name: &str, server: &str, patience: Duration) -> Result<Option<Login>, Error> {
    let program = format!("docker-credential-{name}");
    let told = |why: String| Error::Config(format!("{program}: {why}"));
    // The name goes into the search for an executable, so it must not lead elsewhere.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Error::Config(format!("{name:?} is no credential helper's name")));
    }
    let (status, output) = run(&program, server, patience).map_err(told)?;
    if !status.success() {
        // Docker's own helpers say so on standard output.
        if String::from_utf8_lossy(&output).to_lowercase().contains(NONE) {
            return Ok(None);
        }
        return Err(told(format!("it fails for {server}: {status}")));
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| told(format!("it does not answer with a login for {server}")))?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == TOKEN => Some(Login::Identity(secret)),
        Answer { username, secret } => Some(Login::Password { username, password: secret }),
    })
}

fn run(program: &str, server: &str, patience: Duration) -> Result<(ExitStatus, Vec<u8>), String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|err| err.to_string())?;
    // A server's name fits into the pipe, so this does not wait; a helper that does not read it may do so.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).ok();
    }
    match collect(&mut child, Instant::now() + patience) {
        Ok(output) => Ok((child.wait().map_err(|err| err.to_string())?, output)),
        Err(why) => {
            kill(child);
            Err(why)
        }
    }
}

/// What it prints until it exits.
fn collect(child: &mut Child, until: Instant) -> Result<Vec<u8>, String> {
    let text = |err: rustix::io::Errno| err.to_string();
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(text)?;
    let mut stdout = child.stdout.take().ok_or("its output is lost")?;
    rustix::io::ioctl_fionbio(stdout.as_fd(), true).map_err(text)?;
    let mut output = Vec::new();
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("it does not answer in time".into());
        }
        let mut fds = vec![PollFd::new(&exit, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&stdout, PollFlags::IN));
        }
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(text(err)),
        }
        // What it wrote before it exited is in the pipe by then, so one more reading gets all of it.
        let exited = !fds[0].revents().is_empty();
        let mut chunk = [0; 8192];
        while open {
            match stdout.read(&mut chunk) {
                Ok(0) => open = false,
                Ok(count) => output.extend_from_slice(&chunk[..count]),
                Err(err) if err.kind() == ErrorKind::WouldBlock => break,
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err.to_string()),
            }
            if output.len() > MAX_ANSWER {
                return Err("its answer is too long".into());
            }
        }
        if exited {
            return Ok(output);
        }
    }
}

/// Kills it with all that it started, before it is waited for: until then its number is nobody else's.
fn kill(mut child: Child) {
    // The group may be gone already.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    child.wait().ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The program is found by an absolute path here: the search path belongs to the whole process.
    fn helped(script: &str, patience: Duration) -> Result<(ExitStatus, Vec<u8>), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut tries = 0;
        loop {
            // Another test's fork may hold the file open for writing for a moment.
            match run(path.to_str().unwrap(), "r.io", patience) {
                Err(why) if why.contains("busy") && tries < 50 => {
                    tries += 1;
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    #[test]
    fn a_helper_is_asked_and_bounded() {
        let long = Duration::from_secs(60);
        let (status, output) = helped("read server; echo \"$1 $server\"", long).unwrap();
        assert!(status.success());
        assert_eq!(output, b"get r.io\n");
        let (status, output) = helped("echo credentials not found in x; exit 1", long).unwrap();
        assert!(!status.success() && output.starts_with(b"credentials not found"));
        assert!(helped("exec cat /dev/zero", long).unwrap_err().contains("too long"));
        let started = Instant::now();
        let late = helped("sleep 600 & wait", Duration::from_millis(200)).unwrap_err();
        assert!(late.contains("in time") && started.elapsed() < long, "{late}");
        // A child that holds the pipe does not hold us.
        let (_, output) = helped("sleep 5 & echo done", long).unwrap();
        assert_eq!(output, b"done\n");
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "../x", "a/b", "x y"] {
            assert!(get(name, "r.io", PATIENCE).is_err(), "{name}");
        }
        let err = get("surely-not-there", "r.io", PATIENCE).unwrap_err().to_string();
        assert!(err.starts_with("docker-credential-surely-not-there: "), "{err}");
    }
}
