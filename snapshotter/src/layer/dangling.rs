//! Hard links to files that a layer does not have: they may be in the layers below.
//!
//! An archive can name as many as it likes, and each later entry may take one's place, so they are found by path and
//! what they take in memory is bounded.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Bytes of their paths and targets; a layer of a million entries has few such links.
const MAX_BYTES: usize = 16 << 20;
/// What one of them takes beside that.
const OVERHEAD: usize = 128;

/// The links, by path: when each came, and its target.
#[derive(Debug, Default)]
pub(super) struct Dangling {
    links: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    came: u64,
    bytes: usize,
}

impl Dangling {
    pub(super) fn add(&mut self, path: Vec<u8>, target: Vec<u8>) -> Result<()> {
        self.remove(&path);
        self.bytes += path.len() + target.len() + OVERHEAD;
        if self.bytes > MAX_BYTES {
            let limit = MAX_BYTES as u64;
            return Err(Error::Limit { what: "bytes of hard links to other layers", limit });
        }
        self.came += 1;
        self.links.insert(path, (self.came, target));
        Ok(())
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.links.contains_key(path)
    }

    /// Something else is at `path`. True if a link was.
    pub(super) fn remove(&mut self, path: &[u8]) -> bool {
        let Some((_, target)) = self.links.remove(path) else { return false };
        self.bytes -= path.len() + target.len() + OVERHEAD;
        true
    }

    /// What was below a directory is gone; `below` ends with a slash.
    pub(super) fn remove_below(&mut self, below: &[u8]) {
        while let Some((path, _)) = self.links.range(below.to_vec()..).next()
            && path.starts_with(below)
        {
            let path = path.clone();
            self.remove(&path);
        }
    }

    /// Path and target of all, in the order of the archive.
    pub(super) fn into_ordered(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut links: Vec<_> =
            self.links.into_iter().map(|(path, (came, target))| (came, path, target)).collect();
        links.sort_unstable_by_key(|(came, ..)| *came);
        links.into_iter().map(|(_, path, target)| (path, target)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(links: &mut Dangling, path: &str) {
        links.add(path.into(), b"target".to_vec()).unwrap();
    }

    #[test]
    fn later_entries_take_their_places_and_the_order_stays() {
        let mut links = Dangling::default();
        ["b", "a/x", "a/y", "a.z", "a", "b"].iter().for_each(|path| add(&mut links, path));
        assert!(links.has(b"a/x") && links.remove(b"a") && !links.remove(b"a"));
        links.remove_below(b"a/");
        let paths: Vec<_> = links.into_ordered().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [b"a.z".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn their_memory_is_bounded_and_given_back() {
        let mut links = Dangling::default();
        for _ in 0..2 * MAX_BYTES / OVERHEAD {
            add(&mut links, "again");
        }
        let filled = (0..).find(|n: &u64| {
            let path = [&n.to_be_bytes()[..], &[b'x'; 4000]].concat();
            links.add(path, vec![b'y'; 4000]).is_err()
        });
        assert_eq!(filled, Some(MAX_BYTES as u64 / (8 + 4000 + 4000 + OVERHEAD as u64)));
    }
}
