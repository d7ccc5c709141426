//! The endpoint that Prometheus reads, where one is configured.
//!
//! `GET /metrics`, and `/v1/metrics` as of containerd, in Prometheus's text format. All of it is read when somebody
//! asks; nothing here runs in between. It is served from the first moment, so that a recovery can be watched, and it
//! needs no login: it belongs on the loopback, on a Unix socket, or behind whatever else may read it. A place that
//! cannot be listened at is told in the log and keeps no pod from running.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Endpoint;
use crate::container::logged;
use crate::container::state::State;
use crate::metric::{self, Kind, Text};
use crate::operation::Progress;
use crate::sandbox::Pods;
use crate::telemetry::{Tasks, blocking};

/// Connections at a time; more of them wait.
const MAX_CONNECTIONS: usize = 16;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// For all that one connection asks; scrapers open another.
const CONNECTION: Duration = Duration::from_secs(3600);
const MAX_HEADERS: usize = 64;
/// Of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// After a connection could not be accepted: descriptors have run out, most likely.
const PAUSE: Duration = Duration::from_millis(100);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves where the configuration says, until the daemon ends.
pub(crate) async fn start(pods: &Arc<Pods>) {
    let Some(endpoint) = &pods.node.config.metrics else { return };
    match listen(endpoint).await {
        Ok(listener) => {
            tracing::info!(%endpoint, "serving metrics");
            // Never waited for: its tasks end with the process.
            let tasks = Tasks::default();
            let span = tracing::info_span!("metrics");
            tasks.clone().spawn(span, accept(pods.clone(), listener, tasks));
        }
        Err(err) => tracing::error!(%endpoint, %err, "metrics are not served"),
    }
}

/// Nothing is served from now on.
pub(crate) fn end(pods: &Pods) {
    if let Some(Endpoint::Unix(path)) = &pods.node.config.metrics {
        std::fs::remove_file(path).ok();
    }
}

async fn listen(endpoint: &Endpoint) -> std::io::Result<Listener> {
    match endpoint {
        Endpoint::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
        Endpoint::Unix(path) => listen_unix(path).map(Listener::Unix),
    }
}

/// We hold the lock: a socket that is there is a dead daemon's. Anything else is somebody's, and stays.
fn listen_unix(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(pods: Arc<Pods>, listener: Listener, tasks: Tasks) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = match &listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(socket, _)| {
                serve(&pods, &tasks, socket, place);
            }),
            Listener::Unix(unix) => unix.accept().await.map(|(socket, _)| {
                serve(&pods, &tasks, socket, place);
            }),
        };
        if let Err(err) = accepted {
            tracing::warn!(%err, "a connection for metrics was not accepted");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn serve<S>(pods: &Arc<Pods>, tasks: &Tasks, socket: S, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pods = pods.clone();
    tasks.spawn(tracing::info_span!("scrape"), async move {
        let _place = place;
        let service = service_fn(|request| {
            let pods = pods.clone();
            async move { Ok::<_, Infallible>(answer(&pods, &request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        match tokio::time::timeout(CONNECTION, served).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(err)) => tracing::debug!(%err, "a request for metrics was not served"),
        }
    });
}

async fn answer(pods: &Arc<Pods>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if !matches!(request.uri().path(), "/metrics" | "/v1/metrics") {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let pods = pods.clone();
    match blocking(move || Ok(read(&pods))).await {
        Ok(text) => {
            let kind = http::HeaderValue::from_static(metric::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            *response.body_mut() = Full::new(text.into());
        }
        Err(err) => {
            tracing::error!(%err, "metrics were not read");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
    }
    response
}

/// All that there is to tell. Reads memory, some files in /proc about this process, and one of each running container's.
#[allow(clippy::cast_precision_loss, reason = "numbers of pods and bytes on a disk")]
fn read(pods: &Pods) -> String {
    pods.containers().iter().filter(|one| one.is_running()).for_each(|one| logged::count(one));
    let mut text = Text::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    let help = "Always 1; the label tells which podwrightd this is.";
    text.head(Kind::Gauge, "podwright_build_info", help);
    text.whole("podwright_build_info", &version, 1);
    metric::counted(&mut text);
    metric::recovered(&mut text);
    here(pods, &mut text);
    under_way(pods, &mut text);
    let help = "Bytes on the disk of all layers and of what containers have written.";
    let bytes = Some(pods.node.images.usage().bytes as f64);
    text.one(Kind::Gauge, "podwright_image_file_system_bytes", help, bytes);
    metric::process(&mut text);
    text.finish()
}

/// The pods, containers and images that there are.
#[allow(clippy::cast_precision_loss, reason = "numbers of pods")]
fn here(pods: &Pods, text: &mut Text) {
    let sandboxes = pods.sandboxes();
    let mut by_state = |name, help, counts: &[(&str, usize)]| {
        text.head(Kind::Gauge, name, help);
        for (state, count) in counts {
            text.whole(name, &[("state", state)], *count as u64);
        }
    };
    let ready = sandboxes.iter().filter(|sandbox| sandbox.is_ready()).count();
    let help = "Sandboxes, by the state that the kubelet is told.";
    let not_ready = sandboxes.len() - ready;
    by_state("podwright_sandboxes", help, &[("ready", ready), ("not_ready", not_ready)]);
    let (mut created, mut running, mut exited) = (0, 0, 0);
    for container in pods.containers() {
        match container.state() {
            State::Created => created += 1,
            State::Running(_) => running += 1,
            State::Exited(_) => exited += 1,
        }
    }
    let counts = [("created", created), ("running", running), ("exited", exited)];
    by_state("podwright_containers", "Containers, by state.", &counts);
    let attached = sandboxes.iter().filter_map(|sandbox| sandbox.shim());
    let shims = attached.filter(|shim| shim.is_alive()).count();
    let help = "Shims that are alive and attached to.";
    text.one(Kind::Gauge, "podwright_shims", help, Some(shims as f64));
    let images = pods.node.images.list().len();
    text.one(Kind::Gauge, "podwright_images", "Images that are here.", Some(images as f64));
}

/// Operations that have not ended.
#[allow(clippy::cast_precision_loss, reason = "a number of operations")]
fn under_way(pods: &Pods, text: &mut Text) {
    let all = pods.node.operations.list();
    let help = "Operations under way.";
    let count = Some(all.len() as f64);
    text.one(Kind::Gauge, "podwright_operations_in_progress", help, count);
    let late = |one: &Progress| one.in_stage.saturating_sub(one.allowed);
    let longest = all.iter().map(late).max().unwrap_or_default();
    let help = "For how long an operation has been in its stage beyond what its caller gave it; the longest.";
    let value = Some(longest.as_secs_f64());
    text.one(Kind::Gauge, "podwright_operation_longest_stage_seconds", help, value);
}
