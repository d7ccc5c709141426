//! A pull: resolve, choose the platform, fetch and unpack all layers at once, sync, record.
//!
//! ```text
//! resolving -> reading the config -> fetching layers -> putting them in place -> writing to disk -> recorded
//! ```
//!
//! Every file and layer that a pull brings is durable before its record is written; what a failed pull leaves
//! has no name, or no lease, and goes.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use snapshotter::LayerId;

use super::config::{self, Parsed};
use super::digest::{Algorithm, Digest};
use super::error::Error;
use super::flight::Role;
use super::manifest::{self, Descriptor, Document, Manifest};
use super::platform;
use super::progress::Progress;
use super::reference::{Reference, Target};
use super::registry::Credentials;
use super::source::Source;
use super::table::ImageRecord;
use super::unpack::{Goal, Place, unpack};
use super::verify::Proofs;
use super::{Inner, Shared};
use crate::metric;
use crate::operation::Part;

/// Indexes within indexes.
const MAX_NESTING: usize = 4;

/// Layers under way are told apart by what is fetched and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LayerKey {
    blob: Digest,
    layer: LayerId,
}

/// One layer of the image that is being pulled.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) layer: LayerId,
}

/// The documents that lead from a reference to an image.
struct Resolved {
    /// Of the index or manifest that the registry has under the reference.
    top: Digest,
    manifest: Manifest,
    documents: Vec<(Digest, Vec<u8>)>,
}

struct Pulling {
    inner: Arc<Inner>,
    source: Source,
    progress: Arc<Progress>,
}

/// Pulls, to the end.
pub(super) async fn pull(
    inner: Arc<Inner>,
    reference: Reference,
    credentials: Credentials,
    progress: Arc<Progress>,
) -> Result<Digest, Error> {
    let (registries, name) = (inner.registries.clone(), reference.clone());
    let session = blocking(move || registries.session(&name, credentials)).await?;
    bring(inner, reference, Source::Registry(Arc::new(session)), progress).await
}

/// Brings an image here from wherever it is, under that name.
pub(super) async fn bring(
    inner: Arc<Inner>,
    reference: Reference,
    source: Source,
    progress: Arc<Progress>,
) -> Result<Digest, Error> {
    let pulling = Pulling { inner, source, progress };
    pulling.progress.enter("resolving the reference");
    let resolved = pulling.resolve(&reference).await?;
    pulling.progress.enter("verifying that it may be used");
    let proofs = pulling.verify(&reference, &resolved).await?;
    pulling.progress.enter("reading the image config");
    let (config_bytes, parsed) = pulling.config(&resolved.manifest).await?;
    let wanted = stack(&resolved.manifest, &parsed)?;
    let names: Vec<LayerId> = wanted.iter().map(|wanted| wanted.layer.clone()).collect();
    let lease = Arc::new(pulling.inner.layers.lease(names.iter().cloned()));
    pulling.inner.linger_no_more(None);
    pulling.inner.linger(&reference, &lease);
    let parts = pulling.progress.expect(wanted.iter().map(|wanted| &wanted.descriptor));
    pulling.progress.enter("fetching and unpacking layers");
    pulling.layers(&wanted, &parts).await?;
    pulling.progress.enter("putting layers in place");
    let settling = pulling.inner.layers.clone();
    let (layers, lease) = blocking(move || settling.settle(&names)).await?;
    pulling.progress.enter("writing to disk");
    let mut image = describe(&reference, &resolved, &wanted, &layers, parsed, &pulling.inner);
    image.proofs = proofs;
    let mut files = resolved.documents;
    files.push((resolved.manifest.config.digest, config_bytes));
    let id = image.id.clone();
    pulling.inner.publish(image, layers, files, Arc::new(lease)).await?;
    pulling.inner.linger_no_more(Some(&reference));
    Ok(id)
}

