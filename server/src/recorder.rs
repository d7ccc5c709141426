//! The flight recorder: what happened last, kept in memory for whoever has to find out why.
//!
//! A ring of entries of bounded size: the stages that operations enter, how they end, and what is logged from `info`
//! on. Noting something takes a moment, allocates nothing once the ring has gone around, and never waits: an entry whose
//! place is being read is left out. Nothing is written anywhere until somebody asks for a dump.

use std::fmt::{Debug, Display, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};

use crate::operation::Operations;

/// Entries that are kept: some hundred operations' stages.
const ENTRIES: usize = 1024;
/// Bytes of one; more is cut off. All of them together come to a quarter of a megabyte.
const MAX_TEXT: usize = 240;
/// Dumps that are kept: the newest.
const MAX_DUMPS: usize = 8;

struct Entry {
    number: u64,
    at: Option<Instant>,
    kind: &'static str,
    text: String,
}

static NEXT: AtomicU64 = AtomicU64::new(0);
static RING: [Mutex<Entry>; ENTRIES] =
    [const { Mutex::new(Entry { number: 0, at: None, kind: "", text: String::new() }) }; ENTRIES];

/// So many bytes of a text at most, and no half characters.
pub(crate) fn clip(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Text that ends at a limit.
struct Clipped<'a>(&'a mut String);

impl Write for Clipped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = MAX_TEXT.saturating_sub(self.0.len());
        self.0.push_str(clip(text, room));
        Ok(())
    }
}

/// Keeps that this happened. `kind` is one word.
pub(crate) fn note(kind: &'static str, text: impl Display) {
    note_with(kind, |entry| {
        write!(entry, "{text}").ok();
    });
}

fn note_with(kind: &'static str, write: impl FnOnce(&mut Clipped<'_>)) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = usize::try_from(number % ENTRIES as u64).unwrap_or(0);
    let Ok(mut entry) = RING[place].try_lock() else { return };
    (entry.number, entry.at, entry.kind) = (number, Some(Instant::now()), kind);
    entry.text.clear();
    write(&mut Clipped(&mut entry.text));
}

/// Notes what is logged.
#[derive(Debug)]
pub(crate) struct Recorder;

impl<S: tracing::Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        note_with(event.metadata().level().as_str(), |entry| event.record(&mut Fields(entry)));
    }
}

/// The message as it is, and the fields behind their names.
struct Fields<'a, 'b>(&'a mut Clipped<'b>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let lead = if self.0.0.is_empty() { "" } else { " " };
        let name = field.name();
        let written = match name {
            "message" => write!(self.0, "{lead}{value:?}"),
            _ => write!(self.0, "{lead}{name}={value:?}"),
        };
        // Writing to a string cannot fail.
        written.ok();
    }
}

/// What is kept, the latest last.
fn entries(now: Instant) -> String {
    let mut all: Vec<(u64, String)> = Vec::new();
    for place in &RING {
        // Whoever panicked while holding it had only half a text to leave.
        let entry = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = entry.at {
            let before = now.saturating_duration_since(at).as_secs_f64();
            let text = entry.text.replace('\n', " ");
            all.push((entry.number, format!("{before:>14.6}  {:<6} {text}\n", entry.kind)));
        }
    }
    all.sort();
    all.into_iter().map(|(_, line)| line).collect()
}

/// Writes a file in `dir` with the operations under way and all that the ring holds. Blocks.
///
/// # Errors
/// When that cannot be done.
pub(crate) fn dump(operations: &Operations, dir: &Path, why: &str) -> std::io::Result<PathBuf> {
    let (wall, now) = (SystemTime::now(), Instant::now());
    let mut text = format!(
        "podwrightd {}, pid {}, {why} at {}\n\noperations under way:\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        httpdate::fmt_http_date(wall)
    );
    for operation in operations.list() {
        // Writing to a string cannot fail.
        writeln!(text, "  {operation}").ok();
    }
    text.push_str("\nwhat happened, in seconds before now, the latest last:\n");
    text.push_str(&entries(now));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let stamp = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = dir.join(format!("{:012}.{:09}-{why}.txt", stamp.as_secs(), stamp.subsec_nanos()));
    let draft = dir.join("draft");
    std::fs::remove_file(&draft).ok();
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&draft);
    std::io::Write::write_all(&mut file?, text.as_bytes())?;
    std::fs::rename(&draft, &path)?;
    forget_oldest(dir)?;
    Ok(path)
}

/// Their names sort by time.
fn forget_oldest(dir: &Path) -> std::io::Result<()> {
    let mut dumps: Vec<PathBuf> =
        std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    dumps.sort();
    let many = dumps.len().saturating_sub(MAX_DUMPS);
    dumps.iter().take(many).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_and_a_dump_tells_them_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let operations = Operations::default();
        let operation = operations.begin("pull");
        operation.enter("under test").unwrap();
        note("first", "is forgotten");
        for number in 0..ENTRIES + 10 {
            note("test", format_args!("entry {number} {}", "ä".repeat(MAX_TEXT)));
        }
        let path = dump(&operations, dir.path(), "test").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("  pull: under test for "), "{text}");
        assert!(!text.contains("is forgotten"));
        // Other tests of this process note things, too.
        let own: Vec<usize> = text
            .lines()
            .filter_map(|line| {
                line.split_once("  test   entry ")?.1.split(' ').next()?.parse().ok()
            })
            .collect();
        assert!(own.is_sorted() && *own.last().unwrap() == ENTRIES + 9 && own.len() > 10);
        assert!(text.lines().all(|line| line.len() < MAX_TEXT + 40));
        for _ in 0..MAX_DUMPS + 2 {
            dump(&operations, dir.path(), "test").unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), MAX_DUMPS);
    }
}
