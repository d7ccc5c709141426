//! The node's `iptables`: found where the plugins find it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Family;
use crate::plugin;

/// The programs of one family.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) iptables: PathBuf,
    pub(crate) save: PathBuf,
    pub(crate) restore: PathBuf,
    /// Are they of the kind that is built on nf_tables?
    pub(crate) is_nf_tables: bool,
}

/// What all programs of that kind are in truth.
const NF_TABLES: &str = "xtables-nft-multi";

pub(crate) fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The programs, if all three are one: then they write and read the same tables. There are two kinds of tables in
/// the kernel, and a node that mixes their programs is one where that cannot be told.
pub(crate) fn find(family: Family) -> Option<Tools> {
    let name = name(family);
    let iptables = on_path(name)?;
    let (save, restore) = (on_path(&format!("{name}-save"))?, on_path(&format!("{name}-restore"))?);
    let real = iptables.canonicalize().ok()?;
    let same = |path: &Path| path.canonicalize().is_ok_and(|path| path == real);
    let is_nf_tables = real.ends_with(NF_TABLES);
    (same(&save) && same(&restore)).then_some(Tools { iptables, save, restore, is_nf_tables })
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