impl Pulling {
    /// Follows indexes down to the manifest for this machine.
    async fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let fetched = self.source.top(reference.target()).await?;
        let top = match reference.target() {
            Target::Digest(digest) => digest.clone(),
            Target::Tag(_) => Digest::sha256(&fetched.bytes),
        };
        let mut document = manifest::parse(&fetched.bytes, &fetched.content_type)?;
        let mut documents = vec![(top.clone(), fetched.bytes)];
        for _ in 0..MAX_NESTING {
            let entries = match document {
                Document::Manifest(manifest) => return Ok(Resolved { top, manifest, documents }),
                Document::Index(entries) => entries,
            };
            let entry = self.inner.platform.choose(&entries).ok_or_else(|| {
                let there: Vec<_> = entries
                    .iter()
                    .filter_map(|e| e.platform.as_ref())
                    .map(platform::display)
                    .collect();
                Error::Unsupported(format!(
                    "{reference}: no image for {} in its index, which has {}",
                    self.inner.platform.name(),
                    if there.is_empty() { "none".to_owned() } else { there.join(", ") }
                ))
            })?;
            let bytes = self.document(entry).await?;
            document = manifest::parse(&bytes, &entry.media_type)?;
            documents.push((entry.digest.clone(), bytes));
        }
        Err(Error::content(format!("{reference}: indexes are nested too deeply")))
    }

    /// A manifest or index named by another: from the disk, else from the registry.
    async fn document(&self, entry: &Descriptor) -> Result<Vec<u8>, Error> {
        let (inner, digest) = (self.inner.clone(), entry.digest.clone());
        let kept =
            blocking(move || Ok(inner.content.read(&digest, manifest::MAX_MANIFEST))).await?;
        match kept {
            Some(bytes) => Ok(bytes),
            None => self.source.manifest(entry).await,
        }
    }

    /// Nothing but documents has been fetched so far.
    async fn verify(&self, reference: &Reference, resolved: &Resolved) -> Result<Proofs, Error> {
        let (Source::Registry(session), [(top, bytes), ..]) =
            (&self.source, resolved.documents.as_slice())
        else {
            return Ok(Proofs::default());
        };
        let chosen = resolved.documents.last().map_or(top, |(digest, _)| digest);
        self.inner.checks.at_pull(reference, session, (top, bytes), chosen).await
    }

    async fn config(&self, manifest: &Manifest) -> Result<(Vec<u8>, Parsed), Error> {
        let (inner, digest) = (self.inner.clone(), manifest.config.digest.clone());
        let kept = blocking(move || Ok(inner.content.read(&digest, manifest::MAX_CONFIG))).await?;
        let bytes = match kept {
            Some(bytes) => bytes,
            None => self.source.config(&manifest.config).await?,
        };
        let parsed = config::parse(&bytes)?;
        let named = manifest::Platform {
            os: parsed.os.clone(),
            architecture: parsed.architecture.clone(),
            variant: parsed.variant.clone(),
        };
        // An image that names no platform at all is given the benefit of the doubt.
        let unnamed = named.os.is_empty() && named.architecture.is_empty();
        if !unnamed && self.inner.platform.rank(&named).is_none() {
            return Err(Error::Unsupported(format!(
                "the image is for {}, this machine runs {}",
                platform::display(&named),
                self.inner.platform.name()
            )));
        }
        Ok((bytes, parsed))
    }

    /// Brings every layer here.
    async fn layers(&self, wanted: &[Wanted], parts: &[Arc<Part>]) -> Result<(), Error> {
        let at_once = self.inner.settings.max_concurrent_downloads.max(1);
        // Collected: as a lazy iterator it would make this future too general to be sent.
        let numbered = wanted.iter().zip(parts).enumerate();
        let work: Vec<_> =
            numbered.map(|(number, (layer, part))| self.layer(layer, number, part)).collect();
        stream::iter(work).buffer_unordered(at_once).try_collect().await
    }

    /// Fetches a layer that is not here, or waits for another pull that does. Whoever joined and fails tries once
    /// for itself, since the other's credentials or endpoints may have been at fault.
    async fn layer(&self, wanted: &Wanted, number: usize, part: &Arc<Part>) -> Result<(), Error> {
        let (layers, layer) = (self.inner.layers.clone(), wanted.layer.clone());
        if blocking(move || Ok(layers.has(&layer))).await? {
            part.already_here();
            metric::LAYERS.of(["present"]).add(1);
            return Ok(());
        }
        let key = LayerKey { blob: wanted.descriptor.digest.clone(), layer: wanted.layer.clone() };
        let mut tried = false;
        loop {
            let (work, brought, role) = self.inner.layer_flights.join(key.clone(), || {
                let (inner, source) = (self.inner.clone(), self.source.clone());
                let job = fetch(inner, source, part.clone(), wanted.clone());
                let job = job.map(|result| {
                    let label = if result.is_ok() { "fetched" } else { "failed" };
                    metric::LAYERS.of([label]).add(1);
                    result.map_err(Arc::new)
                });
                (job.boxed(), part.clone())
            });
            self.progress.share(number, &brought);
            match (work.await, role) {
                (Ok(()), _) => return Ok(()),
                (Err(err), Role::Joined) if !tried => {
                    tracing::debug!(%err, "another pull's layer failed; trying it here");
                    tried = true;
                }
                (Err(err), _) => return Err(Error::Layer(err)),
            }
        }
    }
}

