//! Docker's config.json: what a node's operator gives to log in with.
//!
//! Its keys name a registry (`host`, `host:port`, `*.host`), or a part of one (`host/path`). They are matched as the
//! kubelet matches them: schemes do not count, ports do, each `*` stands for one label of the host, and of
//! several keys the longest path wins. One difference: a path ends with a whole component, so that `host/team` does
//! not speak for `host/team-b`. Read at every pull. Nothing of it is ever shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::error::Error;
use super::credential_program as program;
use super::credentials::{AuthFields, Credentials, Login, is_docker};

/// Largest config.json.
const MAX_FILE: u64 = 4 << 20;
/// How Docker's tools call their own registry.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// The file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Where a login for a host is to be had.
pub(super) enum Source {
    /// It is in the file, under this key.
    Here { login: Login, key: String },
    /// Ask `docker-credential-<name>` for `server`.
    Helper { name: String, server: String },
}

impl std::fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DockerConfig({})", self.file.display())
    }
}

impl DockerConfig {
    /// A file that is not there says nothing.
    pub(super) fn read(file: &Path) -> Result<Self, Error> {
        let told = |why: String| Error::Config(format!("{}: {why}", file.display()));
        match std::fs::metadata(file) {
            Ok(meta) if meta.len() > MAX_FILE => return Err(told("larger than 4 MiB".into())),
            Ok(_) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(told(err.to_string())),
        }
        let bytes = std::fs::read(file).map_err(|err| told(err.to_string()))?;
        Self::parse(&bytes, file)
    }

    pub(super) fn parse(bytes: &[u8], file: &Path) -> Result<Self, Error> {
        // serde's own words quote what it stumbles on, which may be a secret.
        let config: Self = serde_json::from_slice(bytes).map_err(|err| {
            let line = err.line();
            Error::Config(format!(
                "{}: line {line}: it is not what Docker writes there",
                file.display()
            ))
        })?;
        Ok(Self { file: file.to_owned(), ..config })
    }

    /// Where to look for a login, in Docker's order: the helper of that registry, the helper of all, the file. The
    /// repository is only given for the registry's own server, since paths mean nothing at a mirror.
    pub(super) fn sources(&self, host: &str, repository: Option<&str>) -> Vec<Source> {
        let best = |keys: &mut dyn Iterator<Item = &String>| {
            let fitting = keys.filter_map(|key| Some((fit(key, host, repository)?, key.clone())));
            fitting.max().map(|(_, key)| key)
        };
        let mut sources = Vec::new();
        let server = if is_docker(host) { DOCKER_KEY } else { host }.to_owned();
        if let Some(key) = best(&mut self.cred_helpers.keys()) {
            let name = self.cred_helpers[&key].clone();
            sources.push(Source::Helper { name, server: server.clone() });
        }
        if !self.creds_store.is_empty() {
            sources.push(Source::Helper { name: self.creds_store.clone(), server });
        }
        let mut filled =
            self.auths.iter().filter(|(_, entry)| !entry.is_empty()).map(|(key, _)| key);
        if let Some(key) = best(&mut filled)
            && let Some(login) = self.auths[&key].login()
        {
            sources.push(Source::Here { login, key });
        }
        sources
    }

    /// The first login that is to be had. Asks helpers, so it may take their time. A helper that fails is told, and
    /// what comes after it counts: many images are to be had by anyone.
    pub(super) fn login(&self, host: &str, repository: Option<&str>) -> Known {
        let mut failed = None;
        for source in self.sources(host, repository) {
            match source {
                Source::Here { login, key } => {
                    let from = format!("{}: auths {key:?}", self.file.display());
                    return Known { login, from, failed };
                }
                Source::Helper { name, server } => {
                    match program::get(&name, &server, program::PATIENCE) {
                        Ok(Some(login)) => {
                            let from = format!(
                                "docker-credential-{name} for {server}, by {}",
                                self.file.display()
                            );
                            return Known { login, from, failed };
                        }
                        Ok(None) => {}
                        Err(err) => {
                            tracing::warn!(%err, "no credentials from a helper");
                            failed = Some(err.to_string());
                        }
                    }
                }
            }
        }
        Known { login: Login::Anonymous, from: "none".into(), failed }
    }
}

/// A login and where it is from.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) login: Login,
    pub(super) from: String,
    /// Why a helper was of no help.
    pub(super) failed: Option<String>,
}

impl Entry {
    /// Docker leaves empty entries where a helper knows.
    fn is_empty(&self) -> bool {
        let Self { auth, username, password, identitytoken, registrytoken } = self;
        [auth, username, password, identitytoken, registrytoken].iter().all(|text| text.is_empty())
    }

    fn login(&self) -> Option<Login> {
        let identity = !self.identitytoken.is_empty();
        let fields = AuthFields {
            // The name beside an identity token says nothing.
            username: if identity { "" } else { &self.username },
            password: if identity { "" } else { &self.password },
            auth: &self.auth,
            server_address: "",
            identity_token: &self.identitytoken,
            registry_token: &self.registrytoken,
        };
        let login = Credentials::from_auth(&fields).ok()?.into_login();
        (login != Login::Anonymous).then_some(login)
    }
}

