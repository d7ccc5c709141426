//! The cgroup of a shared pid namespace's init, which no runtime makes for us.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{ROOT, unified};

/// A cgroup of ours, in each hierarchy that there is.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    dirs: Vec<PathBuf>,
}

impl Leaf {
    /// Names it; the path is relative to the cgroup root.
    pub(crate) fn new(path: &str) -> io::Result<Self> {
        let relative = Path::new(path.trim_start_matches('/'));
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if relative.as_os_str().is_empty() || !plain {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let roots = if unified() {
            vec![PathBuf::from(ROOT)]
        } else {
            // Co-mounted controllers have links beside the directory; those are not followed.
            let real = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            let entries = fs::read_dir(ROOT)?.flatten().filter(real);
            entries
                .map(|entry| entry.path())
                .filter(|dir| dir.join("cgroup.procs").exists())
                .collect()
        };
        Ok(Self { dirs: roots.into_iter().map(|root| root.join(relative)).collect() })
    }

    /// Makes it where the pod's own cgroup exists, and moves the calling process into it. Where nobody made the
    /// pod's, one hierarchy is enough: what is in a cgroup can be found and ended whatever becomes of the shim.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let mut entered = false;
        for dir in self.dirs.iter().filter(|dir| dir.parent().is_some_and(Path::exists)) {
            entered |= enter(dir)?;
        }
        let mut others = self.dirs.iter();
        while let (false, Some(dir)) = (entered, others.next()) {
            fs::create_dir_all(dir)?;
            entered = enter(dir)?;
        }
        Ok(())
    }

    /// Removes it, once it is empty.
    pub(crate) fn remove(&self) {
        for dir in &self.dirs {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes one of its directories and moves the calling process into it; false where that admits nobody.
fn enter(dir: &Path) -> io::Result<bool> {
    if let Err(error) = fs::create_dir(dir)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    // An empty cpuset admits nobody; the pod's own then does.
    let cpuset = dir.join("cpuset.cpus");
    if !unified() && cpuset.exists() && fs::read_to_string(cpuset)?.trim().is_empty() {
        fs::remove_dir(dir)?;
        return Ok(false);
    }
    fs::write(dir.join("cgroup.procs"), "0")?;
    Ok(true)
}