/// The work on one layer, on behalf of all pulls that want it.
async fn fetch(
    inner: Arc<Inner>,
    source: Source,
    part: Arc<Part>,
    wanted: Wanted,
) -> Result<(), Error> {
    let Wanted { descriptor, diff_id, layer } = wanted;
    let lease = inner.layers.lease([layer.clone()]);
    let _room = inner.labour.admit().await?;
    let digest = descriptor.digest.clone();
    let kept = loop {
        let keep = if inner.settings.keep_blobs {
            let inner = inner.clone();
            Some(blocking(move || inner.content.draft()).await?)
        } else {
            None
        };
        let blob = source.blob(&descriptor).await?;
        let goal = Goal {
            descriptor: descriptor.clone(),
            diff_id: diff_id.clone(),
            layer: layer.clone(),
            keep,
            place: Place::Free,
            always_allowed: inner.settings.always_allowed,
        };
        match unpack(blob, goal, inner.layers.clone(), part.clone()).await {
            // Bounded: each time one endpoint less is trusted.
            Err(err @ Error::Content(_)) if source.distrust(&digest) => {
                tracing::warn!(%err, "asking another endpoint for the layer");
            }
            other => break other?,
        }
    };
    blocking(move || {
        inner.layers.measure(&layer);
        drop(lease);
        kept.map_or(Ok(()), |draft| draft.keep(&inner.content, &digest))?;
        part.done();
        Ok(())
    })
    .await
}

/// Pairs the manifest's blobs with the config's diff ids, and names the layers.
pub(super) fn stack(manifest: &Manifest, parsed: &Parsed) -> Result<Vec<Wanted>, Error> {
    if manifest.layers.len() != parsed.diff_ids.len() {
        return Err(Error::content(format!(
            "the manifest has {} layers, the image config {}",
            manifest.layers.len(),
            parsed.diff_ids.len()
        )));
    }
    let layers = manifest.layers.iter().zip(&parsed.diff_ids);
    layers
        .map(|(descriptor, diff_id)| {
            Ok(Wanted {
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                layer: layer_id(diff_id)?,
            })
        })
        .collect()
}

/// OCI's chain id: it names the whole stack of layers.
pub(super) fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    diff_ids
        .iter()
        .cloned()
        .reduce(|below, diff_id| Digest::sha256(format!("{below} {diff_id}").as_bytes()))
}

/// Layers have SHA-256 names; another digest is hashed into one.
fn layer_id(digest: &Digest) -> Result<LayerId, Error> {
    let name = match digest.algorithm() {
        Algorithm::Sha256 => digest.clone(),
        Algorithm::Sha512 => Digest::sha256(digest.as_str().as_bytes()),
    };
    name.as_str().parse().map_err(|err| Error::Internal(format!("layer name: {err}")))
}

fn describe(
    reference: &Reference,
    resolved: &Resolved,
    wanted: &[Wanted],
    layers: &[LayerId],
    parsed: Parsed,
    inner: &Inner,
) -> ImageRecord {
    let config = &resolved.manifest.config;
    let chain_id = chain_id(&parsed.diff_ids);
    let bases: Vec<_> = wanted.iter().map(|wanted| wanted.layer.clone()).collect();
    let mut record = ImageRecord::new(config.digest.clone(), layers, &bases, parsed.config);
    record.size = wanted.iter().map(|layer| layer.descriptor.size).sum::<u64>() + config.size;
    record.chain_id = chain_id;
    record.digests = vec![reference.at(&resolved.top)];
    if let Target::Tag(_) = reference.target() {
        record.tags = vec![reference.to_string()];
    }
    record.files = resolved.documents.iter().map(|(digest, _)| digest.clone()).collect();
    record.files.push(config.digest.clone());
    if inner.settings.keep_blobs {
        record.files.extend(wanted.iter().map(|layer| layer.descriptor.digest.clone()));
    }
    record.pulled_at = now();
    record
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Runs disk work on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|err| Error::Internal(format!("image work: {err}")))?
}

/// A layer's result, shared by all pulls that wait for it.
pub(super) type LayerResult = Result<(), Shared>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_oci_specification() {
        let d = |text: &str| Digest::sha256(text.as_bytes());
        assert_eq!(chain_id(&[d("a")]), Some(d("a")));
        let two = Digest::sha256(format!("{} {}", d("a"), d("b")).as_bytes());
        assert_eq!(chain_id(&[d("a"), d("b")]), Some(two.clone()));
        let three = Digest::sha256(format!("{two} {}", d("c")).as_bytes());
        assert_eq!(chain_id(&[d("a"), d("b"), d("c")]), Some(three));
        assert_eq!(chain_id(&[]), None);
    }
}
