//! Reading the log files that CRI prescribes.
//!
//! A line is `<time> <stdout|stderr> <tags> <content>`. The tag `P` says that the next entry of
//! the same stream goes on where this one stops, `F` that a line ends here.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The longest entry that is held at once. The daemon writes far shorter ones.
const MAX_ENTRY: u64 = 1 << 20;

/// Which of a container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// One line of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) time: &'a [u8],
    pub(crate) stream: Stream,
    /// Whether the line ends here.
    pub(crate) ends: bool,
    pub(crate) content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses a line without its line break; `None` if it is not of the form.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let ends = match tags.split(|byte| *byte == b':').next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, ends, content: parts.next().unwrap_or_default() })
    }
}

/// Where a container's two outputs go, joined into lines again.
#[derive(Debug)]
pub(crate) struct Printer<O, E> {
    stdout: O,
    stderr: E,
    timestamps: bool,
    /// For each stream, whether its last entry was a part of a line.
    within: [bool; 2],
}

impl<O: Write, E: Write> Printer<O, E> {
    pub(crate) fn new(stdout: O, stderr: E, timestamps: bool) -> Self {
        Self { stdout, stderr, timestamps, within: [false; 2] }
    }

    /// Prints one line of the file; what is not of the form is printed as it is.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(entry) = Entry::parse(line) else {
            self.stdout.write_all(line)?;
            return self.stdout.write_all(b"\n");
        };
        let out: &mut dyn Write = match entry.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let within = &mut self.within[entry.stream as usize];
        if self.timestamps && !*within {
            out.write_all(entry.time)?;
            out.write_all(b" ")?;
        }
        out.write_all(entry.content)?;
        if entry.ends {
            out.write_all(b"\n")?;
        }
        *within = !entry.ends;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }
}

/// A log file under reading, which its writer may extend and rotate away.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// What of an unfinished last line was read already.
    rest: Vec<u8>,
}

