//! containerd's Version, Namespaces and Introspection: who answers here, and what for.

use api::containerd::introspection::introspection_server::Introspection;
use api::containerd::namespaces::namespaces_server::Namespaces;
use api::containerd::version::version_server::Version;
use api::containerd::{introspection, namespaces, version};
use tonic::{Request, Response, Status};

use super::filter::Filters;
use super::{Containerd, K8S, not_found};
use crate::image::Digest;

type Answer<T> = Result<Response<T>, Status>;

/// The kind of plugin that serves a part of the interface.
const SERVICE: &str = "io.containerd.grpc.v1";
/// What of it is here.
const SERVED: [&str; 9] = [
    "containers",
    "content",
    "cri",
    "events",
    "images",
    "introspection",
    "namespaces",
    "tasks",
    "version",
];

#[tonic::async_trait]
impl Version for Containerd {
    /// Ours: what containerd would be at this version, we are not.
    async fn version(&self, _: Request<()>) -> Answer<version::VersionResponse> {
        Ok(Response::new(version::VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: "podwright".to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl Namespaces for Containerd {
    async fn get(
        &self,
        request: Request<namespaces::GetNamespaceRequest>,
    ) -> Answer<namespaces::GetNamespaceResponse> {
        let name = request.into_inner().name;
        if name != K8S {
            return Err(not_found("namespace", &name));
        }
        Ok(Response::new(namespaces::GetNamespaceResponse { namespace: Some(ours()) }))
    }

    async fn list(
        &self,
        _: Request<namespaces::ListNamespacesRequest>,
    ) -> Answer<namespaces::ListNamespacesResponse> {
        Ok(Response::new(namespaces::ListNamespacesResponse { namespaces: vec![ours()] }))
    }
}

fn ours() -> namespaces::Namespace {
    namespaces::Namespace { name: K8S.to_owned(), ..Default::default() }
}

#[tonic::async_trait]
impl Introspection for Containerd {
    async fn plugins(
        &self,
        request: Request<introspection::PluginsRequest>,
    ) -> Answer<introspection::PluginsResponse> {
        let filters = Filters::parse(&request.into_inner().filters);
        let filters = filters.map_err(Status::invalid_argument)?;
        let plugin = |id: &str| introspection::Plugin {
            r#type: SERVICE.to_owned(),
            id: id.to_owned(),
            ..Default::default()
        };
        let is_wanted = |plugin: &introspection::Plugin| {
            filters.admit(|path| match path {
                ["type"] => Some(plugin.r#type.clone()),
                ["id"] => Some(plugin.id.clone()),
                _ => None,
            })
        };
        let plugins = SERVED.iter().map(|id| plugin(id)).filter(is_wanted).collect();
        Ok(Response::new(introspection::PluginsResponse { plugins }))
    }

    async fn server(&self, _: Request<()>) -> Answer<introspection::ServerResponse> {
        use std::os::unix::fs::MetadataExt;
        let pidns = std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
        Ok(Response::new(introspection::ServerResponse {
            uuid: uuid(self.pods.node.instance.mark()),
            pid: std::process::id().into(),
            pidns,
        }))
    }
}

/// Of version 8, which is for those who make their own: the same one for as long as the daemon's directories last.
fn uuid(mark: &str) -> String {
    let digest = Digest::sha256(mark.as_bytes());
    let hex = &digest.hex()[..32];
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_of_version_8_and_the_same_each_time() {
        let uuid = super::uuid("0badcafe");
        assert_eq!(uuid, super::uuid("0badcafe"));
        assert_ne!(uuid, super::uuid("0badcaff"));
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!((lengths, &uuid[14..15], &uuid[19..20]), (vec![8, 4, 4, 4, 12], "8", "8"));
    }
}
