//! A registry that does what a test tells it to: HTTP/1.1 on a loopback port, one request a connection.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::image::digest::Digest;
use crate::telemetry::Tasks;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What to answer in place of the truth.
#[derive(Clone, Debug)]
pub(super) enum Script {
    Status(u16),
    Redirect(String),
    /// So many bytes of the body, then the connection ends.
    CutAt(usize),
    /// Another body.
    Instead(Vec<u8>),
    /// Headers never come.
    Hang,
    /// Another status, with headers.
    Answer(u16, Vec<(&'static str, String)>),
    /// A byte now and then.
    Drip,
    /// So many bytes, and the rest only after so many more requests for the same.
    WaitFor {
        at: usize,
        others: usize,
    },
    /// The whole, whatever part was asked for.
    NoRange,
    /// A part that was not asked for.
    WrongRange(&'static str),
    /// A length that is not the body's.
    Length(usize),
    /// No token sold so far is good any more, and the connection ends after so many bytes.
    Expire(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Auth {
    /// Tokens are sold at /token for this password.
    Bearer {
        password: &'static str,
    },
    Basic {
        password: &'static str,
    },
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) range: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, (String, Vec<u8>)>,
    scripts: HashMap<String, Vec<Script>>,
    always: HashMap<String, Script>,
    auth: Option<Auth>,
    /// Of the tokens that are good.
    serial: u32,
    seen: Vec<Seen>,
    /// Requests under way, and the most there were.
    busy: usize,
    busiest: usize,
    /// Connections that ended with the TLS handshake.
    refused: usize,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

/// What a request is answered with.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    delivery: Delivery,
}

enum Delivery {
    Whole,
    Cut(usize),
    Drip,
    WaitFor { at: usize, others: usize },
}

impl Fake {
    pub(super) async fn start(tasks: &Tasks) -> Self {
        Self::speaking(tasks, None).await
    }

    /// With TLS, where a configuration for it is given.
    pub(super) async fn speaking(tasks: &Tasks, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = CancellationToken::new();
        let (served, stopped, spawner) = (state.clone(), stop.clone(), tasks.clone());
        tasks.spawn(tracing::Span::none(), async move {
            loop {
                let connection = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (state, stopped, tls) = (served.clone(), stopped.clone(), tls.clone());
                let served = async move {
                    match tls {
                        None => serve(connection, state, address).await,
                        Some(tls) => match TlsAcceptor::from(tls).accept(connection).await {
                            Ok(connection) => serve(connection, state, address).await,
                            Err(_) => state.lock().unwrap().refused += 1,
                        },
                    }
                };
                spawner.spawn(tracing::Span::none(), async move {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        () = served => {}
                    }
                });
            }
        });
        Self { address, state, _stop: stop.drop_guard() }
    }

    /// `127.0.0.1:port/name`.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub(super) fn auth(&self, auth: Auth) {
        self.state.lock().unwrap().auth = Some(auth);
    }

    /// Answers the next request for a path that ends so by the script.
    pub(super) fn script(&self, end: &str, script: Script) {
        self.state.lock().unwrap().scripts.entry(end.to_owned()).or_default().push(script);
    }

    /// Answers every request for a path that ends so by the script, once the others are used up.
    pub(super) fn always(&self, end: &str, script: Script) {
        self.state.lock().unwrap().always.insert(end.to_owned(), script);
    }

    /// The most requests under way at once.
    pub(super) fn busiest(&self) -> usize {
        self.state.lock().unwrap().busiest
    }

    /// Connections that ended with the TLS handshake.
    pub(super) fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    /// The parts of blobs that were asked for.
    pub(super) fn ranges(&self) -> Vec<String> {
        self.seen().into_iter().filter_map(|seen| seen.range).collect()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(super) fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path.contains(part)).count()
    }

    pub(super) fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.state.lock().unwrap().blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    /// Puts a document under its digest and, where given, a tag.
    pub(super) fn document(&self, tag: Option<&str>, kind: &str, text: &str) -> Digest {
        let digest = Digest::sha256(text.as_bytes());
        let mut state = self.state.lock().unwrap();
        for name in tag.into_iter().chain([digest.as_str()]) {
            state.manifests.insert(name.to_owned(), (kind.to_owned(), text.into()));
        }
        digest
    }

    /// Puts an image of these layers (blob and uncompressed content each) under a tag; its id and manifest.
    pub(super) fn image(
        &self,
        tag: &str,
        layers: &[(Vec<u8>, Vec<u8>)],
        config: &str,
    ) -> (Digest, Digest) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diffs: Vec<_> = layers.iter().map(|(_, tar)| Digest::sha256(tar)).collect();
        let config = format!(
            r#"{{"os":"linux","architecture":"{arch}","config":{config},
            "rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
            serde_json::to_string(&diffs).unwrap()
        );
        let id = self.blob(config.as_bytes());
        let descriptors: Vec<_> = layers
            .iter()
            .map(|(blob, _)| descriptor(LAYER, &self.blob(blob), blob.len()))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", &id, config.len()),
            descriptors.join(",")
        );
        (id, self.document(Some(tag), OCI_MANIFEST, &manifest))
    }
}

