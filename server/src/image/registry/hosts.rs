//! Where a registry's images come from: `certs.d/<host>/hosts.toml`, as containerd reads it.
//!
//! Read at every pull, so that changes count at once. Hosts are tried in the order of the file and the server
//! last. Keys that are not honoured (`client`, `header`) are refused rather than ignored, since leaving out a
//! client certificate or a header would fail in a way that nobody could explain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::super::error::Error;
use super::super::reference::DOCKER_IO;

/// Largest hosts.toml.
const MAX_FILE: u64 = 1 << 20;
/// Time to connect, where the file does not say.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(super) scheme: Scheme,
    /// `host` or `host:port`.
    pub(super) host: String,
    /// Before `/<repository>/…`: `/v2` unless overridden.
    pub(super) path: String,
    /// May turn a tag into a digest.
    pub(super) resolve: bool,
    /// May serve content by digest.
    pub(super) pull: bool,
    pub(super) tls: Tls,
    /// Try TLS first and plain HTTP where that fails: a local registry whose protocol nobody named.
    pub(super) http_fallback: bool,
    pub(super) dial_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// How a server proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Tls {
    pub(super) skip_verify: bool,
    /// PEM files of authorities beside the system's.
    pub(super) ca: Vec<PathBuf>,
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl Endpoint {
    /// On this machine.
    pub(super) fn is_local(&self) -> bool {
        is_local(&self.host)
    }
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    server: String,
    #[serde(default)]
    host: BTreeMap<toml::Spanned<String>, Host>,
    #[serde(flatten)]
    own: Host,
}

#[derive(Deserialize, Default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    skip_verify: Option<bool>,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
    client: Option<toml::Value>,
    header: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// The places to ask for images of `registry`, in order.
pub(super) fn endpoints(dir: &Path, registry: &str) -> Result<Vec<Endpoint>, Error> {
    match find(dir, registry)? {
        Some((dir, text)) => parse(&text, &dir, registry).map_err(|reason| {
            Error::Config(format!("{}: {reason}", dir.join("hosts.toml").display()))
        }),
        None => Ok(vec![
            default_server(registry, &Host::default(), Path::new("")).map_err(Error::Config)?,
        ]),
    }
}

/// `host_port_`, `host:port`, then `_default`, as containerd names the directories.
fn find(root: &Path, registry: &str) -> Result<Option<(PathBuf, String)>, Error> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    for name in with_port.as_deref().into_iter().chain([registry, "_default"]) {
        let dir = root.join(name);
        let file = dir.join("hosts.toml");
        match std::fs::metadata(&file) {
            Ok(meta) if meta.len() > MAX_FILE => {
                return Err(Error::Config(format!("{}: larger than 1 MiB", file.display())));
            }
            Ok(_) => {
                let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
                return Ok(Some((dir, text)));
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(Error::io("stat", &file)(err)),
        }
    }
    Ok(None)
}

fn parse(text: &str, dir: &Path, registry: &str) -> Result<Vec<Endpoint>, String> {
    let file: File = toml::from_str(text).map_err(|err| err.to_string().trim_end().to_owned())?;
    let mut hosts: Vec<_> = file.host.iter().collect();
    hosts.sort_by_key(|(url, _)| url.span().start);
    let mut endpoints = hosts
        .into_iter()
        .map(|(url, host)| endpoint(url.get_ref(), host, dir))
        .collect::<Result<Vec<_>, _>>()?;
    endpoints.push(match file.server.as_str() {
        "" => default_server(registry, &file.own, dir)?,
        server => endpoint(server, &file.own, dir)?,
    });
    Ok(endpoints)
}

fn endpoint(url: &str, host: &Host, dir: &Path) -> Result<Endpoint, String> {
    let with_scheme =
        if url.starts_with("http") { url.to_owned() } else { format!("https://{url}") };
    let bad = || format!("{url:?} is not an http or https URL");
    let parsed = reqwest::Url::parse(&with_scheme).map_err(|_| bad())?;
    let scheme = match parsed.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(bad()),
    };
    let name = parsed.host_str().ok_or_else(bad)?;
    let address = match parsed.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    let mut path = parsed.path().trim_end_matches('/').to_owned();
    if !host.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    build(scheme, address, path, host, dir)
}

fn build(
    scheme: Scheme,
    address: String,
    path: String,
    host: &Host,
    dir: &Path,
) -> Result<Endpoint, String> {
    if host.client.is_some() || host.header.is_some() {
        return Err(format!("{address}: \"client\" and \"header\" are not supported yet"));
    }
    let has = |name| match &host.capabilities {
        Some(list) if !list.is_empty() => list.iter().any(|c| c.eq_ignore_ascii_case(name)),
        _ => true,
    };
    let known = ["pull", "resolve", "push", "referrers"];
    if let Some(odd) =
        host.capabilities.iter().flatten().find(|c| !known.contains(&c.to_lowercase().as_str()))
    {
        return Err(format!("{address}: unknown capability {odd:?}"));
    }
    let ca = match &host.ca {
        Some(OneOrMany::One(path)) => vec![dir.join(path)],
        Some(OneOrMany::Many(paths)) => paths.iter().map(|path| dir.join(path)).collect(),
        None => Vec::new(),
    };
    let tls_named = host.skip_verify.is_some() || !ca.is_empty();
    let fallback = scheme == Scheme::Http && tls_named && !address.ends_with(":80");
    Ok(Endpoint {
        scheme: if fallback { Scheme::Https } else { scheme },
        host: address,
        path,
        resolve: has("resolve"),
        pull: has("pull"),
        tls: Tls { skip_verify: host.skip_verify.unwrap_or(false), ca },
        http_fallback: fallback,
        dial_timeout: host.dial_timeout.as_deref().map_or(Ok(DIAL_TIMEOUT), duration)?,
    })
}

/// The registry itself. A local one is asked over TLS without verification and then in the clear, unless its
/// port says which.
fn default_server(registry: &str, host: &Host, dir: &Path) -> Result<Endpoint, String> {
    let address = if registry == DOCKER_IO { "registry-1.docker.io" } else { registry };
    let mut endpoint = build(Scheme::Https, address.to_owned(), "/v2".to_owned(), host, dir)?;
    if is_local(registry) {
        let port = registry.rsplit_once(':').map(|(_, port)| port).filter(|p| !p.ends_with(']'));
        match port {
            None | Some("443") => endpoint.tls.skip_verify = true,
            Some("80") => endpoint.scheme = Scheme::Http,
            Some(_) => {
                endpoint.tls.skip_verify = true;
                endpoint.http_fallback = true;
            }
        }
    }
    Ok(endpoint)
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

/// Go's form of a duration with one unit: `500ms`, `30s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("dial_timeout {text:?} is not a duration such as \"30s\"");
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
    let number: f64 = text[..unit].parse().map_err(|_| bad())?;
    let factor = match &text[unit..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| bad())
}

#[cfg(test)]
mod tests;
