//! containerd's Content: manifests, indexes and configs, and layers where they are kept (`image.keep_blobs`), as files
//! by their digest. What is read is not verified here; whoever asks by digest can.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use api::containerd::content as message;
use api::containerd::content::content_server::Content;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::filter::{Filters, of_map};
use super::{Containerd, Namespace, not_found};
use crate::error::Error;
use crate::image::{Digest, Image, Images};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

/// Bytes of a message: far below the 4 MiB that clients take.
const PIECE: u64 = 512 << 10;
/// What the label begins with that tells where content came from.
const SOURCE: &str = "containerd.io/distribution.source.";

#[tonic::async_trait]
impl Content for Containerd {
    async fn info(&self, request: Request<message::InfoRequest>) -> Answer<message::InfoResponse> {
        let namespace = Namespace::of(&request)?;
        let digest = parse(&request.into_inner().digest)?;
        let (images, wanted) = (self.pods.node.images.clone(), digest.clone());
        let info = match namespace {
            Namespace::Ours => blocking(move || Ok(info(&images, &images.list(), &wanted))).await?,
            Namespace::Other => None,
        };
        let info = info.ok_or_else(|| not_found("content", digest.as_str()))?;
        Ok(Response::new(message::InfoResponse { info: Some(info) }))
    }

    type ListStream = BoxStream<message::ListContentResponse>;

    async fn list(
        &self,
        request: Request<message::ListContentRequest>,
    ) -> Answer<Self::ListStream> {
        let namespace = Namespace::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters);
        let filters = filters.map_err(Status::invalid_argument)?;
        let images = self.pods.node.images.clone();
        let read = move || {
            let known = images.list();
            let files = images.files().map_err(|err| Error::Image(err.to_string()))?;
            let infos = files.iter().filter_map(|digest| info(&images, &known, digest));
            Ok(infos.filter(|info| filters.admit(|path| field(info, path))).collect())
        };
        let infos = match namespace {
            Namespace::Ours => blocking(read).await?,
            Namespace::Other => Vec::new(),
        };
        Ok(super::super::lists::pieces(infos, |info| message::ListContentResponse { info }))
    }

    type ReadStream = BoxStream<message::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<message::ReadContentRequest>,
    ) -> Answer<Self::ReadStream> {
        let namespace = Namespace::of(&request)?;
        let message::ReadContentRequest { digest, offset, size } = request.into_inner();
        let digest = parse(&digest)?;
        let (images, wanted) = (self.pods.node.images.clone(), digest.clone());
        let open = move || {
            let file = images.open_file(&wanted);
            Ok(file.and_then(|file| Some((file.metadata().ok()?.size(), file))))
        };
        let found = match namespace {
            Namespace::Ours => blocking(open).await?,
            Namespace::Other => None,
        };
        let (length, file) = found.ok_or_else(|| not_found("content", digest.as_str()))?;
        let (begin, end) = range(length, offset, size)?;
        Ok(Response::new(pieces(file, begin, end)))
    }
}

#[allow(clippy::result_large_err, reason = "what tonic's handlers give")]
fn parse(text: &str) -> Result<Digest, Status> {
    Digest::parse(text).ok_or_else(|| {
        Status::invalid_argument(format!("{text:?} is not a sha256 or sha512 digest"))
    })
}

/// What of so many bytes is wanted: a size of 0, or one too large, is to the end.
#[allow(clippy::result_large_err, reason = "what tonic's handlers give")]
fn range(length: u64, offset: i64, size: i64) -> Result<(u64, u64), Status> {
    let begin = u64::try_from(offset).unwrap_or(0);
    if begin > length {
        return Err(Status::out_of_range(format!("offset {begin} is past the end at {length}")));
    }
    let size = u64::try_from(size).ok().filter(|size| *size > 0).unwrap_or(u64::MAX);
    Ok((begin, begin.saturating_add(size).min(length)))
}

