//! An image's configuration: what its author asks of the container that runs it.
//!
//! Every value is untrusted. Here each is bounded and freed of what no kernel interface can carry; nothing
//! here may become a path, an argument, a label or an annotation on the host's side.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::digest::{Digest, clip};
use super::error::Error;

/// Most layers that one image may have: the kernel's overlay takes 500 lower directories.
pub(super) const MAX_LAYERS: usize = 400;
/// Most entries of any one list or map.
const MAX_ENTRIES: usize = 8192;
/// Longest variable or argument: the kernel's MAX_ARG_STRLEN.
const MAX_STRING: usize = 128 << 10;
/// Longest path.
const MAX_PATH: usize = 4096;
/// Longest `user[:group]`.
const MAX_USER: usize = 512;

/// What a container inherits from its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    /// `KEY=value`, as the image has it.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Empty: `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid` …; empty: root.
    pub user: String,
    /// A signal's name or number, as the image has it.
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Paths inside the container.
    pub volumes: Vec<String>,
    /// `port/protocol`.
    pub exposed_ports: Vec<String>,
}

/// The user part of an image's `user`, as the kubelet needs it for runAsNonRoot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageUser {
    Uid(u32),
    /// A name to be looked up in the image, or a number that is no user id.
    Name(String),
}

impl ImageConfig {
    /// Who the image wants to run as; `None`: it does not say.
    pub(crate) fn image_user(&self) -> Option<ImageUser> {
        let user = self.user.split(':').next().unwrap_or_default();
        if user.is_empty() {
            return None;
        }
        // Digits only: a sign or a value beyond a signed 32-bit integer must never become uid 0.
        let number = user.bytes().all(|b| b.is_ascii_digit()).then(|| user.parse::<i32>().ok());
        Some(match number.flatten().and_then(|uid| u32::try_from(uid).ok()) {
            Some(uid) => ImageUser::Uid(uid),
            None => ImageUser::Name(user.to_owned()),
        })
    }

    fn check(&self) -> Result<(), Error> {
        for (what, list) in [
            ("Env", &self.env),
            ("Entrypoint", &self.entrypoint),
            ("Cmd", &self.cmd),
            ("ExposedPorts", &self.exposed_ports),
        ] {
            check_list(what, list, MAX_STRING)?;
        }
        check_list("Volumes", &self.volumes, MAX_PATH)?;
        check("WorkingDir", &self.working_dir, MAX_PATH)?;
        check("User", &self.user, MAX_USER)?;
        if self.user.contains(|c: char| c.is_control()) {
            return Err(Error::content("image config: User holds control characters"));
        }
        check("StopSignal", self.stop_signal.as_deref().unwrap_or_default(), MAX_USER)?;
        if self.labels.len() > MAX_ENTRIES {
            return Err(Error::content("image config: too many Labels"));
        }
        for (key, value) in &self.labels {
            check("Labels", key, MAX_STRING)?;
            check("Labels", value, MAX_STRING)?;
        }
        Ok(())
    }
}

fn check_list(what: &str, list: &[String], longest: usize) -> Result<(), Error> {
    if list.len() > MAX_ENTRIES {
        return Err(Error::content(format!("image config: too many entries in {what}")));
    }
    list.iter().try_for_each(|value| check(what, value, longest))
}

fn check(what: &str, value: &str, longest: usize) -> Result<(), Error> {
    if value.len() > longest {
        return Err(Error::content(format!(
            "image config: a value of {what} is longer than {longest} bytes"
        )));
    }
    if value.contains('\0') {
        return Err(Error::content(format!("image config: a value of {what} holds a NUL byte")));
    }
    Ok(())
}

/// All that is used of an image's config blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub config: ImageConfig,
    pub os: String,
    pub architecture: String,
    pub variant: String,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
}

/// Parses a config blob.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, Error> {
    let raw: Raw = object(bytes, "image config")?;
    if raw.rootfs.diff_ids.len() > MAX_LAYERS {
        return Err(Error::content(format!("image config: more than {MAX_LAYERS} layers")));
    }
    let inner = raw.config.unwrap_or_default();
    let config = ImageConfig {
        env: inner.env,
        entrypoint: inner.entrypoint,
        cmd: inner.cmd,
        working_dir: inner.working_dir,
        user: inner.user,
        stop_signal: Some(inner.stop_signal).filter(|signal| !signal.is_empty()),
        labels: inner.labels,
        volumes: inner.volumes.into_keys().collect(),
        exposed_ports: inner.exposed_ports.into_keys().collect(),
    };
    config.check()?;
    Ok(Parsed {
        config,
        os: raw.os,
        architecture: raw.architecture,
        variant: raw.variant,
        diff_ids: raw.rootfs.diff_ids,
    })
}

