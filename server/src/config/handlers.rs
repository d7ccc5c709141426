//! What is particular to one runtime handler: `[handlers.<name>]`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{PosixRlimitType, Spec};
use serde_json::Value;

use super::settings::Settings;

/// Largest base spec that is read.
const MAX_BASE: u64 = 1 << 20;
/// No limit at all, as setrlimit(2) has it.
const UNLIMITED: u64 = u64::MAX;

/// Settings of a handler, whether it was found on PATH or is one of `[runtimes]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HandlerConfig {
    /// Patterns of a pod's annotations that the specs of its containers are to bear. OCI runtimes act on some.
    pub pod_annotations: Vec<String>,
    /// The same of a container's own.
    pub container_annotations: Vec<String>,
    /// An OCI spec for what the CRI has no word for.
    pub base_spec: Option<Value>,
    /// Of each process; what is not named is inherited.
    pub rlimits: Vec<Rlimit>,
    /// Privileged containers get the devices of any other.
    pub privileged_without_host_devices: bool,
}

/// Of a handler that the configuration does not name.
static PLAIN: HandlerConfig = HandlerConfig {
    pod_annotations: Vec::new(),
    container_annotations: Vec::new(),
    base_spec: None,
    rlimits: Vec::new(),
    privileged_without_host_devices: false,
};

impl super::Config {
    /// What is particular to the handler of that name.
    pub(crate) fn handler(&self, name: &str) -> &HandlerConfig {
        self.handlers.get(name).unwrap_or(&PLAIN)
    }
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub kind: PosixRlimitType,
    pub soft: u64,
    pub hard: u64,
}

/// Every handler that has settings.
pub(super) fn handlers(from: &mut Settings) -> BTreeMap<String, HandlerConfig> {
    from.tables_under("handlers")
        .into_iter()
        .map(|name| (name.clone(), handler(from, &name)))
        .collect()
}

fn handler(from: &mut Settings, name: &str) -> HandlerConfig {
    let key = |setting: &str| format!("handlers.{name}.{setting}");
    let limits = from.texts(&key("rlimits"));
    let base = from.optional_path(&key("base_spec"));
    HandlerConfig {
        pod_annotations: from.texts(&key("pod_annotations")),
        container_annotations: from.texts(&key("container_annotations")),
        base_spec: base.and_then(|path| match base_spec(&path) {
            Ok(spec) => Some(spec),
            Err(reason) => {
                from.mistake(&format!("{}: {}: {reason}", key("base_spec"), path.display()));
                None
            }
        }),
        rlimits: limits
            .iter()
            .filter_map(|text| {
                let limit = rlimit(text);
                if limit.is_none() {
                    let reason = "is no limit such as nofile=1024:4096 or core=unlimited";
                    from.mistake(&format!("{}: {text:?} {reason}", key("rlimits")));
                }
                limit
            })
            .collect(),
        privileged_without_host_devices: from
            .boolean(&key("privileged_without_host_devices"), false),
    }
}

fn base_spec(path: &Path) -> Result<Value, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    file.take(MAX_BASE + 1).read_to_end(&mut text).map_err(|err| err.to_string())?;
    if text.len() as u64 > MAX_BASE {
        return Err(format!("has more than {MAX_BASE} bytes"));
    }
    let base: Value = serde_json::from_slice(&text).map_err(|err| err.to_string())?;
    if !base.is_object() {
        return Err("is no OCI spec".into());
    }
    // What a spec must have and the CRI decides may be left out.
    let mut whole = base.clone();
    if let Some(Value::Object(process)) = whole.get_mut("process") {
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
        process.entry("cwd").or_insert_with(|| "/".into());
    }
    let version = whole["ociVersion"].is_null().then(|| "1.0.0".into());
    whole["ociVersion"] = version.unwrap_or_else(|| whole["ociVersion"].take());
    serde_json::from_value::<Spec>(whole).map_err(|err| err.to_string())?;
    Ok(base)
}

/// `<name>=<soft>[:<hard>]`.
fn rlimit(text: &str) -> Option<Rlimit> {
    let (name, values) = text.split_once('=')?;
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase()).parse().ok()?;
    let value = |text: &str| if text == "unlimited" { Some(UNLIMITED) } else { text.parse().ok() };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(values)?, value(values)?),
    };
    (soft <= hard).then_some(Rlimit { kind, soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_people_write_them() {
        use PosixRlimitType::{RlimitCore, RlimitNofile};
        let is = |kind, soft, hard| Some(Rlimit { kind, soft, hard });
        for (text, limit) in [
            ("nofile=1024:4096", is(RlimitNofile, 1024, 4096)),
            ("NOFILE=5", is(RlimitNofile, 5, 5)),
            ("core=0:unlimited", is(RlimitCore, 0, UNLIMITED)),
            ("core=unlimited", is(RlimitCore, UNLIMITED, UNLIMITED)),
            ("nofile=5:4", None),
            ("nofile=-1", None),
            ("nofile", None),
            ("files=3", None),
            ("nofile=1:2:3", None),
        ] {
            assert_eq!(rlimit(text), limit, "{text}");
        }
    }

    #[test]
    fn mistakes_name_the_handler() {
        let dir = tempfile::tempdir().unwrap();
        let (file, base) = (dir.path().join("config.toml"), dir.path().join("base.json"));
        std::fs::write(&base, r#"{"ociVersion": 7}"#).unwrap();
        let text = format!(
            "[handlers.kata]\nrlimits = ['nofile=x']\nbase_spec = '{}'\npod_annotation = []\n",
            base.display()
        );
        std::fs::write(&file, text).unwrap();
        let told = super::super::Config::load(&file, true).unwrap_err().to_string();
        for part in [
            "handlers.kata.rlimits: \"nofile=x\" is no limit",
            "base.json: ",
            "handlers.kata.pod_annotation: no such setting; did you mean handlers.kata.pod_annotations?",
        ] {
            assert!(told.contains(part), "{told}");
        }
        for wrong in ["", "[]", "7", r#"{"process": {"rlimits": [{"type": "RLIMIT_X"}]}}"#] {
            std::fs::write(&base, wrong).unwrap();
            let told = base_spec(&base);
            assert!(told.is_err(), "{wrong}");
        }
        std::fs::write(&base, r#"{"annotations": {"a": "b"}, "process": {}}"#).unwrap();
        let text = format!("handlers.\"x.y\".base_spec = '{}'\n", base.display());
        std::fs::write(&file, text).unwrap();
        let config = super::super::Config::load(&file, true).unwrap();
        assert_eq!(config.handlers["x.y"].base_spec.as_ref().unwrap()["annotations"]["a"], "b");
    }
}
