//! What is known about a layer, in a small text file beside its tree.

use std::fs;
use std::path::Path;

use crate::{Error, Result, Usage, trash};

/// The facts of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// What it takes on the disk.
    pub(crate) usage: Usage,
    /// Entries in the index.
    pub(crate) entries: u64,
    /// Whether an entry replaced an earlier one, so that not every record of the index stands.
    pub(crate) replaced: bool,
}

impl About {
    pub(crate) fn write(&self, layer: &Path) -> Result<()> {
        let path = layer.join("about");
        let Usage { bytes, inodes } = self.usage;
        let text = format!(
            "bytes {bytes}\ninodes {inodes}\nentries {}\nreplaced {}\nbirth {}\n",
            self.entries,
            u8::from(self.replaced),
            trash::unique()
        );
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    pub(crate) fn read(layer: &Path) -> Result<About> {
        let path = layer.join("about");
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let mut about = About::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let value: u64 = value.parse().unwrap_or_default();
            match key {
                "bytes" => about.usage.bytes = value,
                "inodes" => about.usage.inodes = value,
                "entries" => about.entries = value,
                "replaced" => about.replaced = value != 0,
                _ => {}
            }
        }
        Ok(about)
    }

    /// What no other layer has, nor had this one when it was made before.
    pub(crate) fn birth(layer: &Path) -> Option<String> {
        let text = fs::read_to_string(layer.join("about")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("birth ")).map(str::to_owned)
    }
}
