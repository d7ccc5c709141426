//! A process that we did not fork, known by its pid and the time at which it started.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. `None`: it is gone.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // A zombie is gone for our purposes.
    if *fields.first()? == "Z" {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// True if that very process is alive.
pub(crate) fn is_alive(pid: u32, started: u64) -> bool {
    pid != 0 && start_time(pid) == Some(started)
}

/// Kills that very process and waits for its end. Blocks for `limit` at most.
///
/// # Errors
/// A text if it is still there then.
pub(crate) fn kill(pid: u32, started: u64, limit: Duration) -> Result<(), String> {
    const POLL: Duration = Duration::from_millis(2);
    let until = Instant::now() + limit;
    while is_alive(pid, started) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).ok();
        }
        if Instant::now() > until {
            return Err(format!("process {pid} does not end"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_is_believed_only_with_its_start_time() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        assert!(is_alive(child.id(), started));
        assert!(!is_alive(child.id(), started + 1));
        kill(child.id(), started, Duration::from_secs(5)).unwrap();
        assert!(!is_alive(child.id(), started), "a zombie counts as gone");
        child.wait().unwrap();
    }
}
