//! containerd's Images: every name of an image, and the manifest or index that it points to. As with containerd's CRI
//! plugin the id is a name, too.

use std::collections::BTreeMap;

use api::containerd::images as message;
use api::containerd::images::images_server::Images;
use api::types::Descriptor;
use tonic::{Request, Response, Status};

use super::filter::{Filters, of_map};
use super::{Containerd, Namespace, not_found, timestamp};
use crate::image::{self, Digest, Image};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Images for Containerd {
    async fn get(
        &self,
        request: Request<message::GetImageRequest>,
    ) -> Answer<message::GetImageResponse> {
        let namespace = Namespace::of(&request)?;
        let name = request.into_inner().name;
        let images = self.pods.node.images.clone();
        let wanted = name.clone();
        let find = move || {
            let found = images.resolve(&wanted);
            let found = found.filter(|image| names(image).any(|name| name == wanted));
            Ok(found.map(|image| of_image(&images, &image, &wanted)))
        };
        let image = match namespace {
            Namespace::Ours => blocking(find).await?,
            Namespace::Other => None,
        };
        let image = image.ok_or_else(|| not_found("image", &name))?;
        Ok(Response::new(message::GetImageResponse { image: Some(image) }))
    }

    async fn list(
        &self,
        request: Request<message::ListImagesRequest>,
    ) -> Answer<message::ListImagesResponse> {
        let namespace = Namespace::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters);
        let filters = filters.map_err(Status::invalid_argument)?;
        if namespace == Namespace::Other {
            return Ok(Response::new(message::ListImagesResponse::default()));
        }
        let images = self.pods.node.images.clone();
        let read = move || {
            let all = images.list();
            let named = all.iter().flat_map(|image| names(image).map(move |name| (image, name)));
            let named = named.map(|(image, name)| of_image(&images, image, name));
            Ok(named.filter(|one| filters.admit(|path| field(one, path))).collect())
        };
        Ok(Response::new(message::ListImagesResponse { images: blocking(read).await? }))
    }
}

fn names(image: &Image) -> impl Iterator<Item = &str> {
    let given = image.tags.iter().chain(&image.digests).map(String::as_str);
    given.chain([image.id.as_str()])
}

/// Blocks on a small file.
fn of_image(images: &image::Images, image: &Image, name: &str) -> message::Image {
    let pulled = timestamp(i64::try_from(image.pulled_at).unwrap_or(i64::MAX));
    let mut labels = BTreeMap::from([("io.cri-containerd.image".into(), "managed".into())]);
    if images.is_pinned(image) {
        labels.insert("io.cri-containerd.pinned".into(), "pinned".into());
    }
    message::Image {
        name: name.to_owned(),
        labels,
        target: target(image, name).map(|digest| descriptor(images, &digest)),
        created_at: Some(pulled),
        updated_at: Some(pulled),
    }
}

/// What a name stands for: its own digest, else one under which the image came from the same repository.
fn target(image: &Image, name: &str) -> Option<Digest> {
    let repository = |name: &str| match name.split_once('@') {
        Some((repository, _)) => repository.to_owned(),
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository).to_owned(),
    };
    let own = image.digests.iter().find(|digest| *digest == name);
    let sibling = || image.digests.iter().rev().find(|one| repository(one) == repository(name));
    let any = || image.digests.first();
    let (_, digest) = own.or_else(sibling).or_else(any)?.split_once('@')?;
    Digest::parse(digest)
}

fn descriptor(images: &image::Images, digest: &Digest) -> Descriptor {
    let (media_type, size) = images.document(digest).unwrap_or_default();
    Descriptor {
        media_type,
        digest: digest.to_string(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

fn field(image: &message::Image, path: &[&str]) -> Option<String> {
    let target = image.target.as_ref();
    match path {
        ["name"] => Some(image.name.clone()),
        ["target", "digest"] => target.map(|target| target.digest.clone()),
        ["target", "mediatype"] => target.map(|target| target.media_type.clone()),
        ["labels", key @ ..] => of_map(&image.labels, key),
        _ => None,
    }
}
