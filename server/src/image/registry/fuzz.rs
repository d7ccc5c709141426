//! What registries answer and operators write, as targets of `crate::fuzz`.

use std::path::Path;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

use super::challenge::{self, Challenge};
use super::credentials::Login;
use super::docker_config::{DockerConfig, Source};
use super::hosts::file;
use super::{AuthFields, Credentials};

/// `WWW-Authenticate`, a header a line.
pub(crate) fn challenge(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    if let Some(Challenge::Bearer { realm, service, scope }) = challenge::parse(&headers) {
        assert!(!realm.is_empty());
        let empty = |text: &Option<String>| text.as_deref() == Some("");
        assert!(!empty(&service) && !empty(&scope));
    }
}

/// A hosts.toml.
pub(crate) fn hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let at = Path::new("/certs.d/registry.example/hosts.toml");
    match file::parse(text, at, "registry.example") {
        Ok(endpoints) => {
            assert!(!endpoints.is_empty(), "the registry itself is the last resort");
            assert_eq!(endpoints.iter().filter(|endpoint| endpoint.is_server).count(), 1);
        }
        Err(mistakes) => {
            let place = at.display().to_string();
            assert!(mistakes.starts_with(&place), "{mistakes}");
        }
    }
}

/// A Docker config.json, asked for a login to some places; and the same bytes as fields of CRI's AuthConfig.
pub(crate) fn docker_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = DockerConfig::parse(data, Path::new("/config.json")) {
        for host in ["docker.io", "registry.example", "registry.example:5000", "a.b.c"] {
            for repository in [None, Some("team/image")] {
                let sources = config.sources(host, repository);
                assert!(sources.len() <= 3, "a helper for it, a helper for all, the file");
                let here = |source: &&Source| matches!(source, Source::Here { .. });
                assert!(sources.iter().filter(here).count() <= 1);
            }
        }
    }
    let fields: Vec<&str> = text.split('\n').collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or_default();
    let auth = AuthFields {
        username: field(0),
        password: field(1),
        auth: field(2),
        server_address: field(3),
        identity_token: field(4),
        registry_token: field(5),
    };
    if let Ok(credentials) = Credentials::from_auth(&auth) {
        let shown = credentials.login_for("registry.example", "mirror.example", false);
        let named = field(3).to_ascii_lowercase().contains("mirror.example") || field(3).is_empty();
        assert!(named || *shown == Login::Anonymous, "a mirror sees no login of another server");
    }
}
