//! systemd's side of the daemon: it is told that the daemon is ready, well, or ends; its journal takes the log.
//!
//! What systemd says in the environment is taken out of it before there is a second thread, since whatever the daemon
//! starts inherits it: runc and crun that see `NOTIFY_SOCKET` wait at a container's start until the container itself
//! says that it is ready. Without systemd, or another that speaks its protocol, all of this does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// For a socket that nobody reads.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the environment said.
#[derive(Debug, Default)]
struct Said {
    socket: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

static SAID: OnceLock<Said> = OnceLock::new();

/// Reads what systemd says, and takes it out of the environment. The first thing that the process does.
pub(crate) fn listen() {
    let said = read(|name| std::env::var(name).ok(), std::process::id());
    SAID.set(said).ok();
    crate::sys::forget_variables(&[NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID]);
}

fn read(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Said {
    let socket = variable(NOTIFY_SOCKET).and_then(|path| match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(path).ok(),
    });
    // Meant for another process where it names one.
    let ours = variable(WATCHDOG_PID).is_none_or(|text| text.parse() == Ok(pid));
    let micros = variable(WATCHDOG_USEC).and_then(|text| text.parse().ok());
    let watchdog = micros.filter(|micros| ours && *micros > 0).map(Duration::from_micros);
    Said { socket, watchdog }
}

/// How long systemd waits for a word that all is well, if it does.
pub(crate) fn watchdog() -> Option<Duration> {
    SAID.get()?.watchdog
}

/// Tells systemd, as sd_notify(3) spells it.
pub(crate) fn tell(state: &str) {
    let Some(socket) = SAID.get().and_then(|said| said.socket.as_ref()) else { return };
    let send = || {
        let from = UnixDatagram::unbound()?;
        from.set_write_timeout(Some(PATIENCE))?;
        from.send_to_addr(state.as_bytes(), socket)
    };
    if let Err(err) = send() {
        tracing::debug!(%err, state, "systemd was not told");
    }
}

/// Whether standard error is the journal's: it says which file that is, and another may have taken its place.
pub(crate) fn logs_to_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else { return false };
    let error = std::fs::metadata("/proc/self/fd/2");
    error.is_ok_and(|error| journal == format!("{}:{}", error.dev(), error.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_another_process_is_not_taken() {
        let said = |pairs: &'static [(&str, &str)]| {
            let find = move |name: &str| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let said = read(find, 7);
            (said.socket.is_some(), said.watchdog.map(|time| time.as_millis()))
        };
        assert_eq!(said(&[]), (false, None));
        assert_eq!(
            said(&[("NOTIFY_SOCKET", "/run/n"), ("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "7")]),
            (true, Some(2))
        );
        assert_eq!(said(&[("NOTIFY_SOCKET", "@n"), ("WATCHDOG_USEC", "2000")]), (true, Some(2)));
        assert_eq!(said(&[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "8")]), (false, None));
        assert_eq!(said(&[("WATCHDOG_USEC", "0")]), (false, None));
    }
}