/// Docker and OCI write the same fields; either may write `null` for an empty one.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    config: Option<RawConfig>,
    #[serde(default)]
    rootfs: RawRootfs,
    #[serde(default, deserialize_with = "null")]
    os: String,
    #[serde(default, deserialize_with = "null")]
    architecture: String,
    #[serde(default, deserialize_with = "null")]
    variant: String,
}

#[derive(Deserialize, Default)]
struct RawRootfs {
    #[serde(default, deserialize_with = "null")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default, deserialize_with = "null")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "null")]
    working_dir: String,
    #[serde(default, deserialize_with = "null")]
    user: String,
    #[serde(default, deserialize_with = "null")]
    stop_signal: String,
    #[serde(default, deserialize_with = "null")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "null")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
}

/// Parses a JSON object. serde would take an array of the fields' values for a struct, too.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, Error> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::content(format!("{what}: not a JSON object")));
    }
    serde_json::from_slice(bytes)
        .map_err(|err| Error::content(format!("{what}: {}", clip(&err.to_string()))))
}

/// `null` means empty.
pub(super) fn null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_user_is_a_uid_or_a_name() {
        let name = |n: &str| Some(ImageUser::Name(n.into()));
        for (user, want) in [
            ("", None),
            (":0", None),
            ("0", Some(ImageUser::Uid(0))),
            ("1000", Some(ImageUser::Uid(1000))),
            ("1000:1000", Some(ImageUser::Uid(1000))),
            ("1000:staff", Some(ImageUser::Uid(1000))),
            ("007", Some(ImageUser::Uid(7))),
            ("nobody", name("nobody")),
            ("www-data:www-data", name("www-data")),
            ("2147483647", Some(ImageUser::Uid(2_147_483_647))),
            ("2147483648", name("2147483648")),
            ("4294967295", name("4294967295")),
            ("4294967296", name("4294967296")),
            ("18446744073709551616", name("18446744073709551616")),
            ("-1", name("-1")),
            ("+0", name("+0")),
            ("0x0", name("0x0")),
            (" 0", name(" 0")),
            ("１", name("１")),
        ] {
            let config = ImageConfig { user: user.into(), ..ImageConfig::default() };
            assert_eq!(config.image_user(), want, "{user:?}");
        }
    }

    #[test]
    fn null_and_absent_fields_are_empty() {
        let bytes = br#"{"os":"linux","architecture":"amd64","config":{"Env":null,"Cmd":["sh"],
            "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"Labels":null,"Unknown":1},
            "rootfs":{"type":"layers","diff_ids":null},"history":[{}]}"#;
        let parsed = parse(bytes).unwrap();
        assert_eq!(parsed.config.cmd, ["sh"]);
        assert_eq!(parsed.config.volumes, ["/data"]);
        assert_eq!(parsed.config.exposed_ports, ["80/tcp"]);
        assert!(parsed.diff_ids.is_empty() && parsed.config.stop_signal.is_none());
        assert_eq!(parse(br#"{"config":null}"#).unwrap().config, ImageConfig::default());
    }

    #[test]
    fn values_that_no_process_could_have_are_refused() {
        for (config, word) in [
            (r#"{"User":"a\nroot:x:0:0"}"#.to_owned(), "control"),
            (r#"{"Env":["A=\u0000"]}"#.to_owned(), "NUL"),
            (format!(r#"{{"WorkingDir":"/{}"}}"#, "a".repeat(5000)), "WorkingDir"),
            (format!(r#"{{"Cmd":["{}"]}}"#, "a".repeat(MAX_STRING + 1)), "Cmd"),
            (format!(r#"{{"Entrypoint":[{}""]}}"#, r#""","#.repeat(MAX_ENTRIES)), "Entrypoint"),
        ] {
            let err = parse(format!(r#"{{"config":{config}}}"#).as_bytes()).unwrap_err();
            assert!(err.to_string().contains(word), "{err}");
        }
        assert!(parse(b"[]").is_err() && parse(b"").is_err());
    }
}
