//! A file or directory of an image, found in its layers without mounting them.
//!
//! The walk is overlayfs's own: the topmost layer that has a name decides; directories merge downwards until one
//! is opaque; a whiteout ends the search. Symbolic links are followed here, text by text, from the image's root,
//! so that they cross layers and never lead out. The kernel is asked to follow none (`RESOLVE_NO_SYMLINKS`).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// As many links as the kernel follows for one path.
const MAX_LINKS: usize = 40;
/// How overlayfs marks a directory that hides those below it: the second where it is mounted with `userxattr`.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// What a name is in the merged view.
enum Found {
    Nothing,
    /// The layers, by number, that make up the directory.
    Dir(Vec<usize>),
    Link(PathBuf),
    /// Any other, in that layer.
    File(usize),
}

/// Where a path led.
enum Place {
    File(usize, PathBuf),
    Dir(Vec<usize>, PathBuf),
}

/// Opens the file that `path` is in the image whose layers these are, topmost first; `None` if there is none.
pub(super) fn open(layers: &[PathBuf], path: &Path) -> Result<Option<File>> {
    let roots = open_roots(layers)?;
    let failed = |err: Errno| Error::io("look up in the image", path)(err);
    let Some(Place::File(layer, path)) = find(&roots, path).map_err(failed)? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open_beneath(&roots[layer], &path, flags).map_err(failed)?;
    Ok(Some(File::from(file)))
}

/// The directories that make up the directory `path` of that image, topmost first; `None` if it is none.
pub(super) fn directory(layers: &[PathBuf], path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let found =
        find(&open_roots(layers)?, path).map_err(Error::io("look up in the image", path))?;
    let Some(Place::Dir(of, path)) = found else { return Ok(None) };
    Ok(Some(of.into_iter().map(|layer| layers[layer].join(&path)).collect()))
}

fn open_roots(layers: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    let open = |dir: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty()).map_err(Error::io("open", dir))
    };
    layers.iter().map(open).collect()
}

fn find(roots: &[OwnedFd], path: &Path) -> rustix::io::Result<Option<Place>> {
    let mut todo = parts(path);
    let mut links = 0;
    // The directory reached, and for it and each above it the layers that it is made of.
    let mut at = PathBuf::new();
    let mut merged: Vec<Vec<usize>> = vec![(0..roots.len()).collect()];
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            if at.pop() {
                merged.pop();
            }
            continue;
        }
        let path = at.join(&name);
        match look(roots, merged.last().map_or(&[], Vec::as_slice), &path)? {
            Found::Nothing => return Ok(None),
            Found::Dir(layers) => {
                at = path;
                merged.push(layers);
            }
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.is_absolute() {
                    at = PathBuf::new();
                    merged.truncate(1);
                }
                for part in parts(&target).into_iter().rev() {
                    todo.push_front(part);
                }
            }
            Found::File(layer) if todo.is_empty() => return Ok(Some(Place::File(layer, path))),
            Found::File(_) => return Ok(None),
        }
    }
    Ok(merged.pop().map(|layers| Place::Dir(layers, at)))
}

/// Names and `..`, the rest means nothing here.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What `path`, whose parent has no links and is made of `layers`, is.
fn look(roots: &[OwnedFd], layers: &[usize], path: &Path) -> rustix::io::Result<Found> {
    let mut dirs = Vec::new();
    for layer in layers {
        let root = &roots[*layer];
        let Some(entry) = entry(root, path)? else { continue };
        match FileType::from_raw_mode(entry.st_mode) {
            FileType::Directory => {
                dirs.push(*layer);
                if is_opaque(root, path)? {
                    break;
                }
            }
            // A file or a whiteout below a directory is hidden by it, with all that is under it.
            _ if !dirs.is_empty() => break,
            FileType::CharacterDevice if entry.st_rdev == 0 => return Ok(Found::Nothing),
            FileType::Symlink => return Ok(Found::Link(link(root, path)?)),
            _ => return Ok(Found::File(*layer)),
        }
    }
    Ok(if dirs.is_empty() { Found::Nothing } else { Found::Dir(dirs) })
}

fn entry(root: &OwnedFd, path: &Path) -> rustix::io::Result<Option<Stat>> {
    match open_beneath(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
        Ok(fd) => rustix::fs::fstat(fd).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(err) => Err(err),
    }
}

