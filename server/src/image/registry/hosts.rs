//! Where a registry's images come from: `certs.d/<host>/hosts.toml`, as containerd reads it.
//!
//! Read at every pull, so that changes count at once. Hosts are asked in the order of the file and the server
//! last. A directory without a hosts.toml may hold certificates in Docker's layout: `*.crt` are authorities,
//! `*.cert` with a `*.key` of the same name beside it is what to show to the server. A file with mistakes makes
//! pulls from its registry fail, with all of them named, and no other's: containerd would ask the registry itself
//! instead of the mirror, which nobody could explain.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::super::error::Error;
use super::super::reference::DOCKER_IO;

mod certs;
mod duration;
pub(super) mod file;

/// Largest hosts.toml.
const MAX_FILE: u64 = 1 << 20;
/// Time to connect, where the file does not say.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(super) scheme: Scheme,
    /// `host` or `host:port`.
    pub(super) host: String,
    /// Before `/<repository>/…`: `/v2` unless overridden.
    pub(super) path: String,
    /// The registry's server, not a mirror of it.
    pub(super) is_server: bool,
    /// What it may be asked for, how, and with what.
    pub(super) given: Given,
    /// Try TLS first and plain HTTP where that fails: a local registry whose protocol nobody named, and `http://`
    /// with settings of TLS beside it.
    pub(super) http_fallback: bool,
    /// The file and line that say so.
    pub(super) from: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// What hosts.toml says about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// May turn a tag into a digest.
    pub(super) resolve: bool,
    /// May serve content by digest.
    pub(super) pull: bool,
    /// The URL's path is the whole path.
    pub(super) override_path: bool,
    pub(super) tls: Tls,
    /// Sent with every request to this host, and to no other.
    pub(super) headers: Headers,
    pub(super) dial_timeout: Duration,
}

/// Headers may hold secrets, so their values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Headers(pub(super) Vec<(HeaderName, HeaderValue)>);

/// How the two sides of a connection prove who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) skip_verify: Option<bool>,
    /// PEM files of authorities beside the system's.
    pub(super) ca: Vec<PathBuf>,
    /// What we can show to the server.
    pub(super) client: Vec<ClientFiles>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFiles {
    pub(super) certificate: PathBuf,
    /// Where the key is not in the same file.
    pub(super) key: Option<PathBuf>,
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name.as_str())).finish()
    }
}

impl Default for Given {
    fn default() -> Self {
        Self {
            resolve: true,
            pull: true,
            override_path: false,
            tls: Tls::default(),
            headers: Headers::default(),
            dial_timeout: DIAL_TIMEOUT,
        }
    }
}

impl Tls {
    fn is_given(&self) -> bool {
        self.skip_verify.is_some() || !self.ca.is_empty() || !self.client.is_empty()
    }
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The places to ask for images of `registry`, in order.
pub(super) fn endpoints(root: &Path, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let Some(dir) = find(root, registry)? else {
        return Ok(vec![server(registry, Given::default(), "built in".into())]);
    };
    let file = dir.join("hosts.toml");
    match read(&file)?.filter(|text| !text.is_empty()) {
        Some(text) => file::parse(&text, &file, registry).map_err(Error::Config),
        None => {
            let given = Given { tls: certs::find(&dir)?, ..Given::default() };
            Ok(vec![server(
                registry,
                given,
                format!("built in, certificates from {}", dir.display()),
            )])
        }
    }
}

/// `host_port_`, `host:port`, then `_default`: the first directory that exists, as in containerd.
fn find(root: &Path, registry: &str) -> Result<Option<PathBuf>, Error> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    for name in with_port.as_deref().into_iter().chain([registry, "_default"]) {
        let dir = root.join(name);
        match std::fs::metadata(&dir) {
            Ok(_) => return Ok(Some(dir)),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(Error::io("stat", &dir)(err)),
        }
    }
    Ok(None)
}

fn read(file: &Path) -> Result<Option<String>, Error> {
    match std::fs::metadata(file) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(Error::Config(format!("{}: larger than 1 MiB", file.display())))
        }
        Ok(_) => std::fs::read_to_string(file).map(Some).map_err(Error::io("read", file)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Error::io("stat", file)(err)),
    }
}

/// The place that a URL of the file names.
fn endpoint(url: &str, given: Given, from: String) -> Result<Endpoint, String> {
    let text = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let bad = || format!("{url:?} is not an http or https URL");
    let parsed = reqwest::Url::parse(&text).map_err(|_| bad())?;
    let scheme = match parsed.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(bad()),
    };
    let name = parsed.host_str().filter(|name| !name.is_empty()).ok_or_else(bad)?;
    let host = match parsed.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    let mut path = parsed.path().trim_end_matches('/').to_owned();
    if !given.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    // Where port 80 is named, there is no doubt about the protocol.
    let named = text.split("://").nth(1).and_then(|rest| rest.split('/').next());
    let clear = named.is_some_and(|authority| authority.ends_with(":80"));
    let http_fallback = scheme == Scheme::Http && given.tls.is_given() && !clear;
    let scheme = if http_fallback { Scheme::Https } else { scheme };
    Ok(Endpoint { scheme, host, path, is_server: false, given, http_fallback, from })
}

/// The registry itself. A local one is asked over TLS without verification and then in the clear, unless its
/// port says which. What it may be asked for is not for the file to say unless it names the server.
fn server(registry: &str, given: Given, from: String) -> Endpoint {
    let host = if registry == DOCKER_IO { "registry-1.docker.io" } else { registry };
    let mut endpoint = Endpoint {
        scheme: Scheme::Https,
        host: host.to_owned(),
        path: "/v2".to_owned(),
        is_server: true,
        given: Given { resolve: true, pull: true, ..given },
        http_fallback: false,
        from,
    };
    if is_local(registry) {
        match registry.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.ends_with(']')) {
            None | Some("443") => endpoint.given.tls.skip_verify = Some(true),
            Some("80") => endpoint.scheme = Scheme::Http,
            Some(_) => {
                endpoint.given.tls.skip_verify = Some(true);
                endpoint.http_fallback = true;
            }
        }
    }
    endpoint
}

fn is_local(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
