//! Exports: an image as an OCI layout in a tar stream, with the digests that its registry knows.
//!
//! Manifests and configs are kept as files. Blobs of layers are, where the node keeps them, and are fetched again
//! from the image's registry otherwise; each is compared with its digest on its way out. What can no more be fetched
//! is made of the layer's files (`rebuild`), and the client is told that the digests change. The same image always
//! gives the same bytes. An index is exported as it is, with the one image of it that this node has.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;
use tokio::sync::mpsc;

use super::archive::Piece;
use super::digest::{Digest, Hasher};
use super::error::Error;
use super::manifest::{self, Descriptor, Document, Manifest};
use super::pull::{Wanted, blocking, stack};
use super::reference::{Reference, Target};
use super::registry::Credentials;
use super::source::{Flow, Source};
use super::table::Image;
use super::{Images, Inner, config};
use crate::operation::What;

mod rebuild;

use rebuild::{Gone, Made, Sending};

/// Pieces that wait for the client.
const DEPTH: usize = 4;
/// What is sent at once of a layer that is made anew.
const PIECE: usize = 256 << 10;
const BLOCK: usize = 512;
/// Indexes within indexes.
const MAX_NESTING: usize = 4;

/// The tar stream of an image; its last item may be an error, and then it is worth nothing.
pub(crate) type Stream = mpsc::Receiver<Result<Sent, Error>>;
type Sender = mpsc::Sender<Result<Sent, Error>>;

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Sent {
    Data(Bytes),
    /// Before all data: the image has other digests than in its registry, and why.
    DigestsChange(String),
}

impl Images {
    /// Begins to export an image, under the tag that it is asked for by, or under all its names.
    ///
    /// # Errors
    /// When it is not here.
    pub(crate) fn export(&self, text: &str) -> Result<Stream, Error> {
        let image = self.resolve(text).ok_or_else(|| Error::NotFound(text.to_owned()))?;
        let names = names(&image, text);
        let inner = self.0.clone();
        let operation = self.0.operations.begin(What::new("export", text));
        let (sender, stream) = mpsc::channel(DEPTH);
        let span = tracing::info_span!("export", image = %image.id);
        self.0.tasks.spawn(span, async move {
            operation.enter("sending the image").ok();
            let mut output = Output { sender, sent: HashSet::new() };
            if let Err(err) = write(&inner, &image, &names, &mut output).await {
                tracing::warn!(%err, "image not exported");
                operation.finish::<(), _>(&Err(&err));
                output.sender.send(Err(err)).await.ok();
            }
        });
        Ok(stream)
    }
}

/// What the archive calls the image.
fn names(image: &Image, text: &str) -> Vec<String> {
    let asked = Reference::parse(text).map(|reference| reference.to_string());
    if let Ok(name) = asked
        && (image.tags.contains(&name) || image.digests.contains(&name))
    {
        return vec![name];
    }
    if image.tags.is_empty() { image.digests.clone() } else { image.tags.clone() }
}

struct Output {
    sender: Sender,
    /// Blobs that are in the archive already.
    sent: HashSet<Digest>,
}

impl Output {
    async fn send(&self, bytes: Bytes) -> Result<(), Error> {
        self.tell(Sent::Data(bytes)).await
    }

    async fn tell(&self, piece: Sent) -> Result<(), Error> {
        let gone = |_| Error::Internal("the client went away".into());
        self.sender.send(Ok(piece)).await.map_err(gone)
    }

    async fn header(&self, path: &str, size: u64) -> Result<(), Error> {
        let mut entry = EntryBuilder::new_ustar();
        let too_large = |err| Error::Internal(format!("tar header: {err}"));
        entry.path(path).entry_type(EntryType::Regular);
        entry.mode(0o644).map_err(too_large)?;
        entry.size(size).map_err(too_large)?;
        entry.mtime(0).map_err(too_large)?;
        self.send(entry.finish_bytes().into()).await
    }

    async fn padding(&self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 {
            return Ok(());
        }
        self.send(vec![0; BLOCK - over].into()).await
    }

    async fn file(&self, path: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.header(path, size).await?;
        self.send(bytes.into()).await?;
        self.padding(size).await
    }