fn link(root: &OwnedFd, path: &Path) -> rustix::io::Result<PathBuf> {
    let fd = open_beneath(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
    let target = rustix::fs::readlinkat(fd, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

fn is_opaque(root: &OwnedFd, path: &Path) -> rustix::io::Result<bool> {
    let dir = open_beneath(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
    let mut value = [0u8; 4];
    Ok(OPAQUE.iter().any(|name| {
        rustix::fs::fgetxattr(&dir, *name, &mut value[..]).is_ok_and(|len| &value[..len] == b"y")
    }))
}

/// Follows no link but, with `O_PATH | O_NOFOLLOW`, opens one that is last.
fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            // A rename somewhere on the host got in between.
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Image {
        dir: tempfile::TempDir,
        layers: Vec<PathBuf>,
    }

    impl Image {
        /// Topmost first.
        fn of(layers: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layers = (0..layers).map(|n| dir.path().join(n.to_string())).collect();
            let image = Self { dir, layers };
            for layer in &image.layers {
                std::fs::create_dir(layer).unwrap();
            }
            image
        }

        fn path(&self, layer: usize, path: &str) -> PathBuf {
            let path = self.layers[layer].join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn write(&self, layer: usize, path: &str, text: &str) {
            std::fs::write(self.path(layer, path), text).unwrap();
        }

        fn read(&self, path: &str) -> Result<Option<String>, String> {
            let file = open(&self.layers, Path::new(path)).map_err(|err| err.to_string())?;
            Ok(file.map(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            }))
        }
    }

    #[test]
    fn the_topmost_layer_that_has_it_wins() {
        let image = Image::of(3);
        image.write(1, "etc/passwd", "middle");
        image.write(2, "etc/passwd", "bottom");
        image.write(2, "etc/group", "groups");
        image.write(0, "etc/hosts", "");
        assert_eq!(image.read("etc/passwd"), Ok(Some("middle".into())));
        assert_eq!(image.read("etc/group"), Ok(Some("groups".into())));
        assert_eq!(image.read("etc/shadow"), Ok(None));
        assert_eq!(image.read("etc"), Ok(None));
        assert_eq!(image.read("etc/passwd/x"), Ok(None));
    }

    #[test]
    fn links_cross_layers_and_stay_inside() {
        let image = Image::of(2);
        symlink("/usr/etc", image.path(0, "etc")).unwrap();
        symlink("../../../../lib/accounts", image.path(1, "usr/etc/passwd")).unwrap();
        image.write(0, "lib/accounts", "inside");
        symlink("/etc/hostname", image.path(1, "usr/etc/group")).unwrap();
        symlink("self", image.path(1, "self")).unwrap();
        assert_eq!(image.read("etc/passwd"), Ok(Some("inside".into())));
        assert_eq!(image.read("etc/group"), Ok(None));
        assert!(image.read("self").is_err());
        let host = image.dir.path().join("secret");
        std::fs::write(&host, "secret").unwrap();
        symlink(&host, image.path(1, "out")).unwrap();
        symlink("../secret", image.path(1, "up")).unwrap();
        assert_eq!(image.read("out"), Ok(None));
        assert_eq!(image.read("up"), Ok(None));
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("needs root: whiteouts are device nodes");
            return;
        }
        let image = Image::of(3);
        for name in ["etc/passwd", "opaque/file", "gone/file"] {
            image.write(2, name, "bottom");
        }
        let whiteout = |path: PathBuf| {
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::empty(), 0).unwrap();
        };
        whiteout(image.path(0, "etc/passwd"));
        whiteout(image.path(1, "gone"));
        image.write(0, "gone/other", "again");
        std::fs::create_dir_all(image.path(1, "opaque/x")).unwrap();
        let opaque = image.layers[1].join("opaque");
        rustix::fs::setxattr(&opaque, OPAQUE[0], b"y", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(image.read("etc/passwd"), Ok(None));
        assert_eq!(image.read("gone/file"), Ok(None));
        assert_eq!(image.read("gone/other"), Ok(Some("again".into())));
        assert_eq!(image.read("opaque/file"), Ok(None));
    }
}