/// How well a key fits: the length of its path, then whether it names the host without `*`.
fn fit(key: &str, host: &str, repository: Option<&str>) -> Option<(usize, bool)> {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let (key_host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = match path {
        // The API's versions, which old tools wrote down.
        "v1" | "v2" => "",
        path => path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path),
    };
    let docker = is_docker(key_host) && is_docker(host);
    if !docker && !same_host(key_host, host) {
        return None;
    }
    if !path.is_empty() {
        let below = repository?.strip_prefix(path)?;
        if !below.is_empty() && !below.starts_with('/') {
            return None;
        }
    }
    Some((path.len(), !key_host.contains('*')))
}

/// Label by label, with the same port.
fn same_host(key: &str, host: &str) -> bool {
    let split = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host.to_lowercase(), port.to_owned()),
        _ => (text.to_lowercase(), String::new()),
    };
    let ((key, key_port), (host, port)) = (split(key), split(host));
    let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (key, host) = (labels(&key), labels(&host));
    key_port == port
        && key.len() == host.len()
        && key.iter().zip(&host).all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

/// `*` any number of characters, `?` one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        DockerConfig::read(file.path()).unwrap()
    }

    fn told(config: &DockerConfig, host: &str, repository: Option<&str>) -> Vec<String> {
        let text = |source: &Source| match source {
            Source::Here { key, .. } => key.clone(),
            Source::Helper { name, server } => format!("{name} {server}"),
        };
        config.sources(host, repository).iter().map(text).collect()
    }

    #[test]
    fn the_key_that_says_most_is_taken() {
        let text = r#"{"auths": {
            "https://r.io/v1/": {"auth": "dTpw"}, "r.io/team": {"auth": "dTpw"},
            "r.io/team/app": {"username": "u"}, "*.r.io": {"auth": "dTpw"}, "r.io:5000": {"auth": "dTpw"},
            "b?*.r.io": {"auth": "dTpw"}, "https://index.docker.io/v1/": {"identitytoken": "t"},
            "empty.io": {}, "bad.io": {"auth": "!"}
        }}"#;
        let config = config(text);
        for (host, repository, want) in [
            ("r.io", Some("other/x"), vec!["https://r.io/v1/"]),
            ("r.io", Some("team/x"), vec!["r.io/team"]),
            ("r.io", Some("team"), vec!["r.io/team"]),
            ("r.io", Some("team-b/x"), vec!["https://r.io/v1/"]),
            ("r.io", Some("team/app/x"), vec!["r.io/team/app"]),
            ("r.io", None, vec!["https://r.io/v1/"]),
            ("R.IO", None, vec!["https://r.io/v1/"]),
            ("a.r.io", None, vec!["*.r.io"]),
            ("a.b.r.io", None, vec![]),
            ("a.r.io:5000", None, vec![]),
            ("r.io:5000", None, vec!["r.io:5000"]),
            ("docker.io", Some("library/x"), vec!["https://index.docker.io/v1/"]),
            ("registry-1.docker.io", None, vec!["https://index.docker.io/v1/"]),
            ("empty.io", None, vec![]),
            ("bad.io", None, vec![]),
            ("evil-r.io", None, vec![]),
        ] {
            assert_eq!(told(&config, host, repository), want, "{host} {repository:?}");
        }
        let shown = format!("{config:?}");
        assert!(!shown.contains("dTpw"), "{shown}");
    }

    #[test]
    fn helpers_come_before_the_file() {
        let text = r#"{"credsStore": "all", "credHelpers": {"r.io": "one", "docker.io": "hub"},
            "auths": {"r.io": {"auth": "dTpw"}}}"#;
        let config = config(text);
        assert_eq!(told(&config, "r.io", None), ["one r.io", "all r.io", "r.io"]);
        assert_eq!(told(&config, "x.io", None), ["all x.io"]);
        let hub = format!("hub {DOCKER_KEY}");
        assert_eq!(told(&config, "registry-1.docker.io", None)[0], hub);
    }

    #[test]
    fn a_broken_file_is_told_without_its_secrets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"auths\":\n\"hunter2\"}").unwrap();
        let err = DockerConfig::read(file.path()).unwrap_err().to_string();
        assert!(err.contains("line 2") && !err.contains("hunter2"), "{err}");
        assert!(DockerConfig::read(Path::new("/nowhere/x")).unwrap().sources("a", None).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn globs_end_and_stars_take_all(text in "[a-c]{0,12}", pattern in "[a-c*?]{0,12}") {
            glob(pattern.as_bytes(), text.as_bytes());
            proptest::prop_assert!(glob(text.as_bytes(), text.as_bytes()));
            let around = format!("*{text}*");
            proptest::prop_assert!(glob(around.as_bytes(), text.as_bytes()));
        }
    }
}
