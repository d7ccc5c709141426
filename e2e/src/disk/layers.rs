//! What is in each layer, told by the files themselves and by the snapshotter; the daemon is not asked.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Prints for each layer its name, a digest of all that is in it, and how much differs from what was unpacked.
pub fn tell_layers(dir: &Path) -> anyhow::Result<()> {
    let snapshotter = snapshotter::Snapshotter::open(dir, snapshotter::Kind::Auto)?;
    for layer in snapshotter.layers()? {
        let differences = match snapshotter.verify(&layer) {
            Ok(paths) => paths.len().to_string(),
            Err(err) => format!("unreadable: {err}").replace(' ', "_"),
        };
        let hex = layer.to_string().replace("sha256:", "");
        let mut tree = String::new();
        describe(&dir.join("layers").join(hex).join("fs"), &mut tree)?;
        println!("{layer} {} {differences}", crate::image::digest(tree.as_bytes()));
    }
    Ok(())
}

/// A line for each file: what the snapshotter says of itself is not asked.
fn describe(dir: &Path, into: &mut String) -> anyhow::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, meta) = (entry.path(), entry.metadata()?);
        let content = match meta.file_type() {
            kind if kind.is_file() => crate::image::digest(&std::fs::read(&path)?),
            kind if kind.is_symlink() => std::fs::read_link(&path)?.display().to_string(),
            _ => String::new(),
        };
        let name = entry.file_name();
        writeln!(into, "{name:?} {:o} {} {} {content}", meta.mode(), meta.uid(), meta.gid())?;
        if meta.is_dir() {
            describe(&path, into)?;
            into.push_str("..\n");
        }
    }
    Ok(())
}
