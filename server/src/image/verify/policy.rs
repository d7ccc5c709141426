//! The policy file: `policy.json` as the containers project's tools read it (containers-policy.json(5)).
//!
//! The requirements of the most specific scope that fits an image hold, all of them. The file is read anew at each
//! question. A key that is not known, or given twice, is an error: what an operator wrote and we do not read might
//! have been what protects the node.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::reference::Reference;
use super::identity::name;
use super::requirement::{Raw, Requirement};

/// Largest policy.
const MAX_FILE: u64 = 4 << 20;
/// The transport whose scopes are registries.
const TRANSPORT: &str = "docker";

/// A policy, checked.
#[derive(Debug)]
pub(super) struct Policy {
    default: Vec<Requirement>,
    /// By scope; the empty one is for all that no other fits.
    docker: BTreeMap<String, Vec<Requirement>>,
}

/// What a policy says of one image.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// As messages call it.
    pub(super) scope: String,
    pub(super) requirements: &'a [Requirement],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Raw>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Raw>>>,
}

impl Policy {
    /// Reads a policy. Blocks on a small file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let told = |why: String| format!("policy {}: {why}", path.display());
        let bytes = super::read_capped(path, MAX_FILE).map_err(told)?;
        Self::parse(&bytes).map_err(told)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|err| err.to_string())?;
        let default = checked("default", file.default)?;
        let mut docker = BTreeMap::new();
        for (transport, scopes) in file.transports.0 {
            for (scope, raw) in scopes.0 {
                let requirements = checked(&format!("transports.{transport}[{scope:?}]"), raw)?;
                // The others are for images that lie elsewhere than in a registry.
                if transport == TRANSPORT {
                    docker.insert(scope, requirements);
                }
            }
        }
        Ok(Self { default, docker })
    }

    /// What holds for an image.
    pub(super) fn rules(&self, reference: &Reference) -> Rules<'_> {
        let found = scopes(reference)
            .into_iter()
            .find_map(|scope| self.docker.get_key_value(scope.as_str()));
        match found {
            Some((scope, requirements)) => {
                Rules { scope: format!("{TRANSPORT} {scope:?}"), requirements }
            }
            None => Rules { scope: "default".into(), requirements: &self.default },
        }
    }
}

fn checked(place: &str, raw: Vec<Raw>) -> Result<Vec<Requirement>, String> {
    if raw.is_empty() {
        return Err(format!("{place}: an empty list allows nothing; say reject if that is meant"));
    }
    let one = |(at, raw): (usize, Raw)| raw.check().map_err(|why| format!("{place}[{at}]: {why}"));
    raw.into_iter().enumerate().map(one).collect()
}

/// Every scope that fits an image, the most specific first: itself, its repository, what that lies in, the host,
/// the host's domains, everything.
fn scopes(reference: &Reference) -> Vec<String> {
    let repository = name(reference);
    let mut all = vec![reference.to_string(), repository.clone()];
    let mut rest = repository.as_str();
    while let Some((above, _)) = rest.rsplit_once('/') {
        all.push(above.to_owned());
        rest = above;
    }
    // Wildcards are for names alone, without a port.
    let mut host = reference.registry().split(':').next().unwrap_or_default();
    while let Some((_, domain)) = host.split_once('.') {
        all.push(format!("*.{domain}"));
        host = domain;
    }
    all.push(String::new());
    all
}

