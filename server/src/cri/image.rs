//! CRI's ImageService over [`Images`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::cri::v1 as cri;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use super::in_flight;
use super::lists::{pieces, whole};
use crate::container::node::Node;
use crate::image::{AuthFields, Credentials, Error, Image, ImageUser, Images};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct ImageService {
    node: Arc<Node>,
    images: Images,
    /// Where layers and writable layers are: the path by which the kubelet finds the disk.
    file_system: PathBuf,
}

impl ImageService {
    /// Serves the node's images.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let (images, file_system) = (node.images.clone(), node.config.root.clone());
        Self { node, images, file_system }
    }
}

#[tonic::async_trait]
impl cri::image_service_server::ImageService for ImageService {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        let images = self.listed(request.into_inner().filter);
        whole(cri::ListImagesResponse { images }, "StreamImages")
    }

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<BoxStream<cri::StreamImagesResponse>>, Status> {
        let images = self.listed(request.into_inner().filter);
        Ok(pieces(images, |images| cri::StreamImagesResponse { images }))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let cri::ImageStatusRequest { image, verbose } = request.into_inner();
        let Some(image) = self.images.resolve(&named(image)?) else {
            return Ok(Response::new(cri::ImageStatusResponse::default()));
        };
        let info = if verbose { self.info(&image).await? } else { BTreeMap::new() };
        let image = Some(self.message(&image));
        Ok(Response::new(cri::ImageStatusResponse { image, info }))
    }

    /// tonic drops this future when the client goes away, and the client's deadline ends it; the pull goes on, and
    /// the client's next try joins it.
    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let patience = in_flight::patience(&request);
        let cri::PullImageRequest { image, auth, .. } = request.into_inner();
        // One image serves every handler here; for one that is not there none is pulled.
        let handler = image.as_ref().map_or("", |image| &image.runtime_handler);
        self.node.host.handler(handler)?;
        let name = named(image)?;
        let auth = auth.unwrap_or_default();
        let credentials = Credentials::from_auth(&AuthFields {
            username: &auth.username,
            password: &auth.password,
            auth: &auth.auth,
            server_address: &auth.server_address,
            identity_token: &auth.identity_token,
            registry_token: &auth.registry_token,
        })
        .map_err(|err| status(&err))?;
        let mut pull = self.images.pull(&name, credentials).map_err(|err| status(&err))?;
        let progress = pull.progress();
        let _caller = progress.operation().caller();
        match in_flight::in_time(patience, &mut pull).await {
            Some(Ok(id)) => Ok(Response::new(cri::PullImageResponse { image_ref: id.to_string() })),
            Some(Err(err)) => Err(status(&err)),
            None => Err(Status::deadline_exceeded(format!("still {}", progress.now()))),
        }
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.images.remove(&name).await.map_err(|err| status(&err))?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        let usage = self.images.usage();
        let file_system = cri::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(cri::FilesystemIdentifier {
                mountpoint: self.file_system.to_string_lossy().into_owned(),
            }),
            used_bytes: Some(cri::UInt64Value { value: usage.bytes }),
            inodes_used: Some(cri::UInt64Value { value: usage.inodes }),
        };
        // Writable layers are on the same disk: the same entry says that it is not split.
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![file_system.clone()],
            container_filesystems: vec![file_system],
        }))
    }
}

impl ImageService {
    /// What ListImages and StreamImages give.
    fn listed(&self, filter: Option<cri::ImageFilter>) -> Vec<cri::Image> {
        let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image);
        let images = match wanted.filter(|image| !image.is_empty()) {
            Some(image) => self.images.resolve(&image).into_iter().collect(),
            None => self.images.list(),
        };
        images.iter().map(|image| self.message(image)).collect()
    }

    fn message(&self, image: &Image) -> cri::Image {
        cri::Image { pinned: self.images.is_pinned(image), ..message(image) }
    }

    /// What `crictl inspecti` shows besides: the keys are containerd's.
    async fn info(&self, image: &Arc<Image>) -> Result<BTreeMap<String, String>, Status> {
        let (images, of) = (self.images.clone(), image.clone());
        let spec = tokio::task::spawn_blocking(move || images.raw_config(&of));
        let spec = spec.await.map_err(|err| Status::internal(err.to_string()))?;
        let info = serde_json::json!({ "chainID": image.chain_id, "imageSpec": spec });
        Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
    }
}

fn named(spec: Option<cri::ImageSpec>) -> Result<String, Status> {
    let image = spec.unwrap_or_default().image;
    if image.is_empty() { Err(Status::invalid_argument("image: is empty")) } else { Ok(image) }
}

fn message(image: &Image) -> cri::Image {
    let (uid, username) = match image.config.image_user() {
        Some(ImageUser::Uid(uid)) => (Some(cri::Int64Value { value: uid.into() }), String::new()),
        Some(ImageUser::Name(name)) => (None, name),
        None => (None, String::new()),
    };
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: false,
    }
}

/// The kubelet shows the text of code `Unknown` as it is, and matches prefixes of it.
pub(super) fn status(err: &Error) -> Status {
    let code = match err {
        Error::Reference(_) | Error::Credentials(_) => Code::InvalidArgument,
        Error::Layer(inner) => return status(inner),
        Error::Import { err: inner, .. } => {
            return Status::new(status(inner).code(), err.to_string());
        }
        Error::Internal(_) => Code::Internal,
        Error::NotFound(_)
        | Error::Unavailable(_)
        | Error::Refused(_)
        | Error::Content(_)
        | Error::Signature(_)
        | Error::Unsupported(_)
        | Error::Config(_)
        | Error::Io { .. }
        | Error::Snapshot(_)
        | Error::Store(_) => Code::Unknown,
    };
    Status::new(code, err.to_string())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
