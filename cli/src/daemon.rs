//! The connection to podwrightd.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use api::cri::v1::image_service_client::ImageServiceClient;
use api::cri::v1::runtime_service_client::RuntimeServiceClient;
use api::cri::v1::{
    Container, ContainerStatus, ContainerStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxStatus, PodSandboxStatusRequest,
};
use api::node::v1::node_client::NodeClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::tls::Tls;

/// The largest answer taken. A command's two outputs are 16 MiB each at most; lists are smaller.
const MAX_ANSWER: usize = 48 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// There where systemd runs.
const SYSTEMD: &str = "/run/systemd/system";

/// Both CRI services, and our own, over one connection.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
    pub(crate) node: NodeClient<Channel>,
    pub(crate) tls: Tls,
}

/// A path, or a path written the way crictl wants it.
pub(crate) fn parse_socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.is_empty() { Err("the path is empty".into()) } else { Ok(path.into()) }
}

impl Daemon {
    /// Connects, and says what to do when that does not work.
    pub(crate) async fn connect(socket: &Path, tls: Tls) -> anyhow::Result<Self> {
        // tonic would hide the reason in its own words, so the socket is tried first.
        drop(UnixStream::connect(socket).await.map_err(|error| explain(socket, &error))?);
        let path = socket.to_owned();
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector(service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .with_context(|| format!("speaking gRPC at {}", socket.display()))?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            node: NodeClient::new(channel).max_decoding_message_size(MAX_ANSWER),
            tls,
        })
    }

    /// All pods, the newest first.
    pub(crate) async fn pods(&mut self) -> anyhow::Result<Vec<PodSandbox>> {
        let answer = self.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?;
        let mut pods = answer.into_inner().decoded()?;
        pods.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        Ok(pods)
    }

    /// All containers, the newest first.
    pub(crate) async fn containers(&mut self) -> anyhow::Result<Vec<Container>> {
        let answer = self.runtime.list_containers(ListContainersRequest::default()).await?;
        let mut containers = answer.into_inner().decoded()?;
        containers.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
        Ok(containers)
    }

    pub(crate) async fn pod_status(&mut self, id: &str) -> anyhow::Result<PodSandboxStatus> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        let answer = self.runtime.pod_sandbox_status(request).await?;
        answer.into_inner().status.ok_or_else(|| anyhow!("the daemon told nothing of pod {id}"))
    }

    pub(crate) async fn container_status(&mut self, id: &str) -> anyhow::Result<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        let answer = self.runtime.container_status(request).await?;
        let status = answer.into_inner().status;
        status.ok_or_else(|| anyhow!("the daemon told nothing of container {id}"))
    }
}

fn explain(socket: &Path, error: &std::io::Error) -> anyhow::Error {
    let path = socket.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
            "podwrightd is not running at {path}: start it with `{}`, or name another socket with \
             --socket",
            if Path::new(SYSTEMD).exists() { "systemctl start podwright" } else { "podwrightd" }
        ),
        ErrorKind::PermissionDenied => {
            anyhow!("no permission to use {path}: run podwright as root, for instance with sudo")
        }
        _ => anyhow!("connecting to {path}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_be_written_as_crictl_wants_it() {
        assert_eq!(parse_socket("unix:///run/a.sock").unwrap(), Path::new("/run/a.sock"));
        assert_eq!(parse_socket("a.sock").unwrap(), Path::new("a.sock"));
        assert!(parse_socket("unix://").is_err());
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("podwright.sock");
        let told = Daemon::connect(&socket, Tls::default()).await.unwrap_err().to_string();
        assert!(told.starts_with("podwrightd is not running at /"), "{told}");
        // A socket file that its daemon left behind.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let told = Daemon::connect(&socket, Tls::default()).await.unwrap_err().to_string();
        assert!(told.starts_with("podwrightd is not running at /"), "{told}");
    }
}
