//! The node's `iptables`: found where the plugins find it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Family;
use crate::engine::Engine;
use crate::plugin;

/// The programs of one family.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) iptables: PathBuf,
    pub(crate) save: PathBuf,
    pub(crate) restore: PathBuf,
    /// None where they are something else in truth, a script for instance.
    pub(crate) engine: Option<Engine>,
}

pub(crate) fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The node's own.
pub(crate) fn find(family: Family) -> Option<Tools> {
    named(name(family))
}

/// Those of an engine, whichever the node's own are of.
pub(crate) fn of(family: Family, engine: Engine) -> Option<Tools> {
    let is = |tools: &Tools| tools.engine == Some(engine);
    let apart = || named(&format!("{}-{}", name(family), engine.suffix()));
    find(family).filter(is).or_else(|| apart().filter(is))
}

/// The programs, if all three are one: then they write and read the same tables. There are two kinds of tables in
/// the kernel, and a node that mixes their programs is one where that cannot be told.
fn named(name: &str) -> Option<Tools> {
    let iptables = on_path(name)?;
    let (save, restore) = (on_path(&format!("{name}-save"))?, on_path(&format!("{name}-restore"))?);
    let real = iptables.canonicalize().ok()?;
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| path == real);
    let engine = engine(&real);
    (same(&save) && same(&restore)).then_some(Tools { iptables, save, restore, engine })
}

/// By what all programs of an engine are in truth.
fn engine(real: &Path) -> Option<Engine> {
    match real.file_name()?.to_str()? {
        "xtables-nft-multi" => Some(Engine::NfTables),
        // The latter when there was no other.
        "xtables-legacy-multi" | "xtables-multi" => Some(Engine::Legacy),
        _ => None,
    }
}

/// The first executable of that name.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = plugin::path_variable();
    let found =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    found.into_iter().find(|file| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
