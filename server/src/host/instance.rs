//! Which podwrightd this is.
//!
//! Several may run on one host, each on directories of its own, and they share what is the host's: the directory
//! of network namespaces, the cache of CNI results. What one makes there bears its mark, and no other touches it.
//! The mark is drawn once and kept in both of our directories, so that losing one of them does not lose it.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::id::{ContainerId, SandboxId};

/// Where network namespaces are pinned, as operators and plugins expect.
const NETNS_DIR: &str = "/run/netns";
const FILE: &str = "instance";
/// Hexadecimal digits; few, since they are part of every name.
const MARK_LEN: usize = 8;

/// The mark of this daemon's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance(String);

impl Instance {
    /// Finds the mark below `root` or `state`, or draws one, and keeps it in both. The caller holds the lock on
    /// `root`. Blocks.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(crate) fn establish(root: &Path, state: &Path) -> Result<Self> {
        let places = [root.join(FILE), state.join(FILE)];
        let mark = places.iter().find_map(|path| read(path));
        let mark = mark.unwrap_or_else(|| ContainerId::random().as_str()[..MARK_LEN].to_owned());
        for path in places.iter().filter(|path| read(path).as_ref() != Some(&mark)) {
            write(path, &mark).map_err(Error::io("write", path))?;
        }
        Ok(Self(mark))
    }

    /// The mark itself.
    pub(crate) fn mark(&self) -> &str {
        &self.0
    }

    /// Where a sandbox's network namespace is pinned.
    pub(crate) fn netns(&self, id: &SandboxId) -> PathBuf {
        Path::new(NETNS_DIR).join(format!("{}{}", self.prefix(), id.short()))
    }

    /// True of the path of a network namespace that this daemon made, whether it is still there or not.
    pub(crate) fn made(&self, netns: &Path) -> bool {
        netns.parent() == Some(Path::new(NETNS_DIR)) && self.short_id(netns).is_some()
    }

    /// The beginning of the id of the sandbox whose network namespace that is.
    pub(crate) fn short_id<'p>(&self, netns: &'p Path) -> Option<&'p str> {
        netns.file_name()?.to_str()?.strip_prefix(&self.prefix())
    }

    /// Every network namespace of ours that is pinned.
    pub(crate) fn pinned(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| self.made(path)).collect()
    }

    fn prefix(&self) -> String {
        format!("podwright-{}-", self.0)
    }
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let mark = text.trim();
    let valid = mark.len() == MARK_LEN && mark.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| mark.to_owned())
}

/// Whole or not at all, and there after a loss of power.
fn write(path: &Path, mark: &str) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = std::fs::File::create(&draft)?;
    writeln!(file, "{mark}")?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_while_one_of_both_directories_does() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let establish = || Instance::establish(root.path(), state.path()).unwrap();
        let first = establish();
        std::fs::remove_file(root.path().join(FILE)).unwrap();
        assert_eq!(establish(), first);
        std::fs::write(state.path().join(FILE), "cut off").unwrap();
        assert_eq!(establish(), first);
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Instance::establish(elsewhere.path(), elsewhere.path()).unwrap();
        assert_ne!(other, first);
    }

    #[test]
    fn what_another_instance_made_is_not_ours() {
        let (ours, theirs) = (Instance("0badcafe".into()), Instance("deadbeef".into()));
        let id = SandboxId::random();
        let path = ours.netns(&id);
        assert_eq!(ours.short_id(&path), Some(id.short()));
        assert!(ours.made(&path) && !theirs.made(&path));
        for foreign in
            ["/run/netns/cni-1234", "/run/netns/podwright-1", "/tmp/podwright-0badcafe-1"]
        {
            assert!(!ours.made(Path::new(foreign)), "{foreign}");
        }
    }
}
