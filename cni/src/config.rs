//! One network: a named chain of plugin configurations.
//!
//! Only the fields that the runtime itself needs are looked at. Everything else stays the text that it
//! was, and reaches the plugin so.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use crate::attachment::is_valid_name;
use crate::error::{Error, Result};
use crate::version::SpecVersion;

/// A JSON object whose values are kept as they were written.
pub(crate) type Fields = BTreeMap<String, Box<RawValue>>;

/// One plugin of a chain.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub(crate) kind: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) fields: Fields,
}

impl Plugin {
    /// The `type`: the file name of its executable.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The capabilities that its configuration declares.
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    fn parse(fields: Fields) -> Result<Self> {
        let kind: String = field(&fields, "type")?.unwrap_or_default();
        check_plugin_type(&kind)?;
        let declared: BTreeMap<String, bool> = field(&fields, "capabilities")?.unwrap_or_default();
        let capabilities =
            declared.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        Ok(Self { kind, capabilities, fields })
    }
}

/// A network as the node's configuration describes it.
#[derive(Debug, Clone)]
pub struct Network {
    name: String,
    cni_version: String,
    version: SpecVersion,
    disable_check: bool,
    disable_gc: bool,
    plugins: Vec<Plugin>,
    bytes: Vec<u8>,
}

impl Network {
    /// Parses a list of plugins (a `.conflist`). What [`Network::bytes`] gave is parsed by this again.
    pub fn parse(list: &[u8]) -> Result<Self> {
        Self::parse_with(list, |_| Ok(Vec::new()))
    }

    /// Parses the configuration of a single plugin (a `.conf`) as a list of one.
    pub fn parse_single(conf: &[u8]) -> Result<Self> {
        let fields: Fields = object(conf)?;
        if !fields.contains_key("type") && fields.contains_key("plugins") {
            return Err(Error::invalid("a list of plugins; its file name has to end in .conflist"));
        }
        let mut list = Fields::new();
        for key in ["name", "cniVersion"] {
            if let Some(value) = fields.get(key) {
                list.insert(key.to_owned(), value.clone());
            }
        }
        list.insert("plugins".to_owned(), raw(&[fields])?);
        Self::parse(raw(&list)?.get().as_bytes())
    }

    /// Parses a list whose plugins may lie in files of their own (CNI 1.1): `more` gets the network's name
    /// and gives their contents.
    pub(crate) fn parse_with(
        list: &[u8],
        more: impl FnOnce(&str) -> Result<Vec<Vec<u8>>>,
    ) -> Result<Self> {
        let fields: Fields = object(list)?;
        let name: String = field(&fields, "name")?.unwrap_or_default();
        if !is_valid_name(&name) {
            return Err(Error::invalid(format!("{name:?} is not a name for a network")));
        }
        let (cni_version, version) = choose_version(&fields)?;
        let only_inlined = flag(&fields, "loadOnlyInlinedPlugins")?;
        let inlined: Option<Vec<Fields>> = field(&fields, "plugins")?;
        if inlined.as_ref().is_some_and(Vec::is_empty) || (only_inlined && inlined.is_none()) {
            return Err(Error::invalid("the list has no plugins"));
        }
        let mut confs = inlined.unwrap_or_default();
        let from_files = if only_inlined { Vec::new() } else { more(&name)? };
        let complete = from_files.is_empty();
        for conf in &from_files {
            confs.push(object(conf)?);
        }
        if confs.is_empty() {
            return Err(Error::invalid("the list has no plugins"));
        }
        let bytes = if complete { list.to_vec() } else { self_contained(&fields, &confs)? };
        Ok(Self {
            disable_check: flag(&fields, "disableCheck")?,
            disable_gc: flag(&fields, "disableGC")?,
            plugins: confs.into_iter().map(Plugin::parse).collect::<Result<_>>()?,
            name,
            cni_version,
            version,
            bytes,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the specification that its plugins are spoken to in, as the configuration spells it.
    pub fn cni_version(&self) -> &str {
        &self.cni_version
    }

    /// The same, comparable.
    pub fn version(&self) -> SpecVersion {
        self.version
    }

    /// The chain, in the order of ADD.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// CHECK is not to be called.
    pub fn disable_check(&self) -> bool {
        self.disable_check
    }

    /// GC is not to be called.
    pub fn disable_gc(&self) -> bool {
        self.disable_gc
    }

    /// The list as JSON, complete in itself: plugins that lay in files of their own are part of it. This
    /// is what a caller records before ADD, since DEL has to use it even if the node's files have changed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Does any plugin declare this capability?
    pub fn has_capability(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.capabilities.iter().any(|c| c == name))
    }
}

/// A plugin's type is a file name, never a path: the configuration must not reach other executables.
pub(crate) fn check_plugin_type(kind: &str) -> Result<()> {
    match kind {
        "" => Err(Error::invalid("a plugin has no type")),
        "." | ".." => Err(Error::invalid(format!("{kind:?} is not the type of a plugin"))),
        _ if kind.contains(['/', '\0']) => {
            Err(Error::invalid(format!("the plugin type {kind:?} contains a slash")))
        }
        _ => Ok(()),
    }
}

/// The newest version that the list allows and we know; a lone `cniVersion` is taken at its word.
fn choose_version(fields: &Fields) -> Result<(String, SpecVersion)> {
    let single: Option<String> = field(fields, "cniVersion")?;
    let many: Vec<String> = field(fields, "cniVersions")?.unwrap_or_default();
    let mut best: Option<(String, SpecVersion)> = None;
    for text in many.iter().chain(&single) {
        let version = SpecVersion::parse(text)?;
        let known = version <= SpecVersion::V1_1 || many.is_empty();
        if known && best.as_ref().is_none_or(|(_, b)| *b < version) {
            best = Some((text.clone(), version));
        }
    }
    match best {
        Some((_, version)) if version < SpecVersion::OLDEST => {
            let oldest = SpecVersion::OLDEST;
            Err(Error::invalid(format!("cniVersion {version} is older than {oldest}")))
        }
        Some(best) => Ok(best),
        None if many.is_empty() => Err(Error::invalid("the configuration has no cniVersion")),
        None => Err(Error::invalid(format!("none of cniVersions {} is known", many.join(", ")))),
    }
}

fn self_contained(list: &Fields, plugins: &[Fields]) -> Result<Vec<u8>> {
    let mut list = list.clone();
    list.insert("plugins".to_owned(), raw(plugins)?);
    list.insert("loadOnlyInlinedPlugins".to_owned(), raw(&true)?);
    Ok(raw(&list)?.get().as_bytes().to_vec())
}

fn object(json: &[u8]) -> Result<Fields> {
    serde_json::from_slice(json).map_err(|e| Error::invalid(format!("not a JSON object: {e}")))
}

/// A value as JSON. Fails for none of the types we give it.
pub(crate) fn raw(value: &(impl serde::Serialize + ?Sized)) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(|e| Error::invalid(format!("cannot be written as JSON: {e}")))
}

fn field<T: DeserializeOwned>(fields: &Fields, key: &str) -> Result<Option<T>> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    serde_json::from_str(value.get()).map_err(|e| Error::invalid(format!("field {key:?}: {e}")))
}

/// A boolean, or its name as a string: libcni takes both.
fn flag(fields: &Fields, key: &str) -> Result<bool> {
    let value: Option<serde_json::Value> = field(fields, key)?;
    match &value {
        None => Ok(false),
        Some(serde_json::Value::Bool(on)) => Ok(*on),
        Some(serde_json::Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(serde_json::Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => {
            Err(Error::invalid(format!("field {key:?}: {other} is neither true nor false")))
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
