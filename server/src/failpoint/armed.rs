//! The points, compiled in. `PODWRIGHT_FAILPOINTS` names a control file; without it every point is passed.
//!
//! A line of the file is `point n action`: the n-th time that the point is passed from now on, the action happens and
//! the line goes, so that the next daemon does not meet it again. Any number of lines may wait at a time.
//!
//! - `kill`: SIGKILL to ourselves.
//! - `fail`: an error that names the point; a point of work that cannot fail ignores the line.
//! - `hang`: the line becomes `point 0 hang`, and nothing goes on here until it is taken out.
//!
//! Beside the file grows `<file>.trace`: each point that was passed, in order, and whether its work can fail
//! (`point fails` or `point sure`). A test learns from it which points there are. Both sides change the control file
//! in place and under flock(2).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, getpid, kill_process};

use crate::error::Error;

/// How often a point that hangs looks whether it may go on.
const HANG_POLL: Duration = Duration::from_millis(10);

/// Errors that a point can be told to have. (No `From`: a second source of errors would leave those of closures open.)
pub(crate) trait Injected {
    /// The failure of this point.
    fn injected(point: &str) -> Self;
}

impl Injected for Error {
    fn injected(point: &str) -> Self {
        Self::Internal(format!("told to fail at {point}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Fail,
    Hang,
}

/// Whether the work at a point can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Can {
    Fail,
    Only,
}

/// A single point.
pub(crate) fn pass<E: Injected>(point: impl std::fmt::Display) -> Result<(), E> {
    block(&point.to_string(), Can::Fail)
}

/// Work that can fail.
pub(crate) fn step<T, E: Injected>(
    name: impl std::fmt::Display,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    block(&format!("{name}/before"), Can::Fail)?;
    let done = work();
    let passed = block(&format!("{name}/after"), Can::Fail);
    let done = done?;
    passed?;
    Ok(done)
}

/// Work that can fail and waits.
pub(crate) async fn step_async<T, E: Injected>(
    name: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    wait(&format!("{name}/before"), Can::Fail).await?;
    let done = work.await;
    let passed = wait(&format!("{name}/after"), Can::Fail).await;
    let done = done?;
    passed?;
    Ok(done)
}

/// Work whose failure nobody asks about.
pub(crate) fn sure<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    block::<Error>(&format!("{name}/before"), Can::Only).ok();
    let done = work();
    block::<Error>(&format!("{name}/after"), Can::Only).ok();
    done
}

/// The same, which waits.
pub(crate) async fn sure_async<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    wait::<Error>(&format!("{name}/before"), Can::Only).await.ok();
    let done = work.await;
    wait::<Error>(&format!("{name}/after"), Can::Only).await.ok();
    done
}

fn block<E: Injected>(point: &str, can: Can) -> Result<(), E> {
    let Some(control) = control() else { return Ok(()) };
    match arrive(control, point, can) {
        Some(Action::Fail) => return Err(E::injected(point)),
        Some(Action::Hang) => {
            while hangs(control, point) {
                std::thread::sleep(HANG_POLL);
            }
        }
        Some(Action::Kill) | None => {}
    }
    Ok(())
}

async fn wait<E: Injected>(point: &str, can: Can) -> Result<(), E> {
    let Some(control) = control() else { return Ok(()) };
    match arrive(control, point, can) {
        Some(Action::Fail) => return Err(E::injected(point)),
        Some(Action::Hang) => {
            while hangs(control, point) {
                tokio::time::sleep(HANG_POLL).await;
            }
        }
        Some(Action::Kill) | None => {}
    }
    Ok(())
}

fn control() -> Option<&'static Path> {
    static CONTROL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let named = || std::env::var_os("PODWRIGHT_FAILPOINTS").map(PathBuf::from);
    CONTROL.get_or_init(named).as_deref()
}

/// Notes that the point is passed, and does or tells what is due there.
fn arrive(control: &Path, point: &str, can: Can) -> Option<Action> {
    let mut trace = control.as_os_str().to_owned();
    trace.push(".trace");
    let kind = if can == Can::Fail { "fails" } else { "sure" };
    if let Ok(mut trace) = File::options().create(true).append(true).open(trace) {
        trace.write_all(format!("{point} {kind}\n").as_bytes()).ok();
    }
    let due = take(control, point, can);
    if due == Some(Action::Kill) {
        kill_process(getpid(), Signal::KILL).ok();
        // Nothing may happen after it, not even in the moment that the signal takes.
        loop {
            std::thread::park();
        }
    }
    due
}

/// Counts the passage in every line of the point, and takes out those that are due.
fn take(control: &Path, point: &str, can: Can) -> Option<Action> {
    let mut file = File::options().read(true).write(true).open(control).ok()?;
    flock(&file, FlockOperation::LockExclusive).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (rest, due) = count(&text, point, can);
    if rest != text {
        file.rewind().ok()?;
        file.write_all(rest.as_bytes()).ok()?;
        file.set_len(rest.len() as u64).ok()?;
    }
    due
}

/// The lines that are left once the point was passed, and what is due now: the first line's action.
fn count(text: &str, point: &str, can: Can) -> (String, Option<Action>) {
    let mut rest = String::new();
    let mut due = None;
    for line in text.lines() {
        match parse(line).filter(|(name, n, action)| {
            *name == point && *n > 0 && (can == Can::Fail || *action != Action::Fail)
        }) {
            Some((name, 1, Action::Hang)) => {
                due.get_or_insert(Action::Hang);
                writeln!(rest, "{name} 0 hang").ok();
            }
            Some((_, 1, action)) => {
                due.get_or_insert(action);
            }
            Some((name, n, _)) => {
                let action = line.rsplit(' ').next().unwrap_or_default();
                writeln!(rest, "{name} {} {action}", n - 1).ok();
            }
            None => writeln!(rest, "{line}").unwrap_or_default(),
        }
    }
    (rest, due)
}

fn parse(line: &str) -> Option<(&str, u32, Action)> {
    let mut words = line.split(' ');
    let (point, n, action) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    let action = match action {
        "kill" => Action::Kill,
        "fail" => Action::Fail,
        "hang" => Action::Hang,
        _ => return None,
    };
    Some((point, n, action))
}

fn hangs(control: &Path, point: &str) -> bool {
    let text = std::fs::read_to_string(control).unwrap_or_default();
    text.lines().any(|line| parse(line) == Some((point, 0, Action::Hang)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_down_and_goes_when_it_is_due() {
        let armed = "a 2 kill\nb 1 fail\na 1 fail\n";
        let (rest, due) = count(armed, "a", Can::Fail);
        assert_eq!((rest.as_str(), due), ("a 1 kill\nb 1 fail\n", Some(Action::Fail)));
        let (rest, due) = count(&rest, "a", Can::Fail);
        assert_eq!((rest.as_str(), due), ("b 1 fail\n", Some(Action::Kill)));
        assert_eq!(count(&rest, "a", Can::Fail), (rest.clone(), None));
        assert_eq!(count(&rest, "b", Can::Only), (rest.clone(), None), "it cannot fail");
        assert_eq!(count("c 1 hang\n", "c", Can::Only), ("c 0 hang\n".into(), Some(Action::Hang)));
    }

    #[test]
    fn the_work_is_done_between_its_points_and_its_own_failure_wins() {
        let done = step("x", || Ok::<_, Error>(7)).unwrap();
        assert_eq!((done, sure("x", || 8)), (7, 8));
        let failed = step("x", || Err::<(), _>(Error::Store("own".into()))).unwrap_err();
        assert!(matches!(failed, Error::Store(text) if text == "own"));
    }
}