/// A JSON object whose keys are given once each.
#[derive(Debug)]
struct Unique<T>(BTreeMap<String, T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
                let mut all = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if all.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate key {key:?}")));
                    }
                    all.insert(key, map.next_value()?);
                }
                Ok(Unique(all))
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(policy: &str, reference: &str) -> String {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        policy.rules(&Reference::parse(reference).unwrap()).scope
    }

    #[test]
    fn the_most_specific_scope_holds() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let any = r#"[{"type":"insecureAcceptAnything"}]"#;
        let keys = [
            "r.io:5000",
            "r.io:5000/a",
            "r.io:5000/a/b",
            "r.io:5000/a/b:1",
            "*.example.com",
            "*.com",
            "docker.io/library/busybox",
            "x.example.com",
            &format!("r.io:5000/a/b@sha256:{hex}"),
        ];
        let scopes: Vec<String> = keys.iter().map(|key| format!("{key:?}: {any}")).collect();
        let policy = format!(
            r#"{{"default": [{{"type":"reject"}}], "transports": {{"docker": {{{}}}, "dir": {{"": {any}}}}}}}"#,
            scopes.join(", ")
        );
        for (reference, want) in [
            ("r.io:5000/c:1", "r.io:5000"),
            ("r.io:5000/a/c:1", "r.io:5000/a"),
            ("r.io:5000/ab:1", "r.io:5000"),
            ("r.io:5000/a/b:2", "r.io:5000/a/b"),
            ("r.io:5000/a/b:1", "r.io:5000/a/b:1"),
            (&format!("r.io:5000/a/b@sha256:{hex}"), keys[8]),
            ("a.example.com/x", "*.example.com"),
            ("a.b.example.com:8443/x", "*.example.com"),
            ("example.com/x", "*.com"),
            ("x.example.com/x", "x.example.com"),
            ("busybox", "docker.io/library/busybox"),
        ] {
            assert_eq!(scope(&policy, reference), format!("docker {want:?}"), "{reference}");
        }
        assert_eq!(scope(&policy, "nginx"), "default");
        let all = r#"{"default": [{"type":"reject"}], "transports": {"docker": {"": [{"type":"reject"}]}}}"#;
        assert_eq!(scope(all, "nginx"), "docker \"\"");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let sigstore =
            |more: &str| format!(r#"{{"default": [{{"type":"sigstoreSigned"{more}}}]}}"#);
        let fulcio =
            |of: &str| sigstore(&format!(r#","rekorPublicKeyPath":"/r","fulcio":{{{of}}}"#));
        for (text, told) in [
            ("{}".to_owned(), "missing field `default`"),
            (r#"{"default": []}"#.into(), "default: an empty list"),
            ("{\"default\": [{\"type\":\"reject\"}],\n\"defualt\": 1}".into(), "`defualt`, expected `default` or `transports` at line 2"),
            ("{\"default\": [{\"type\":\"reject\",\n\"keyPaht\": \"/x\"}]}".into(), "unknown field `keyPaht`"),
            (r#"{"default": [{"type":"accept"}]}"#.into(), "default[0]: type: \"accept\" is none of"),
            (r#"{"default": [{"type":"reject","keyPath":"/x"}]}"#.into(), "default[0]: keyPath does not go with reject"),
            (
                r#"{"default": [{"type":"reject"}], "transports": {"docker": {"a": [{"type":"reject"}],
                "a": [{"type":"insecureAcceptAnything"}]}}}"#.into(),
                "duplicate key \"a\" at line 2",
            ),
            (
                r#"{"default": [{"type":"reject"}], "transports": {"docker": {"r.io": []}}}"#.into(),
                "transports.docker[\"r.io\"]: an empty list",
            ),
            (sigstore(""), "needs keyPath, keyPaths, keyData, keyDatas, fulcio or pki"),
            (sigstore(r#","keyPath":"/a","keyData":"YQ==""#), "only one of keyPath, keyData"),
            (sigstore(r#","keyPath":"cosign.pub""#), "keyPath: \"cosign.pub\" is no absolute path"),
            (sigstore(r#","keyPaths":[]"#), "keyPaths: is empty"),
            (sigstore(r#","keyData":"%""#), "keyData: not base64"),
            (sigstore(r#","keyPath":"/a","signedIdentity":{"type":"matchAll"}"#), "signedIdentity: type: \"matchAll\" is none of"),
            (sigstore(r#","keyPath":"/a","signedIdentity":{"type":"exactReference"}"#), "signedIdentity: needs dockerReference"),
            (
                sigstore(r#","keyPath":"/a","signedIdentity":{"type":"exactReference","dockerReference":"r.io/a"}"#),
                "neither a tag nor a digest",
            ),
            (
                sigstore(r#","keyPath":"/a","signedIdentity":{"type":"matchExact","prefix":"r.io"}"#),
                "signedIdentity: prefix does not go with matchExact",
            ),
            (sigstore(r#","keyPath":"/a","fulcio":{"caPath":"/b"}"#), "only one of"),
            (sigstore(r#","fulcio":{"caPath":"/b"}"#), "fulcio needs a rekorPublicKey"),
            (fulcio(r#""oidcIssuer":"i","subjectEmail":"e""#), "fulcio: needs caPath or caData"),
            (fulcio(r#""caPath":"/b","caData":"YQ==""#), "fulcio: only one of caPath, caData"),
            (fulcio(r#""caPath":"/b","subjectEmail":"e""#), "fulcio: needs oidcIssuer"),
            (fulcio(r#""caPath":"/b","oidcIssuer":"i","subjectEmail":"""#), "fulcio: needs subjectEmail"),
            (sigstore(r#","pki":{"subjectEmail":"e"}"#), "pki: needs caRootsPath or caRootsData"),
            (sigstore(r#","pki":{"caRootsPath":"/c"}"#), "pki: needs subjectEmail or subjectHostname"),
            (
                sigstore(r#","pki":{"caRootsPath":"/c","subjectEmail":"e"},"rekorPublicKeyPath":"/r""#),
                "rekorPublicKeyPath does not go with pki",
            ),
        ] {
            let err = Policy::parse(text.as_bytes()).unwrap_err();
            assert!(err.contains(told), "{text}: {err}");
        }
    }

    #[test]
    fn every_kind_of_requirement_is_read() {
        let text = r#"{"default": [
            {"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{"type":"matchExact"}},
            {"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchRepository"}},
            {"type":"sigstoreSigned","keyDatas":["YQ=="],"rekorPublicKeyPath":"/r",
             "signedIdentity":{"type":"remapIdentity","prefix":"m.io","signedPrefix":"r.io"}},
            {"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"https://i","subjectEmail":"a@b"},
             "rekorPublicKeyData":"YQ=="},
            {"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectHostname":"h"}}
        ]}"#;
        let policy = Policy::parse(text.as_bytes()).unwrap();
        assert_eq!(policy.default.len(), 5);
    }
}
