//! The exit record: one JSON line that podwright-shim writes before it tells anyone of an exit.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The note in a container's bundle that says how its runtime is called. It is there from before the first call
/// until the runtime has forgotten the container: with a shim that is gone, it tells that calls may be cut off.
pub const RUNTIME_NOTE: &str = "runtime.json";
/// A record is a few numbers and an id.
const MAX_SIZE: u64 = 4096;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// The container.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// The exit code, or 128 plus the signal.
    pub status: u32,
    /// When it ended.
    pub exited_at: SystemTime,
    /// Whether it ended because it ran out of memory.
    pub oom_killed: bool,
    /// The signal that ended it, if one did.
    pub signal: Option<u32>,
    /// What went into its log, with what stands before each line; 0 where the shim does not tell.
    pub log_bytes: u64,
    /// What the log's disk did not take.
    pub log_lost_bytes: u64,
    /// The same in lines.
    pub log_lost_lines: u64,
}

impl ExitRecord {
    /// Reads a record; `None` if the container has not exited (there is no such file).
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "not an exit record");
        if metadata.len() > MAX_SIZE {
            return Err(broken());
        }
        Self::parse(&std::fs::read(path)?).map(Some).ok_or_else(broken)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(bytes).ok()?;
        let number = |key: &str| record[key].as_u64().and_then(|value| u32::try_from(value).ok());
        Some(Self {
            id: record["id"].as_str()?.to_owned(),
            pid: number("pid")?,
            status: number("status")?,
            exited_at: UNIX_EPOCH + Duration::from_nanos(record["exited_at_ns"].as_u64()?),
            oom_killed: record["oom_killed"].as_bool()?,
            signal: number("signal"),
            log_bytes: record["log_bytes"].as_u64().unwrap_or(0),
            log_lost_bytes: record["log_lost_bytes"].as_u64().unwrap_or(0),
            log_lost_lines: record["log_lost_lines"].as_u64().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_garbage_is_not() {
        let line = br#"{"id":"c","pid":7,"status":137,"exited_at_ns":1000000001,"oom_killed":true,"signal":9}"#;
        let record = ExitRecord::parse(line).expect("valid");
        assert_eq!((record.status, record.signal, record.oom_killed), (137, Some(9), true));
        assert_eq!(record.exited_at, UNIX_EPOCH + Duration::new(1, 1));
        assert_eq!((record.log_bytes, record.log_lost_lines), (0, 0), "an older shim's");
        let told = br#"{"id":"c","pid":7,"status":0,"exited_at_ns":1,"oom_killed":false,"signal":null,"log_bytes":5,"log_lost_bytes":6,"log_lost_lines":1}"#;
        let record = ExitRecord::parse(told).expect("valid");
        assert_eq!((record.log_bytes, record.log_lost_bytes, record.log_lost_lines), (5, 6, 1));
        assert_eq!(ExitRecord::parse(b"{}"), None);
        assert_eq!(ExitRecord::parse(b"\xff"), None);
        assert_eq!(ExitRecord::read(Path::new("/nonexistent/exit.json")).expect("absent"), None);
    }
}
