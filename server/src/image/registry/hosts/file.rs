//! Reads one hosts.toml. Every mistake is told, each with its line and key; what containerd would not know is
//! logged and passed over, as it does.

use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ClientFiles, DIAL_TIMEOUT, Endpoint, Given, duration, endpoint, server};

/// Where a key is written.
type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    mistakes: Vec<String>,
}

/// The endpoints of a file, or its mistakes, one a line.
pub(in super::super) fn parse(
    text: &str,
    file: &Path,
    registry: &str,
) -> Result<Vec<Endpoint>, String> {
    let mut reader = Reader { text, file, mistakes: Vec::new() };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(err) => {
            let at = err.span().map_or(0, |span| span.start);
            return Err(format!("{}: {}", reader.place(at), err.message()));
        }
    };
    let endpoints = reader.endpoints(table.get_ref(), registry);
    if reader.mistakes.is_empty() { Ok(endpoints) } else { Err(reader.mistakes.join("\n")) }
}

impl Reader<'_> {
    fn place(&self, at: usize) -> String {
        let line = self.text[..at.min(self.text.len())].matches('\n').count() + 1;
        format!("{}:{line}", self.file.display())
    }

    fn wrong(&mut self, key: &Key<'_>, reason: &str) {
        let place = self.place(key.span().start);
        self.mistakes.push(format!("{place}: {}: {reason}", key.get_ref()));
    }

    fn endpoints(&mut self, root: &DeTable<'_>, registry: &str) -> Vec<Endpoint> {
        let mut hosts: Vec<(&Key<'_>, &DeTable<'_>)> = Vec::new();
        let mut named = None;
        for (key, value) in root {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("host", DeValue::Table(table)) => {
                    for (url, settings) in table {
                        match settings.get_ref() {
                            DeValue::Table(settings) => hosts.push((url, settings)),
                            _ => self.wrong(url, "needs a table"),
                        }
                    }
                }
                ("host", _) => self.wrong(key, "needs tables"),
                ("server", DeValue::String(url)) if url.is_empty() => {}
                ("server", DeValue::String(url)) => named = Some((key, url.to_string())),
                ("server", _) => self.wrong(key, "needs a URL as text"),
                _ => {}
            }
        }
        hosts.sort_by_key(|(url, _)| url.span().start);
        let mut endpoints = Vec::new();
        for (url, settings) in hosts {
            let given = self.settings(settings, false);
            endpoints.extend(self.endpoint(url, url.get_ref(), given));
        }
        let own = self.settings(root, true);
        match named {
            Some((key, url)) => {
                let last = self.endpoint(key, &url, own);
                endpoints.extend(last.map(|last| Endpoint { is_server: true, ..last }));
            }
            None => {
                let from = format!("{}: the registry itself", self.file.display());
                endpoints.push(server(registry, own, from));
            }
        }
        endpoints
    }

    fn endpoint(&mut self, key: &Key<'_>, url: &str, given: Given) -> Option<Endpoint> {
        let from = self.place(key.span().start);
        endpoint(url, given, from).map_err(|reason| self.wrong(key, &reason)).ok()
    }

    /// What one table says; `top`: the file's own, which holds more than settings.
    fn settings(&mut self, table: &DeTable<'_>, top: bool) -> Given {
        let mut given = Given::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "capabilities" => self.capabilities(&mut given, key, value),
                "ca" => given.tls.ca = self.paths(key, value),
                "client" => given.tls.client = self.client(key, value),
                "skip_verify" => given.tls.skip_verify = self.boolean(key, value),
                "override_path" => {
                    given.override_path = self.boolean(key, value).unwrap_or_default();
                }
                "header" => self.headers(&mut given, key, value),
                "dial_timeout" => match value.get_ref() {
                    DeValue::String(text) => match duration::parse(text) {
                        // Without a limit one dead address would hang every pull.
                        Some(time) if time.is_zero() => given.dial_timeout = DIAL_TIMEOUT,
                        Some(time) => given.dial_timeout = time,
                        None => {
                            let reason = format!("{text:?} is not a duration such as \"30s\"");
                            self.wrong(key, &reason);
                        }
                    },
                    _ => self.wrong(key, "needs a duration as text"),
                },
                "server" | "host" if top => {}
                other => {
                    let place = self.place(key.span().start);
                    tracing::warn!(%place, key = other, "unknown key in a registry's configuration");
                }
            }
        }
        given
    }

    fn capabilities(&mut self, given: &mut Given, key: &Key<'_>, value: &Value<'_>) {
        let Some(list) = self.texts(key, value).filter(|list| !list.is_empty()) else { return };
        (given.resolve, given.pull) = (false, false);
        for name in list {
            match name.to_lowercase().as_str() {
                "resolve" => given.resolve = true,
                "pull" => given.pull = true,
                "push" | "referrers" => {}
                _ => self.wrong(key, &format!("unknown capability {name:?}")),
            }
        }
    }

    fn headers(&mut self, given: &mut Given, key: &Key<'_>, value: &Value<'_>) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.wrong(key, "needs a table");
        };
        for (name, value) in table {
            let values = match value.get_ref() {
                DeValue::String(text) => vec![text.to_string()],
                _ => self.texts(name, value).unwrap_or_default(),
            };
            for text in values {
                match (name.get_ref().parse::<HeaderName>(), HeaderValue::from_str(&text)) {
                    (Ok(header), Ok(mut content)) => {
                        content.set_sensitive(true);
                        given.headers.0.push((header, content));
                    }
                    _ => self.wrong(name, "is not a header"),
                }
            }
        }
    }

    fn boolean(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            _ => {
                self.wrong(key, "needs true or false");
                None
            }
        }
    }

    /// A list of texts.
    fn texts(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<Vec<String>> {
        let list = value.get_ref().as_array().and_then(|list| {
            let texts = list.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        if list.is_none() {
            self.wrong(key, "needs a list of texts");
        }
        list
    }

    /// One path or several; relative ones are beside the file.
    fn paths(&mut self, key: &Key<'_>, value: &Value<'_>) -> Vec<PathBuf> {
        match value.get_ref() {
            DeValue::String(path) => vec![self.path(path)],
            _ => {
                let list = self.texts(key, value).unwrap_or_default();
                list.iter().map(|path| self.path(path)).collect()
            }
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// `"both.pem"`, or a list whose items are such or `["certificate.pem", "key.pem"]`.
    fn client(&mut self, key: &Key<'_>, value: &Value<'_>) -> Vec<ClientFiles> {
        let both =
            |reader: &Self, path: &str| ClientFiles { certificate: reader.path(path), key: None };
        let items = match value.get_ref() {
            DeValue::String(path) => return vec![both(self, path)],
            DeValue::Array(items) => items,
            _ => {
                self.wrong(key, "needs a path, or a list of paths or pairs of them");
                return Vec::new();
            }
        };
        let mut files = Vec::new();
        for item in items {
            if let Some(path) = item.get_ref().as_str() {
                files.push(both(self, path));
                continue;
            }
            match self.texts(key, item).as_deref() {
                Some([certificate, secret]) => files.push(ClientFiles {
                    certificate: self.path(certificate),
                    key: Some(self.path(secret)),
                }),
                Some(_) => self.wrong(key, "needs a certificate and a key in each pair"),
                None => {}
            }
        }
        files
    }
}
