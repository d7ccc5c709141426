//! The daemon's failpoints, as a test arms them: see `server/src/failpoint/armed.rs` for the files.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::world::World;

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Kill,
    Fail,
    Hang,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
            Self::Hang => "hang",
        }
    }
}

/// A point that is to act when it is passed for the n-th time from now on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Armed {
    pub point: String,
    pub n: usize,
    pub action: Action,
}

impl std::fmt::Display for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.point, self.n, self.action.word())
    }
}

/// A point that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub point: String,
    /// Whether its work can fail.
    pub fails: bool,
}

/// The two files of one world's daemon.
#[derive(Debug, Clone)]
pub struct Failpoints {
    control: PathBuf,
}

impl Failpoints {
    pub(crate) fn of(world: &World) -> Self {
        Self { control: world.path("failpoints") }
    }

    pub(crate) fn control(&self) -> &PathBuf {
        &self.control
    }

    fn trace_file(&self) -> PathBuf {
        self.control.with_extension("trace")
    }

    /// Arms these and no others, and forgets what was passed so far.
    pub fn arm(&self, armed: &[Armed]) {
        let text: String = armed.iter().map(|one| format!("{one}\n")).collect();
        let mut file = self.locked();
        std::fs::write(self.trace_file(), "").expect("the world's directory");
        file.set_len(0).and_then(|()| file.rewind()).expect("the world's directory");
        file.write_all(text.as_bytes()).expect("the world's directory");
    }

    /// What has not acted yet, as it was written.
    pub fn waiting(&self) -> Vec<String> {
        let mut text = String::new();
        self.locked().read_to_string(&mut text).expect("the world's directory");
        text.lines().map(str::to_owned).collect()
    }

    /// Every point that was passed since the last [`Failpoints::arm`], in order.
    pub fn trace(&self) -> Vec<Passed> {
        let text = std::fs::read_to_string(self.trace_file()).unwrap_or_default();
        let passed = |line: &str| {
            let (point, kind) = line.split_once(' ')?;
            Some(Passed { point: point.to_owned(), fails: kind == "fails" })
        };
        text.lines().filter_map(passed).collect()
    }

    fn locked(&self) -> File {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.control)
            .expect("the world's directory");
        flock(&file, FlockOperation::LockExclusive).expect("a file can be locked");
        file
    }
}