    async fn document(&mut self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Error> {
        if self.sent.insert(digest.clone()) {
            self.file(&path_of(digest), bytes).await?;
        }
        Ok(())
    }

    /// A blob as it comes, verified; what went out before its digest turns out wrong is told by the stream's end.
    async fn blob(&mut self, descriptor: &Descriptor, mut flow: Flow) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = descriptor;
        self.sent.insert(digest.clone());
        self.header(&path_of(digest), *size).await?;
        let (mut hasher, mut got) = (Hasher::new(digest.algorithm()), 0);
        while let Some(bytes) = flow.chunk().await? {
            got += bytes.len() as u64;
            if got > *size {
                break;
            }
            hasher.update(&bytes);
            self.send(bytes).await?;
        }
        let is = hasher.finish();
        if got != *size || is != *digest {
            return Err(Error::content(format!("blob {digest}: it is {is} with {got} bytes")));
        }
        self.padding(*size).await
    }

    /// The archive of a layer's files, which has to be what it was when it was measured.
    async fn made(&mut self, inner: &Arc<Inner>, made: &Made) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = &made.descriptor;
        self.sent.insert(digest.clone());
        self.header(&path_of(digest), *size).await?;
        let (layers, sender, made) = (inner.layers.clone(), self.sender.clone(), made.clone());
        blocking(move || {
            let mut out = BufWriter::with_capacity(PIECE, Sending::new(&sender));
            let Made { layer, descriptor } = made;
            let written = layers.snapshotter().archive(&layer, &mut out);
            written.map_err(|err| Error::Snapshot(format!("layer {layer}: {err}")))?;
            out.flush().map_err(|_| Error::Internal("the client went away".into()))?;
            match out.get_ref().is() {
                is if is == descriptor.digest => Ok(()),
                is => Err(Error::content(format!("layer {layer}: it has become {is}"))),
            }
        })
        .await?;
        self.padding(*size).await
    }
}

fn path_of(digest: &Digest) -> String {
    let algorithm = digest.as_str().split(':').next().unwrap_or_default();
    format!("blobs/{algorithm}/{}", digest.hex())
}

/// What of an image is kept as files.
pub(super) struct Documents {
    top: Descriptor,
    pub(super) manifest: Manifest,
    /// From the index down to the config.
    pub(super) all: Vec<(Digest, Vec<u8>)>,
}

async fn write(
    inner: &Arc<Inner>,
    image: &Arc<Image>,
    names: &[String],
    output: &mut Output,
) -> Result<(), Error> {
    let (reader, of, asked) = (inner.clone(), image.clone(), names.first().cloned());
    let documents = blocking(move || documents(&reader, &of, asked.as_deref())).await?;
    let (blobs, why) = unavailable(inner, image, &documents.manifest).await?;
    let mut gone = Gone::new();
    let (mut documents, mut names) = (documents, names.to_vec());
    if !blobs.is_empty() {
        let of_docker = rebuild::of_docker(&documents.manifest);
        gone = rebuild::measure(inner, &wanted(&documents)?, &blobs, of_docker).await?;
        documents = rebuild::documents(&documents, &gone)?;
        names.retain(|name| !name.contains('@'));
        output.tell(Sent::DigestsChange(why)).await?;
    }
    output.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()).await?;
    output.file("index.json", index(&documents.top, &names).into_bytes()).await?;
    for (digest, bytes) in documents.all {
        output.document(&digest, bytes).await?;
    }
    for layer in &documents.manifest.layers {
        if output.sent.contains(&layer.digest) {
            continue;
        }
        match gone.values().find(|made| made.descriptor.digest == layer.digest) {
            Some(made) => output.made(inner, made).await?,
            None => output.blob(layer, layer_blob(inner, image, layer).await?).await?,
        }
    }
    output.send(vec![0; 2 * BLOCK].into()).await
}

/// The layers' blobs that are neither kept nor served any more, and why the first of them is not.
async fn unavailable(
    inner: &Arc<Inner>,
    image: &Arc<Image>,
    manifest: &Manifest,
) -> Result<(Vec<Digest>, String), Error> {
    let (mut gone, mut why) = (Vec::new(), String::new());
    for layer in &manifest.layers {
        if gone.contains(&layer.digest) {
            continue;
        }
        // A registry that fails for one layer is not waited for again and again.
        if !gone.is_empty() && inner.content.open_file(&layer.digest).is_none() {
            gone.push(layer.digest.clone());
            continue;
        }
        match layer_blob(inner, image, layer).await {
            Ok(_) => {}
            Err(err @ Error::Unavailable(_)) => {
                why = err.to_string();
                gone.push(layer.digest.clone());
            }
            Err(err) => return Err(err),
        }
    }
    Ok((gone, why))
}

/// The image's layers as they are stored.
fn wanted(documents: &Documents) -> Result<Vec<Wanted>, Error> {
    let config = documents.all.last().map_or(&[][..], |(_, bytes)| bytes);
    stack(&documents.manifest, &config::parse(config)?)
}