pub(super) fn descriptor(kind: &str, digest: &Digest, size: usize) -> String {
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

async fn serve(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<Mutex<State>>,
    address: SocketAddr,
) {
    let mut stream = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let headers: Vec<(String, String)> = head
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| {
        let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let seen = Seen {
        path,
        authorization: header("authorization"),
        range: header("range"),
        headers: headers.clone(),
        body: String::from_utf8(body).unwrap(),
    };
    let Some(reply) = answer(&state, &seen, address) else {
        return std::future::pending().await;
    };
    let busy = Busy::new(state.clone());
    let mut bytes = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        write!(bytes, "{name}: {value}\r\n").unwrap();
    }
    write!(bytes, "Content-Length: {}\r\n\r\n", reply.length.unwrap_or(reply.body.len())).unwrap();
    stream.write_all(&bytes).await.ok();
    if !head[0].starts_with("HEAD ") {
        deliver(&mut stream, &reply, &seen, &state).await;
    }
    // Before the end is seen: whoever sees it may come back at once.
    drop(busy);
    stream.shutdown().await.ok();
}

async fn deliver(
    stream: &mut (impl AsyncWrite + Unpin),
    reply: &Reply,
    seen: &Seen,
    state: &Mutex<State>,
) {
    let body = &reply.body;
    match reply.delivery {
        Delivery::Whole => stream.write_all(body).await.unwrap_or(()),
        Delivery::Cut(at) => stream.write_all(&body[..at.min(body.len())]).await.unwrap_or(()),
        Delivery::Drip => {
            for byte in body {
                let sent = stream.write_all(&[*byte]).await.is_ok() && stream.flush().await.is_ok();
                if !sent {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Delivery::WaitFor { at, others } => {
            let requests =
                || state.lock().unwrap().seen.iter().filter(|s| s.path == seen.path).count();
            let wanted = requests() + others;
            stream.write_all(&body[..at]).await.ok();
            stream.flush().await.ok();
            while requests() < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.write_all(&body[at..]).await.ok();
        }
    }
}

/// Counts a request as under way.
struct Busy(Arc<Mutex<State>>);

impl Busy {
    fn new(state: Arc<Mutex<State>>) -> Self {
        let mut locked = state.lock().unwrap();
        locked.busy += 1;
        locked.busiest = locked.busiest.max(locked.busy);
        drop(locked);
        Self(state)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().unwrap().busy -= 1;
    }
}

fn plain(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), length: None, delivery: Delivery::Whole }
}

fn basic(password: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
    format!("Basic {text}")
}

/// `None`: no answer ever.
fn answer(state: &Mutex<State>, seen: &Seen, address: SocketAddr) -> Option<Reply> {
    let mut state = state.lock().unwrap();
    state.seen.push(seen.clone());
    let path = seen.path.split('?').next().unwrap_or_default();
    let good = format!("Bearer sold{}", state.serial);
    if let Some(refusal) = log_in(state.auth.as_ref(), seen, path, &good, address) {
        return Some(refusal);
    }
    let key = state.scripts.keys().find(|end| path.ends_with(end.as_str())).cloned();
    let script = key.and_then(|key| {
        let list = state.scripts.get_mut(&key)?;
        (!list.is_empty()).then(|| list.remove(0))
    });
    let always = || state.always.iter().find(|(end, _)| path.ends_with(end.as_str()));
    let script = script.or_else(|| always().map(|(_, script)| script.clone()));
    let truth = content(&state, seen, path);
    Some(match script {
        None => truth,
        Some(Script::Status(status)) => plain(status),
        Some(Script::Answer(status, headers)) => Reply { headers, ..plain(status) },
        Some(Script::Redirect(to)) => Reply { headers: vec![("Location", to)], ..plain(307) },
        Some(Script::Instead(body)) => Reply { body, ..plain(200) },
        Some(Script::CutAt(at)) => Reply { delivery: Delivery::Cut(at), ..truth },
        Some(Script::Drip) => Reply { delivery: Delivery::Drip, ..truth },
        Some(Script::WaitFor { at, others }) => {
            Reply { delivery: Delivery::WaitFor { at, others }, ..truth }
        }
        Some(Script::NoRange) => content(&state, &Seen { range: None, ..seen.clone() }, path),
        Some(Script::WrongRange(range)) => {
            let headers = vec![("Content-Range", range.to_owned())];
            Reply { status: 206, headers, ..truth }
        }
        Some(Script::Length(length)) => Reply { length: Some(length), ..truth },
        Some(Script::Expire(at)) => {
            state.serial += 1;
            Reply { delivery: Delivery::Cut(at), ..truth }
        }
        Some(Script::Hang) => return None,
    })
}

/// The token service, and the answer to who is not logged in.
fn log_in(
    auth: Option<&Auth>,
    seen: &Seen,
    path: &str,
    good: &str,
    address: SocketAddr,
) -> Option<Reply> {
    let (want, challenge) = match auth? {
        Auth::Bearer { password } if path == "/token" => {
            let right = seen.authorization == Some(basic(password))
                || seen.body.contains(&format!("refresh_token={password}"));
            let token = good.trim_start_matches("Bearer ");
            let body = format!(r#"{{"token":"{token}","expires_in":300}}"#).into_bytes();
            let body = if right { body } else { Vec::new() };
            return Some(Reply { body, ..plain(if right { 200 } else { 401 }) });
        }
        Auth::Bearer { .. } => {
            (good.to_owned(), format!(r#"Bearer realm="http://{address}/token",service="fake""#))
        }
        Auth::Basic { password } => (basic(password), r#"Basic realm="fake""#.into()),
    };
    let headers = vec![("WWW-Authenticate", challenge)];
    (seen.authorization != Some(want)).then(|| Reply { headers, ..plain(401) })
}

fn content(state: &State, seen: &Seen, path: &str) -> Reply {
    let name = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/manifests/") {
        let Some((kind, body)) = state.manifests.get(name) else { return plain(404) };
        let headers = vec![("Content-Type", kind.clone())];
        return Reply { headers, body: body.clone(), ..plain(200) };
    }
    let Some(body) = state.blobs.get(name) else { return plain(404) };
    let range = seen.range.as_deref();
    let asked = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = asked else { return Reply { body: body.clone(), ..plain(200) } };
    let first: usize = first.parse().unwrap();
    let last: usize = last.parse().unwrap_or(body.len() - 1);
    let headers = vec![("Content-Range", format!("bytes {first}-{last}/{}", body.len()))];
    Reply { headers, body: body[first..=last].to_vec(), ..plain(206) }
}

/// A tar archive of regular files below a directory `dir/` that it contains.
pub(super) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, "dir/", b'5', &[]);
    for (name, content) in files {
        entry(&mut out, &format!("dir/{name}"), b'0', content);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn entry(out: &mut Vec<u8>, name: &str, kind: u8, content: &[u8]) {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let mode: &[u8] = if kind == b'5' { b"0000755\0" } else { b"0000644\0" };
    header[100..108].copy_from_slice(mode);
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Blob and content of a gzip layer with one file.
pub(super) fn layer(name: &str, content: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let tar = tar(&[(name, content)]);
    (gzip(&tar), tar)
}
