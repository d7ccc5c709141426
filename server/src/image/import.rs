//! Imports: an archive's images come here through the stages of a pull, and their records are a pull's.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::archive::{Archive, Name, Piece, Top};
use super::digest::Digest;
use super::error::Error;
use super::progress::Progress;
use super::pull::{self, blocking};
use super::reference::{Reference, Target};
use super::source::Source;
use super::spool::{Incoming, is_compressed, spool};
use super::{Images, Inner};
use crate::operation::{Operation, What};

/// An image that an archive brought.
#[derive(Debug, Clone)]
pub(crate) struct Imported {
    /// The whole reference.
    pub name: String,
    pub id: Digest,
    /// Of the manifest or index.
    pub digest: Digest,
}

impl Images {
    /// Imports every image of an archive that a client sends; under these names instead of the archive's own, if any
    /// are given. What was imported before a failure stays.
    ///
    /// # Errors
    /// When the archive is not what it should be, or an image in it; names the image.
    pub(crate) async fn import(
        &self,
        incoming: Incoming,
        names: &[String],
    ) -> Result<Vec<Imported>, Error> {
        let mut references = Vec::new();
        for name in names {
            references.push(Reference::parse(name)?);
        }
        self.import_from("from a client", references, move |inner| {
            let allowed = inner.settings.always_allowed;
            Archive::tar(spool(incoming, &inner.content, allowed)?, &inner.platform)
        })
        .await
    }

    /// Imports every image of an archive on this node: a file, compressed or not, or a directory.
    ///
    /// # Errors
    /// As of `import`.
    pub(crate) async fn import_path(&self, path: &Path) -> Result<Vec<Imported>, Error> {
        let what = path.display().to_string();
        let path = path.to_owned();
        self.import_from(&what, Vec::new(), move |inner| {
            let open = Error::io("open", &path);
            let about = path.metadata().map_err(Error::io("stat", &path))?;
            if about.is_dir() {
                return Archive::directory(&path, &inner.platform);
            }
            let file = File::open(&path).map_err(open)?;
            let whole = Piece::new(
                Arc::new(file.try_clone().map_err(Error::io("open", &path))?),
                0,
                about.len(),
            );
            if is_compressed(whole.magic()?) {
                let allowed = inner.settings.always_allowed;
                return Archive::tar(spool(file, &inner.content, allowed)?, &inner.platform);
            }
            Archive::tar(file, &inner.platform)
        })
        .await
    }

    async fn import_from(
        &self,
        what: &str,
        names: Vec<Reference>,
        open: impl FnOnce(&Inner) -> Result<Archive, Error> + Send + 'static,
    ) -> Result<Vec<Imported>, Error> {
        let inner = self.0.clone();
        let operation = self.0.operations.begin(What::new("import an archive", what));
        let _caller = operation.caller();
        let working = operation.clone();
        let span = tracing::info_span!("import", what);
        let work = async move {
            working.enter("reading the archive").ok();
            let opener = inner.clone();
            let archive = blocking(move || open(&opener)).await?;
            all(&inner, archive, names, working).await
        };
        // On a task of its own, as a pull is.
        let task = self.0.tasks.spawn(span, operation.clone().conclude(work));
        task.await.map_err(|err| Error::Internal(format!("import: {err}")))?
    }
}

async fn all(
    inner: &Arc<Inner>,
    archive: Archive,
    names: Vec<Reference>,
    operation: Arc<Operation>,
) -> Result<Vec<Imported>, Error> {
    let wanted = named(&archive, names)?;
    let (archive, progress) = (Arc::new(archive), Arc::new(Progress::new(operation)));
    let mut imported = Vec::new();
    for (reference, top) in wanted {
        let (name, digest) = (reference.to_string(), top.digest.clone());
        let source = Source::Archive { archive: archive.clone(), top };
        let brought = pull::bring(inner.clone(), reference, source, progress.clone()).await;
        let id = brought.map_err(|err| Error::Import { name: name.clone(), err: Arc::new(err) })?;
        tracing::info!(image = %id, name, "image imported");
        imported.push(Imported { name, id, digest });
    }
    Ok(imported)
}

/// Which image is to get which name.
fn named(archive: &Archive, names: Vec<Reference>) -> Result<Vec<(Reference, Top)>, Error> {
    let images = archive.images();
    if names.is_empty() {
        let own = images.iter().map(|image| match &image.name {
            Name::Reference(reference) => Ok((reference.clone(), image.top.clone())),
            Name::Tag(tag) => Err(Error::content(format!(
                "the archive calls an image only by its tag {tag:?}: give it a name"
            ))),
            Name::Nothing => {
                Err(Error::content("the archive has no name for an image: give it one"))
            }
        });
        return own.collect();
    }
    let different: BTreeSet<&Digest> = images.iter().map(|image| &image.top.digest).collect();
    if different.len() > 1 {
        return Err(Error::content(format!(
            "the archive holds {} images: names can be given to one only",
            different.len()
        )));
    }
    let top = &images[0].top;
    if let Some(wrong) = names
        .iter()
        .find(|name| matches!(name.target(), Target::Digest(digest) if *digest != top.digest))
    {
        return Err(Error::content(format!(
            "{wrong}: the archive's image has the digest {}",
            top.digest
        )));
    }
    Ok(names.into_iter().map(|name| (name, top.clone())).collect())
}