impl Reader {
    /// Opens the file at its beginning.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 16, File::open(path)?);
        Ok(Self { path: path.to_owned(), file, rest: Vec::new() })
    }

    /// Goes to where the last `count` lines of output begin.
    pub(crate) fn seek_tail(&mut self, count: usize) -> io::Result<()> {
        let start = tail_start(&mut self.file, count)?;
        self.file.seek(SeekFrom::Start(start))?;
        Ok(())
    }

    /// Prints what there is, to the end of the file; whether there was anything.
    pub(crate) fn drain<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> io::Result<bool> {
        let mut any = false;
        loop {
            let limit = MAX_ENTRY - self.rest.len() as u64;
            let read = (&mut self.file).take(limit).read_until(b'\n', &mut self.rest)?;
            any |= read > 0;
            match self.rest.strip_suffix(b"\n") {
                Some(line) => to.line(line)?,
                None if self.rest.len() as u64 >= MAX_ENTRY => to.line(&self.rest)?,
                None => break,
            }
            self.rest.clear();
        }
        to.flush()?;
        Ok(any)
    }

    /// Prints a last line that never got its line break.
    pub(crate) fn finish<O: Write, E: Write>(&mut self, to: &mut Printer<O, E>) -> io::Result<()> {
        if !self.rest.is_empty() {
            to.line(&self.rest)?;
            self.rest.clear();
        }
        to.flush()
    }

    /// Prints what there is, going over to the file that has taken the place of this one, if one
    /// has; whether there may be more at once.
    pub(crate) fn follow<O: Write, E: Write>(
        &mut self,
        to: &mut Printer<O, E>,
    ) -> io::Result<bool> {
        if self.drain(to)? {
            return Ok(true);
        }
        let open = self.file.get_ref().metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(now) if now.ino() == open.ino() && now.dev() == open.dev() => {
                let cut_in_place = now.len() < self.file.stream_position()?;
                if cut_in_place {
                    self.file.rewind()?;
                }
                Ok(cut_in_place)
            }
            Ok(_) => {
                let next = Self::open(&self.path)?;
                // Written after the look above, and before the writer went over.
                self.drain(to)?;
                self.finish(to)?;
                *self = next;
                Ok(true)
            }
            // Renamed away, and not made anew yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The offset at which the last `count` lines of output begin. Entries that belong to one line
/// count once.
fn tail_start(file: &mut impl BufRead, count: usize) -> io::Result<u64> {
    let mut starts = std::collections::VecDeque::with_capacity(count.min(4096) + 1);
    let mut within = [false; 2];
    let mut line = Vec::new();
    let mut offset = 0;
    loop {
        line.clear();
        let read = file.take(MAX_ENTRY).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(if count == 0 { offset } else { starts.front().copied().unwrap_or(offset) });
        }
        let entry = Entry::parse(line.strip_suffix(b"\n").unwrap_or(&line));
        let (begins, stream) = entry.as_ref().map_or((true, None), |entry| {
            (!within[entry.stream as usize], Some((entry.stream, entry.ends)))
        });
        if let Some((stream, ends)) = stream {
            within[stream as usize] = !ends;
        }
        if begins && count > 0 {
            if starts.len() == count {
                starts.pop_front();
            }
            starts.push_back(offset);
        }
        offset += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-21T03:00:00.000000001Z stdout F one
2026-11-21T03:00:00.000000002Z stderr P bad
2026-11-21T03:00:00.000000003Z stdout P tw
2026-11-21T03:00:00.000000004Z stderr F ness
2026-11-21T03:00:00.000000005Z stdout P:extra o
2026-11-21T03:00:00.000000006Z stdout F \n\
2026-11-21T03:00:00.000000007Z stdout F three  four
";

    fn read(log: &str, tail: Option<usize>, timestamps: bool) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, log).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        if let Some(count) = tail {
            reader.seek_tail(count).unwrap();
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut out, &mut err, timestamps);
        reader.drain(&mut printer).unwrap();
        reader.finish(&mut printer).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn parts_are_joined_stream_by_stream() {
        let (out, err) = read(LOG, None, false);
        assert_eq!(out, "one\ntwo\nthree  four\n");
        assert_eq!(err, "badness\n");
    }

    #[test]
    fn a_timestamp_stands_before_each_line_once() {
        let (out, err) = read(LOG, None, true);
        assert_eq!(err, "2026-11-21T03:00:00.000000002Z badness\n");
        assert_eq!(out.matches("2026-").count(), 3);
        assert!(out.contains("2026-11-21T03:00:00.000000003Z two\n"), "{out}");
    }

    #[test]
    fn the_tail_counts_lines_of_output() {
        assert_eq!(read(LOG, Some(0), false), (String::new(), String::new()));
        assert_eq!(read(LOG, Some(1), false).0, "three  four\n");
        // The second line from the end began with its first part.
        let (out, _) = read(LOG, Some(2), false);
        assert_eq!(out, "two\nthree  four\n");
        assert_eq!(read(LOG, Some(99), false).0, "one\ntwo\nthree  four\n");
    }

    #[test]
    fn what_is_not_of_the_form_is_shown_as_it_is() {
        let log = "no log\n2026 stdin F x\n2026 stdout Q x\n2026 stdout F y\n\n";
        assert_eq!(read(log, None, false).0, "no log\n2026 stdin F x\n2026 stdout Q x\ny\n\n");
        assert_eq!(Entry::parse(b"2026 stdout F"), Entry::parse(b"2026 stdout F "));
    }

    #[test]
    fn an_unfinished_last_part_is_printed_without_a_line_break() {
        assert_eq!(read("2026 stdout P half\n", None, false).0, "half");
        assert_eq!(read("2026 stdout F whole", None, false).0, "whole\n");
    }

    #[test]
    fn an_endless_entry_is_cut() {
        let log = "x".repeat(MAX_ENTRY as usize + 10);
        let (out, _) = read(&log, None, false);
        assert_eq!(out.len(), log.len() + 2);
    }

    #[test]
    fn rotation_and_truncation_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "t stdout F a\nt stdout F b").unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, io::sink(), false);
        let mut all = || while reader.follow(&mut printer).unwrap() {};
        all();
        // The writer ends its line, then the file is rotated.
        File::options().append(true).open(&path).unwrap().write_all(b"c\n").unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        all();
        std::fs::write(&path, "t stdout F d\nt stdout F e\n").unwrap();
        all();
        std::fs::write(&path, "t stdout F f\n").unwrap();
        all();
        assert_eq!(String::from_utf8(out).unwrap(), "a\nbc\nd\ne\nf\n");
    }
}
