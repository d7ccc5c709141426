//! Image references, normalised as Docker does and every Kubernetes user expects: `nginx` means
//! `docker.io/library/nginx:latest`.
//!
//! A reference names a registry, a repository and a tag, a digest or both. Where both are given the
//! digest decides and the tag is dropped (cri.md 1.4).

use std::fmt;

use super::digest::{Digest, clip};

/// The registry that a name without one means.
pub(crate) const DOCKER_IO: &str = "docker.io";
/// Longest `registry/repository`, as in the distribution project.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// What of the repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Tag(String),
    Digest(Digest),
}

/// A normalised reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    registry: String,
    repository: String,
    target: Target,
}

impl Reference {
    /// Parses and normalises what a client wrote.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |why| InvalidReference { text: clip(text).to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| invalid("the digest is neither sha256 nor sha512"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(invalid("the tag is not valid"));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(registry) {
            return Err(invalid("the registry's name is not valid"));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("the repository's name must be lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(invalid("the repository's name is not valid"));
        }
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("64 hexadecimal digits name an image id, not a repository"));
        }
        let official = registry == DOCKER_IO && !repository.contains('/');
        let repository =
            if official { format!("library/{repository}") } else { repository.to_owned() };
        // As it is when it is whole, so that what is written down is a reference again.
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid("the name is longer than 255 characters"));
        }
        let target = match (digest, tag) {
            (Some(digest), _) => Target::Digest(digest),
            (None, tag) => Target::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, target })
    }

    /// The registry, as `host` or `host:port`.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag or digest.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// `registry/repository@digest`.
    pub(crate) fn at(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tag(tag) => write!(f, "{}/{}:{tag}", self.registry, self.repository),
            Target::Digest(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
        }
    }
}

/// Text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {why}")]
pub(crate) struct InvalidReference {
    text: String,
    why: &'static str,
}

/// The first component is a registry only if it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_IO, name),
    };
    if registry == "index.docker.io" { (DOCKER_IO, repository) } else { (registry, repository) }
}

fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next();
    tag.len() <= MAX_TAG
        && first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `host`, `host:port`, or an IPv6 address in brackets with or without a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if let Some(port) = port
        && (port.is_empty() || port.parse::<u16>().is_err() || port.starts_with('+'))
    {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Letters and digits, separated by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    word(first)
        && word(last)
        && bytes.split(|b| word(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

/// How a client may name an image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// A whole id, `sha256:<hex>` or the hex alone.
    Id(Digest),
    /// A reference, and, where the text could be one, the beginning of an id.
    Name { reference: Option<Reference>, prefix: Option<String> },
}

/// Shortest beginning of an id that is looked up, so that a short name does not match by chance.
const MIN_PREFIX: usize = 4;

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(id) = Digest::parse(text).or_else(|| Digest::parse(&format!("sha256:{text}"))) {
            return Self::Id(id);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let prefix = (is_hex && (MIN_PREFIX..64).contains(&hex.len())).then(|| hex.to_owned());
        Self::Name { reference: Reference::parse(text).ok(), prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker_does() {
        let digest = format!("busybox:1.36@sha256:{HEX}");
        let full_digest = format!("docker.io/library/busybox@sha256:{HEX}");
        for (text, want) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("bitnami/nginx", "docker.io/bitnami/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b:v1", "docker.io/a/b:v1"),
            ("localhost/nginx", "localhost/nginx:latest"),
            ("localhost:5000/nginx", "localhost:5000/nginx:latest"),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[fd00::1]/a", "[fd00::1]/a:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("Registry/a", "Registry/a:latest"),
            ("a.b/c", "a.b/c:latest"),
            ("a__b/c-d---e.f_g", "docker.io/a__b/c-d---e.f_g:latest"),
            ("x:_tag.With-All_", "docker.io/library/x:_tag.With-All_"),
            (&digest, &full_digest),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_no_registry_could_hold() {
        let long = format!("a/{}", "b".repeat(260));
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "a:",
            "a:b:c",
            "A",
            "a/B",
            "a..b/c",
            "-a/b",
            "a-/b",
            "a___b",
            "a._b",
            "a@",
            "a@sha256:12",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a.b:70000/c",
            "a.b:/c",
            "[::g]/a",
            "a b",
            "a\nb",
            "../etc/passwd",
            "localhost:5000/../x",
            "https://a.b/c",
            HEX,
            &long,
            &tag,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_tells_ids_names_and_prefixes_apart() {
        let id = Digest::parse(&format!("sha256:{HEX}")).unwrap();
        assert_eq!(Query::parse(HEX), Query::Id(id.clone()));
        assert_eq!(Query::parse(id.as_str()), Query::Id(id));
        let Query::Name { reference, prefix } = Query::parse("deadbeef") else { panic!() };
        assert_eq!(reference.unwrap().repository(), "library/deadbeef");
        assert_eq!(prefix.as_deref(), Some("deadbeef"));
        let Query::Name { prefix, .. } = Query::parse("sha256:deadbeef") else { panic!() };
        assert_eq!(prefix.as_deref(), Some("deadbeef"));
        let Query::Name { prefix, .. } = Query::parse("nginx:1") else { panic!() };
        assert_eq!(prefix, None);
        assert_eq!(Query::parse(""), Query::Name { reference: None, prefix: None });
    }
}
