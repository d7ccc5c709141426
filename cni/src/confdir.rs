//! The node's directory of network configurations.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Network;
use crate::error::{Error, Result};

/// No configuration file is larger.
const MAX_FILE: u64 = 1 << 20;
/// No directory has more files of interest.
const MAX_FILES: usize = 1024;

/// What a directory held when it was read: the network, and what is wrong with the files before it.
#[derive(Debug, Clone)]
pub struct ConfigSet {
    dir: PathBuf,
    network: Option<(PathBuf, Arc<Network>)>,
    errors: Vec<FileError>,
}

/// A file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// Which one; the directory itself if that could not be read.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl ConfigSet {
    /// Reads `dir`: of its files ending in `.conf`, `.conflist` or `.json`, the lexically first that is
    /// valid is the network. Later ones are not looked at; a missing directory is an empty one.
    pub fn load(dir: &Path) -> Self {
        let mut set = Self { dir: dir.to_path_buf(), network: None, errors: Vec::new() };
        let files = match files_ending_in(dir, &["conf", "conflist", "json"]) {
            Ok(files) => files,
            Err(e) => {
                set.errors.push(FileError { path: dir.to_path_buf(), reason: e.to_string() });
                return set;
            }
        };
        for path in files {
            match load_file(&path) {
                Ok(network) => {
                    set.network = Some((path, Arc::new(network)));
                    break;
                }
                Err(e) => set.errors.push(FileError { path, reason: e.to_string() }),
            }
        }
        set
    }

    /// The directory that was read.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's network, if a file describes one.
    pub fn network(&self) -> Option<&Arc<Network>> {
        self.network.as_ref().map(|(_, network)| network)
    }

    /// The file that describes it.
    pub fn path(&self) -> Option<&Path> {
        self.network.as_ref().map(|(path, _)| path.as_path())
    }

    /// What is wrong with the files that come before it, or with all if there is none.
    pub fn errors(&self) -> &[FileError] {
        &self.errors
    }

    /// The state in a line, for status reports: `OK`, or what the operator has to mend. It contains
    /// `cni plugin not initialized` where there is no network, as containerd's does.
    pub fn summary(&self) -> String {
        let errors: Vec<_> =
            self.errors.iter().map(|e| format!("{}: {}", e.path.display(), e.reason)).collect();
        match (&self.network, errors.is_empty()) {
            (Some(_), true) => "OK".to_owned(),
            (Some((path, _)), false) => {
                format!("OK: using {}, ignoring {}", path.display(), errors.join("; "))
            }
            (None, true) => {
                let dir = self.dir.display();
                format!("no network config found in {dir}: cni plugin not initialized")
            }
            (None, false) => format!("{}: cni plugin not initialized", errors.join("; ")),
        }
    }
}

fn load_file(path: &Path) -> Result<Network> {
    let bytes = read_file(path)?;
    if path.extension() != Some(OsStr::new("conflist")) {
        return Network::parse_single(&bytes);
    }
    Network::parse_with(&bytes, |name| {
        let dir = path.with_file_name(name);
        let files = files_ending_in(&dir, &["conf"])?;
        files.iter().map(|file| read_file(file)).collect()
    })
}

/// The files of `dir` with one of these extensions, in lexical order. None if it does not exist.
fn files_ending_in(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("read", dir, e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let wanted = path.extension().is_some_and(|ext| extensions.iter().any(|e| ext == *e));
        if wanted && !entry.file_type().map_err(failed)?.is_dir() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Error::invalid(format!("more than {MAX_FILES} files")));
        }
    }
    files.sort();
    Ok(files)
}

/// Opened without blocking, so that a FIFO in the directory cannot hang us.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io("read", path, e);
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file: File =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::invalid("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::invalid(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"x"}]}"#;

    #[test]
    fn the_first_valid_file_is_the_network_and_the_bad_before_it_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(ConfigSet::load(dir.path()).summary().contains("cni plugin not initialized"));
        put("00-broken.conflist", "{");
        put("05-readme.txt", LIST);
        fs::create_dir(dir.path().join("06-dir.conf")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("07-fifo.conf"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        put("10-a.conflist", LIST);
        put("20-b.conf", r#"{"cniVersion":"1.0.0","name":"b","type":"x"}"#);
        let set = ConfigSet::load(dir.path());
        assert_eq!(set.network().unwrap().name(), "a");
        assert_eq!(set.path().unwrap(), dir.path().join("10-a.conflist"));
        let bad: Vec<_> = set.errors().iter().map(|e| e.path.file_name().unwrap()).collect();
        assert_eq!(bad, ["00-broken.conflist", "07-fifo.conf"]);
        assert!(set.summary().starts_with("OK: using"), "{}", set.summary());

        fs::remove_file(dir.path().join("10-a.conflist")).unwrap();
        assert_eq!(ConfigSet::load(dir.path()).network().unwrap().name(), "b");
        fs::remove_file(dir.path().join("20-b.conf")).unwrap();
        let summary = ConfigSet::load(dir.path()).summary();
        assert!(summary.contains("00-broken") && summary.contains("not initialized"), "{summary}");
    }

    #[test]
    fn plugins_are_read_from_the_directory_of_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let list = r#"{"cniVersion":"1.1.0","name":"n"}"#;
        fs::write(dir.path().join("10-n.conflist"), list).unwrap();
        assert!(ConfigSet::load(dir.path()).network().is_none());
        fs::create_dir(dir.path().join("n")).unwrap();
        fs::write(dir.path().join("n/20-b.conf"), r#"{"type":"b"}"#).unwrap();
        fs::write(dir.path().join("n/10-a.conf"), r#"{"type":"a"}"#).unwrap();
        let set = ConfigSet::load(dir.path());
        let kinds: Vec<_> = set.network().unwrap().plugins().iter().map(|p| p.kind()).collect();
        assert_eq!(kinds, ["a", "b"]);
    }

    #[test]
    fn a_missing_directory_is_empty_and_large_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ConfigSet::load(&dir.path().join("none")).errors().is_empty());
        File::create(dir.path().join("a.conf")).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(ConfigSet::load(dir.path()).summary().contains("larger than"));
    }
}
