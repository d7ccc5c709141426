//! A registry that does what a test tells it to: HTTP/1.1 on a loopback port, one request a connection.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
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
    pub(super) body: String,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, (String, Vec<u8>)>,
    scripts: HashMap<String, Vec<Script>>,
    auth: Option<Auth>,
    seen: Vec<Seen>,
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
    cut: Option<usize>,
}

impl Fake {
    pub(super) async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = CancellationToken::new();
        let (served, stopped, spawner) = (state.clone(), stop.clone(), tasks.clone());
        tasks.spawn(tracing::Span::none(), async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => {
                        let (state, stopped) = (served.clone(), stopped.clone());
                        let connection = accepted.unwrap().0;
                        spawner.spawn(tracing::Span::none(), async move {
                            tokio::select! {
                                () = stopped.cancelled() => {}
                                () = serve(connection, state, address) => {}
                            }
                        });
                    }
                }
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

async fn serve(connection: TcpStream, state: Arc<Mutex<State>>, address: SocketAddr) {
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
    let header = |name: &str| {
        head.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let mut body = vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let seen = Seen {
        path,
        authorization: header("authorization"),
        range: header("range"),
        body: String::from_utf8(body).unwrap(),
    };
    let Some(reply) = answer(&state, &seen, address) else {
        return std::future::pending().await;
    };
    let mut bytes = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        write!(bytes, "{name}: {value}\r\n").unwrap();
    }
    write!(bytes, "Content-Length: {}\r\n\r\n", reply.body.len()).unwrap();
    bytes.extend_from_slice(&reply.body[..reply.cut.unwrap_or(reply.body.len())]);
    stream.write_all(&bytes).await.ok();
    stream.shutdown().await.ok();
}

fn plain(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new(), cut: None }
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
    if let Some(refusal) = log_in(state.auth.as_ref(), seen, path, address) {
        return Some(refusal);
    }
    let key = state.scripts.keys().find(|end| path.ends_with(end.as_str())).cloned();
    let script = key.and_then(|key| {
        let list = state.scripts.get_mut(&key)?;
        (!list.is_empty()).then(|| list.remove(0))
    });
    let truth = content(&state, seen, path);
    Some(match script {
        None => truth,
        Some(Script::Status(status)) => plain(status),
        Some(Script::Redirect(to)) => Reply { headers: vec![("Location", to)], ..plain(307) },
        Some(Script::Instead(body)) => Reply { body, ..plain(200) },
        Some(Script::CutAt(at)) => Reply { cut: Some(at), ..truth },
        Some(Script::Hang) => return None,
    })
}

/// The token service, and the answer to who is not logged in.
fn log_in(auth: Option<&Auth>, seen: &Seen, path: &str, address: SocketAddr) -> Option<Reply> {
    let (want, challenge) = match auth? {
        Auth::Bearer { password } if path == "/token" => {
            let right = seen.authorization == Some(basic(password))
                || seen.body.contains(&format!("refresh_token={password}"));
            let body = if right { br#"{"token":"sold"}"#.to_vec() } else { Vec::new() };
            return Some(Reply { body, ..plain(if right { 200 } else { 401 }) });
        }
        Auth::Bearer { .. } => (
            "Bearer sold".to_owned(),
            format!(r#"Bearer realm="http://{address}/token",service="fake""#),
        ),
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
    let start = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let Some(start) = start else { return Reply { body: body.clone(), ..plain(200) } };
    let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
    let headers = vec![("Content-Range", range)];
    let rest: std::ops::RangeFrom<usize> = start..;
    Reply { headers, body: body[rest].to_vec(), ..plain(206) }
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