/// A file's bytes, read as they are sent.
fn pieces(file: File, begin: u64, end: u64) -> BoxStream<message::ReadContentResponse> {
    let file = Arc::new(file);
    Box::pin(futures_util::stream::unfold(begin, move |at| {
        let file = file.clone();
        async move {
            if at >= end {
                return None;
            }
            let wanted = usize::try_from(PIECE.min(end - at)).unwrap_or(0);
            let read = blocking(move || {
                let mut data = vec![0; wanted];
                let read = file.read_exact_at(&mut data, at);
                read.map_err(|err| Error::Image(format!("read content at {at}: {err}")))?;
                Ok(data)
            });
            match read.await {
                Ok(data) => {
                    let next = at + data.len() as u64;
                    let offset = i64::try_from(at).unwrap_or(i64::MAX);
                    Some((Ok(message::ReadContentResponse { offset, data }), next))
                }
                Err(err) => Some((Err(err.into()), end)),
            }
        }
    }))
}

/// Blocks.
fn info(images: &Images, known: &[Arc<Image>], digest: &Digest) -> Option<message::Info> {
    let found = images.open_file(digest)?.metadata().ok()?;
    let kept = prost_types::Timestamp {
        seconds: found.mtime(),
        nanos: i32::try_from(found.mtime_nsec()).unwrap_or(0),
    };
    Some(message::Info {
        digest: digest.to_string(),
        size: i64::try_from(found.size()).unwrap_or(i64::MAX),
        created_at: Some(kept),
        updated_at: Some(kept),
        labels: sources(known, digest),
    })
}

/// Where content came from, by registry: what mirrors between nodes look for.
fn sources(known: &[Arc<Image>], digest: &Digest) -> BTreeMap<String, String> {
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let of = known.iter().filter(|image| image.files.contains(digest));
    for name in of.flat_map(|image| image.digests.iter()) {
        let Some((registry, path)) =
            name.split_once('@').and_then(|(repository, _)| repository.split_once('/'))
        else {
            continue;
        };
        let paths = sources.entry(format!("{SOURCE}{registry}")).or_default();
        if paths.split(',').all(|known| known != path) {
            let comma = if paths.is_empty() { "" } else { "," };
            paths.push_str(comma);
            paths.push_str(path);
        }
    }
    sources
}

fn field(info: &message::Info, path: &[&str]) -> Option<String> {
    match path {
        ["digest"] => Some(info.digest.clone()),
        ["size"] => Some(info.size.to_string()),
        ["labels", key @ ..] => of_map(&info.labels, key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[test]
    fn what_is_wanted_of_some_bytes() {
        for (offset, size, expected) in [
            (0, 0, Some((0, 10))),
            (-3, -3, Some((0, 10))),
            (4, 3, Some((4, 7))),
            (4, i64::MAX, Some((4, 10))),
            (10, 1, Some((10, 10))),
            (11, 0, None),
        ] {
            assert_eq!(range(10, offset, size).ok(), expected, "{offset} {size}");
        }
    }

    #[tokio::test]
    async fn a_file_in_pieces_that_say_where_they_are() {
        let bytes: Vec<u8> =
            (0..=255).cycle().take(2 * usize::try_from(PIECE).unwrap() + 9).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let open = || File::open(file.path()).unwrap();
        let all: Vec<_> = pieces(open(), 3, bytes.len() as u64).map(Result::unwrap).collect().await;
        assert_eq!(all.len(), 3);
        for piece in &all {
            let at = usize::try_from(piece.offset).unwrap();
            assert_eq!(piece.data, bytes[at..at + piece.data.len()]);
        }
        assert_eq!(all.iter().map(|piece| piece.data.len()).sum::<usize>(), bytes.len() - 3);
        // One that is cut short under its reader ends with an error, not with less.
        let cut: Vec<_> = pieces(open(), 0, bytes.len() as u64 + 5).collect().await;
        assert!(cut.last().unwrap().is_err());
    }
}
