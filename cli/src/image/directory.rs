//! A directory as a tar stream: the daemon may not see it, being in another mount namespace.

use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

/// Layouts are three deep.
const MAX_DEPTH: usize = 16;
const BLOCK: u64 = 512;

/// Writes every regular file and symbolic link below `dir`.
pub(super) fn tar(dir: &Path, out: &mut impl Write) -> Result<()> {
    below(dir, Path::new(""), MAX_DEPTH, out)?;
    out.write_all(&[0; 2 * BLOCK as usize])
}

fn below(root: &Path, at: &Path, depth: usize, out: &mut impl Write) -> Result<()> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(root.join(at))?
        .map(|entry| Ok(at.join(entry?.file_name())))
        .collect::<Result<_>>()?;
    names.sort();
    for name in names {
        let path = root.join(&name);
        let about = path.symlink_metadata()?;
        if about.is_dir() {
            if depth == 0 {
                return Err(Error::other(format!("{} is too deep", path.display())));
            }
            below(root, &name, depth - 1, out)?;
        } else if about.is_symlink() {
            let target = std::fs::read_link(&path)?;
            let mut entry = header(&name, 0)?;
            entry.entry_type(EntryType::Symlink).link_name(target.as_os_str().as_bytes());
            out.write_all(&entry.finish_bytes())?;
        } else if about.is_file() {
            file(&path, &name, out)?;
        }
    }
    Ok(())
}

fn file(path: &Path, name: &Path, out: &mut impl Write) -> Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut entry = header(name, size)?;
    out.write_all(&entry.entry_type(EntryType::Regular).finish_bytes())?;
    let copied = std::io::copy(&mut (&mut file).take(size), out)?;
    if copied != size {
        return Err(Error::other(format!("{} became shorter", path.display())));
    }
    let padding = size.next_multiple_of(BLOCK) - size;
    out.write_all(&[0; BLOCK as usize][..usize::try_from(padding).unwrap_or(0)])
}

fn header(name: &Path, size: u64) -> Result<EntryBuilder> {
    let mut entry = EntryBuilder::new_gnu();
    entry.path(name.as_os_str().as_bytes());
    let wrong = |err| Error::other(format!("{}: {err}", name.display()));
    entry.mode(0o644).map_err(wrong)?.size(size).map_err(wrong)?.mtime(0).map_err(wrong)?;
    Ok(entry)
}
