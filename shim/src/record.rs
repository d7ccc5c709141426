//! What podwright-shim writes of a container beside its log: how its output went, while it runs, and the exit record,
//! one JSON line, before anyone is told of an exit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The note in a container's bundle that says how its runtime is called. It is there from before the first call
/// until the runtime has forgotten the container: with a shim that is gone, it tells that calls may be cut off.
pub const RUNTIME_NOTE: &str = "runtime.json";
/// The file in a container's bundle that holds a [`Logged`], always of this moment.
pub const LOGGED: &str = "logged";
/// A record is a few numbers and an id.
const MAX_SIZE: u64 = 4096;

/// What became of all output of a container so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Logged {
    /// What went into its log, with what stands before each line.
    pub bytes: u64,
    /// What the log's disk did not take.
    pub lost_bytes: u64,
    /// The same in lines.
    pub lost_lines: u64,
}

/// As they stand in the file.
impl From<[u64; 3]> for Logged {
    fn from([bytes, lost_bytes, lost_lines]: [u64; 3]) -> Self {
        Self { bytes, lost_bytes, lost_lines }
    }
}

impl From<Logged> for [u64; 3] {
    fn from(Logged { bytes, lost_bytes, lost_lines }: Logged) -> Self {
        [bytes, lost_bytes, lost_lines]
    }
}

impl Logged {
    /// Reads the file: three numbers of eight bytes, in the machine's order. `None` if there is none, as of an older
    /// shim, or it has not been filled yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let mut bytes = [0; 24];
        match File::open(path).and_then(|mut file| file.read_exact(&mut bytes)) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let mut numbers = [0; 3];
        for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
            *number = u64::from_ne_bytes(*bytes);
        }
        Ok(Some(numbers.into()))
    }
}

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
    /// What became of its output; nothing where the shim does not tell.
    pub logged: Logged,
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
        let logged = |key: &str| record[key].as_u64().unwrap_or(0);
        Some(Self {
            id: record["id"].as_str()?.to_owned(),
            pid: number("pid")?,
            status: number("status")?,
            exited_at: UNIX_EPOCH + Duration::from_nanos(record["exited_at_ns"].as_u64()?),
            oom_killed: record["oom_killed"].as_bool()?,
            signal: number("signal"),
            logged: Logged {
                bytes: logged("log_bytes"),
                lost_bytes: logged("log_lost_bytes"),
                lost_lines: logged("log_lost_lines"),
            },
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
        assert_eq!(record.logged, Logged::default(), "an older shim's");
        let told = br#"{"id":"c","pid":7,"status":0,"exited_at_ns":1,"oom_killed":false,"signal":null,"log_bytes":5,"log_lost_bytes":6,"log_lost_lines":1}"#;
        let record = ExitRecord::parse(told).expect("valid");
        assert_eq!(record.logged, Logged { bytes: 5, lost_bytes: 6, lost_lines: 1 });
        assert_eq!(ExitRecord::parse(b"{}"), None);
        assert_eq!(ExitRecord::parse(b"\xff"), None);
        assert_eq!(ExitRecord::read(Path::new("/nonexistent/exit.json")).expect("absent"), None);
    }
}
