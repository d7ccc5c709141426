//! What in a layer depends on those below it: directories that no entry describes, and hard links
//! to files that it does not have. A file beside the tree; paths end with a zero byte.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{Error, Result};

const NAME: &str = "lean";

/// The open ends of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lean {
    /// Directories that were made up; the empty path is the root.
    pub(crate) made_up: BTreeSet<Vec<u8>>,
    /// Hard links not made: path and target, in the order of the archive.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Lean {
    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let dirs = self.made_up.iter().map(|path| path.len() + 64);
        let links = self.links.iter().map(|(path, target)| path.len() + target.len() + 64);
        dirs.chain(links).sum()
    }
}

pub(crate) fn write(
    layer: &Path,
    made_up: &BTreeSet<Vec<u8>>,
    links: &[(Vec<u8>, Vec<u8>)],
) -> Result<()> {
    let mut text = Vec::new();
    let mut line = |path: &[u8]| {
        text.extend_from_slice(path);
        text.push(0);
    };
    for path in made_up {
        line(b"dir");
        line(path);
    }
    for (path, target) in links {
        line(b"link");
        line(path);
        line(target);
    }
    let path = layer.join(NAME);
    fs::write(&path, text).map_err(Error::io("write", &path))
}

pub(crate) fn read(layer: &Path) -> Result<Lean> {
    let path = layer.join(NAME);
    let text = fs::read(&path).map_err(Error::io("read", &path))?;
    let mut lean = Lean::default();
    let mut fields = text.split(|&byte| byte == 0).map(<[u8]>::to_vec);
    while let Some(kind) = fields.next() {
        match (kind.as_slice(), fields.next()) {
            (b"dir", Some(path)) => {
                lean.made_up.insert(path);
            }
            (b"link", Some(path)) => lean.links.push((path, fields.next().unwrap_or_default())),
            _ => break,
        }
    }
    Ok(lean)
}
