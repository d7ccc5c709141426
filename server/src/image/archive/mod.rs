//! Archives of images: an OCI image layout, or what `docker save` writes, as a tar file or as a directory.
//!
//! An [`Archive`] finds pieces by name and by digest, and says which images it holds. Nothing of it is unpacked to
//! the disk, and nothing is believed: names never become paths of ours, every document has a limit, and whatever is
//! named by a digest is compared with it by whoever reads it, as if a registry had sent it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

mod docker;
mod layout;
mod piece;
mod tar;

pub(super) use piece::Piece;

use super::digest::Digest;
use super::error::Error;
use super::manifest::{Descriptor, MAX_MANIFEST};
use super::platform::Supported;
use super::reference::Reference;

/// Symbolic links from one name to another, as old versions of Docker share layers.
const MAX_LINKS: usize = 8;
/// Most images in one archive.
const MAX_IMAGES: usize = 1024;

/// An archive that is open.
#[derive(Debug)]
pub(super) struct Archive {
    place: Place,
    /// What names alone do not tell: blobs of a Docker archive.
    by_digest: HashMap<Digest, String>,
    images: Vec<Listed>,
}

#[derive(Debug)]
enum Place {
    Tar(tar::Contents),
    Directory(OwnedFd),
}

/// An image of an archive.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// As the archive calls it; several images may share one, for other platforms.
    pub(super) name: Name,
    pub(super) top: Top,
}

/// What an archive calls an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Reference(Reference),
    /// Only a tag, of a repository that is not told.
    Tag(String),
    Nothing,
}

/// The manifest or index that stands for an image.
#[derive(Debug, Clone)]
pub(super) struct Top {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Archive {
    /// Opens a tar file, not compressed as a whole, and reads what it holds. Blocks.
    pub(super) fn tar(file: File, platform: &Supported) -> Result<Self, Error> {
        Self::new(Place::Tar(tar::Contents::read(file)?), platform)
    }

    /// The same for a directory.
    pub(super) fn directory(path: &Path, platform: &Supported) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        Self::new(Place::Directory(dir), platform)
    }

    fn new(place: Place, platform: &Supported) -> Result<Self, Error> {
        let mut archive = Self { place, by_digest: HashMap::new(), images: Vec::new() };
        // Newer versions of Docker write both; the layout has the digests that a registry knows.
        archive.images = if archive.find(layout::MARK)?.is_some() {
            layout::list(&archive, platform)?
        } else if let Some(list) = archive.find(docker::LIST)? {
            docker::list(&mut archive, &list)?
        } else {
            return Err(Error::Unsupported(
                "this is no archive of images: it has neither oci-layout nor manifest.json".into(),
            ));
        };
        match archive.images.len() {
            0 => Err(Error::content("the archive holds no image")),
            1..=MAX_IMAGES => Ok(archive),
            _ => Err(Error::content(format!("the archive holds more than {MAX_IMAGES} images"))),
        }
    }

    pub(super) fn images(&self) -> &[Listed] {
        &self.images
    }

    /// The piece of that name, if there is one. Blocks.
    fn find(&self, name: &str) -> Result<Option<Piece>, Error> {
        match &self.place {
            Place::Tar(contents) => contents.find(name),
            Place::Directory(dir) => open_beneath(dir, name),
        }
    }

    /// The content that a descriptor names, not verified. Blocks.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Piece, Error> {
        let digest = &descriptor.digest;
        let piece = match self.by_digest.get(digest) {
            Some(name) => self.find(name)?,
            None => {
                let algorithm = digest.as_str().split(':').next().unwrap_or_default();
                self.find(&format!("blobs/{algorithm}/{}", digest.hex()))?
            }
        };
        let missing = || Error::content(format!("blob {digest}: the archive does not have it"));
        let piece = piece.ok_or_else(missing)?;
        if piece.len() != descriptor.size {
            return Err(Error::content(format!(
                "blob {digest}: the archive has {} bytes, its descriptor says {}",
                piece.len(),
                descriptor.size
            )));
        }
        Ok(piece)
    }

    /// A whole small one, verified. Blocks.
    pub(super) fn document(&self, descriptor: &Descriptor, cap: u64) -> Result<Vec<u8>, Error> {
        let digest = &descriptor.digest;
        let bytes = self.blob(descriptor)?.read(digest.as_str(), cap)?;
        if !digest.matches(&bytes) {
            let text = format!("blob {digest}: what the archive has is something else");
            return Err(Error::content(text));
        }
        Ok(bytes)
    }

    fn top(&self, descriptor: &Descriptor) -> Result<Top, Error> {
        Ok(Top {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            bytes: self.document(descriptor, MAX_MANIFEST)?,
        })
    }
}

/// A regular file below the directory; links are not followed.
fn open_beneath(dir: &OwnedFd, name: &str) -> Result<Option<Piece>, Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = Path::new(name);
    let file = loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            // A rename somewhere on the host got in between.
            Err(Errno::AGAIN) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            opened => break File::from(opened.map_err(Error::io("open in the archive", path))?),
        }
    };
    let about = file.metadata().map_err(Error::io("stat in the archive", path))?;
    if !about.is_file() {
        return Err(Error::content(format!("{name:?} of the archive is no regular file")));
    }
    Ok(Some(Piece::new(Arc::new(file), 0, about.len())))
}
