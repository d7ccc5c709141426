//! The leases on disk, as host-local keeps them: a file for each address, with the owner in it, and one for each
//! range set that says which was given away last. All of it under a [`Lock`].

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lock::{self, Lock};
use crate::error::{Error, Result};
use crate::native::Job;

const LAST: &str = "last_reserved_ip.";
/// No lease is longer: an id and a name.
const MAX_LEASE: u64 = 4096;

/// The leases of a network, locked.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: Lock,
}

/// A lease: its file's name and the owner that it names.
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    owner: String,
}

impl Lease {
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    /// Does it name the attachment, or the container alone as very old leases do?
    pub(crate) fn belongs_to(&self, job: &Job<'_>) -> bool {
        self.owner == owner(job) || self.owner == job.container_id()
    }
}

fn owner(job: &Job<'_>) -> String {
    format!("{}\r\n{}", job.container_id(), job.ifname())
}

impl Store {
    /// Makes the directory if there is none, and waits for the lock.
    pub(crate) fn open(dir: &Path, job: &Job<'_>) -> Result<Self> {
        let failed = |e| Error::io("open", dir, e);
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        let lock = Lock::take(dir, job.deadline, |over| job.over(over))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// All leases.
    pub(crate) fn leases(&self) -> Result<Vec<Lease>> {
        let entries = fs::read_dir(&self.dir).map_err(|e| Error::io("list", &self.dir, e))?;
        let lease = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            if name == lock::NAME || name.starts_with(LAST) || !entry.file_type().ok()?.is_file() {
                return None;
            }
            let owner = read(&entry.path()).unwrap_or_default();
            Some(Lease { name, owner: owner.trim().to_owned() })
        };
        Ok(entries.flatten().filter_map(lease).collect())
    }

    /// Gives `addr` to the job's attachment; false if it is somebody's.
    pub(crate) fn reserve(&self, addr: IpAddr, set: usize, job: &Job<'_>) -> Result<bool> {
        let path = self.dir.join(addr.to_string());
        let mut options = OpenOptions::new();
        let mut lease = match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(lease) => lease,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(Error::io("create", &path, e)),
        };
        if let Err(e) = lease.write_all(owner(job).as_bytes()) {
            let _ = fs::remove_file(&path);
            return Err(Error::io("write", &path, e));
        }
        let path = self.last(set);
        let mut options = OpenOptions::new();
        let last = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        last.and_then(|mut last| last.write_all(addr.to_string().as_bytes()))
            .map_err(|e| Error::io("write", &path, e))?;
        Ok(true)
    }

    /// Which address of the range set was given away last.
    pub(crate) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        read(&self.last(set)).ok()?.parse().ok()
    }

    /// Frees what the job's attachment has. What cannot be freed stays, as host-local has it.
    pub(crate) fn release(&self, job: &Job<'_>) -> Result<()> {
        let leases = self.leases()?;
        // Leases that name the container alone count only where none names the attachment.
        for owner in [owner(job), job.container_id().to_owned()] {
            let mut found = false;
            for lease in leases.iter().filter(|lease| lease.owner == owner) {
                let path = self.dir.join(&lease.name);
                match fs::remove_file(&path) {
                    Ok(()) => found = true,
                    Err(e) => tracing::warn!(lease = %path.display(), error = %e, "not freed"),
                }
            }
            if found {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, set: usize) -> PathBuf {
        self.dir.join(format!("{LAST}{set}"))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, MAX_LEASE), &mut text)?;
    Ok(text)
}