fn index(top: &Descriptor, names: &[String]) -> String {
    let nameless = json!({ "mediaType": top.media_type, "digest": top.digest, "size": top.size });
    let entry = |name: &String| {
        let tag = match Reference::parse(name).map(|reference| reference.target().clone()) {
            Ok(Target::Tag(tag)) => tag,
            _ => name.clone(),
        };
        json!({
            "mediaType": top.media_type, "digest": top.digest, "size": top.size,
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": tag,
            },
        })
    };
    let mut manifests: Vec<_> = names.iter().map(entry).collect();
    if manifests.is_empty() {
        manifests.push(nameless);
    }
    json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": manifests })
        .to_string()
}

/// Blocks.
pub(super) fn documents(
    inner: &Inner,
    image: &Image,
    name: Option<&str>,
) -> Result<Documents, Error> {
    let top = top(image, name)?;
    let read = |digest: &Digest| {
        let gone =
            || Error::content(format!("{digest}: it is not kept any more; pull the image again"));
        inner.content.read(digest, manifest::MAX_MANIFEST).ok_or_else(gone)
    };
    let bytes = read(&top)?;
    let (mut document, mut media_type) = (manifest::parse(&bytes, "")?, media_type(&bytes));
    let described = |digest: &Digest, bytes: &[u8], media_type: &str| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size: bytes.len() as u64,
        platform: None,
    };
    if media_type.is_empty() {
        media_type = match document {
            Document::Manifest(_) => manifest::OCI_MANIFEST.to_owned(),
            Document::Index(_) => manifest::OCI_INDEX.to_owned(),
        };
    }
    let top = described(&top, &bytes, &media_type);
    let mut all = vec![(top.digest.clone(), bytes)];
    for _ in 0..MAX_NESTING {
        match document {
            Document::Manifest(manifest) => {
                let config = manifest.config.digest.clone();
                let bytes = inner.content.read(&config, manifest::MAX_CONFIG);
                let gone = || Error::content(format!("config {config}: it is not kept any more"));
                all.push((config.clone(), bytes.ok_or_else(gone)?));
                return Ok(Documents { top, manifest, all });
            }
            Document::Index(entries) => {
                // Of an index only what leads to this image was ever fetched.
                let kept = |entry: &&Descriptor| image.files.contains(&entry.digest);
                let entry = inner.platform.choose(&entries).filter(kept);
                let entry = entry.or_else(|| entries.iter().find(kept));
                let none = || Error::content("the index names nothing that is kept");
                let entry = entry.ok_or_else(none)?;
                let bytes = read(&entry.digest)?;
                document = manifest::parse(&bytes, &entry.media_type)?;
                all.push((entry.digest.clone(), bytes));
            }
        }
    }
    Err(Error::content("indexes are nested too deeply"))
}

/// What the image's name leads to: the digest that its repository was seen with last.
fn top(image: &Image, name: Option<&str>) -> Result<Digest, Error> {
    let repository = |text: &str| {
        let reference = Reference::parse(text).ok()?;
        Some((reference.registry().to_owned(), reference.repository().to_owned()))
    };
    let wanted = name.and_then(repository);
    let digest = |text: &String| text.split_once('@').and_then(|(_, digest)| Digest::parse(digest));
    let same = |text: &&String| wanted.is_some() && repository(text) == wanted;
    let found = image.digests.iter().rev().find(same).or(image.digests.last());
    found.and_then(digest).ok_or_else(|| Error::content("the image has no digest"))
}

fn media_type(bytes: &[u8]) -> String {
    let parsed = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default();
    parsed.get("mediaType").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned()
}

/// A layer's blob, as it is kept, or from the registry that the image came from.
pub(super) async fn layer_blob(
    inner: &Arc<Inner>,
    image: &Image,
    layer: &Descriptor,
) -> Result<Flow, Error> {
    if let Some(file) = inner.content.open_file(&layer.digest) {
        return Ok(Flow::Archive(Piece::new(Arc::new(file), 0, layer.size)));
    }
    let mut refused = Vec::new();
    for name in &image.digests {
        let registries = inner.registries.clone();
        let reference = Reference::parse(name)?;
        let session =
            blocking(move || registries.session(&reference, Credentials::default())).await;
        let opened = match session {
            Ok(session) => Source::Registry(Arc::new(session)).blob(layer).await,
            Err(err) => Err(err),
        };
        match opened {
            Ok(flow) => return Ok(flow),
            Err(err) => refused.push(err.to_string()),
        }
    }
    Err(Error::Unavailable(format!(
        "layer {} is not kept here (image.keep_blobs) and cannot be fetched again: {}",
        layer.digest,
        refused.join("; ")
    )))
}
