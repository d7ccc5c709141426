//! What became of a container's output, counted by the log thread where everybody can look: in a file of the bundle.
//!
//! The daemon reads the file when somebody asks it; nothing is sent, and counting costs what it costs in memory.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use shim::record::Logged;

use crate::sys::Mapped;

/// Those of a [`Logged`].
type Numbers = [AtomicU64; 3];

/// The counts. The event loop looks at what the log thread counts.
pub(crate) struct Written(Place);

enum Place {
    Own(Numbers),
    File(Mapped<3>),
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

impl Default for Written {
    fn default() -> Self {
        Self(Place::Own(Numbers::default()))
    }
}

impl Written {
    /// Counts in a new file at `path`, or just here if that cannot be.
    pub(crate) fn at(path: &Path) -> Self {
        match map(path) {
            Ok(mapped) => Self(Place::File(mapped)),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                Self::default()
            }
        }
    }

    fn numbers(&self) -> &Numbers {
        match &self.0 {
            Place::Own(numbers) => numbers,
            Place::File(mapped) => mapped,
        }
    }

    pub(crate) fn add(&self, more: Logged) {
        let more = <[u64; 3]>::from(more);
        for (number, more) in self.numbers().iter().zip(more).filter(|(_, more)| *more > 0) {
            number.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn now(&self) -> Logged {
        self.numbers().each_ref().map(|number| number.load(Ordering::Relaxed)).into()
    }
}

fn map(path: &Path) -> io::Result<Mapped<3>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    // Written, so that the file has room: memory of a file without is a signal when it is touched.
    file.write_all(&[0; size_of::<Numbers>()])?;
    Mapped::new(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_the_file_sees_the_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("logged");
        let written = Written::at(&path);
        let read = || Logged::read(&path).expect("readable").expect("filled");
        assert_eq!(read(), Logged::default());
        written.add(Logged { bytes: 5, lost_bytes: 0, lost_lines: 0 });
        written.add(Logged { bytes: 2, lost_bytes: 9, lost_lines: 1 });
        let counted = Logged { bytes: 7, lost_bytes: 9, lost_lines: 1 };
        assert_eq!((read(), written.now()), (counted, counted));
        let nowhere = Written::at(&dir.path().join("none/logged"));
        nowhere.add(counted);
        assert_eq!(nowhere.now(), counted);
        assert_eq!(Logged::read(&dir.path().join("none")).expect("no error"), None);
    }
}
