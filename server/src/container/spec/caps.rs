//! Capabilities: which a container gets.

use std::collections::HashSet;
use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use super::super::config::Security;
use crate::error::{Error, Result};

/// By number, as linux/capability.h has them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it drops it: the set that images have been written against for ten years.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Stands for every capability.
const ALL: &str = "ALL";

/// What a container gets, bit n for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    /// Bounding, permitted and effective.
    pub bounding: u64,
    /// Ambient and inheritable, a part of the former. Nothing else is ever inheritable: it would outlive an
    /// exec by an unprivileged user.
    pub ambient: u64,
}

impl Sets {
    /// "ALL" first, then single names, drops last; never more than `ours`.
    ///
    /// # Errors
    /// `Invalid` for a name that is no capability.
    pub(crate) fn of(security: &Security, ours: u64) -> Result<Self> {
        if security.privileged {
            return Ok(Self { bounding: ours, ambient: 0 });
        }
        let add = mask("add_capabilities", &security.add_capabilities)?;
        let drop = mask("drop_capabilities", &security.drop_capabilities)?;
        let ambient = mask("add_ambient_capabilities", &security.add_ambient_capabilities)?;
        let base = if drop.all {
            0
        } else if add.all {
            ours
        } else {
            DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit)
        };
        let ambient = if ambient.all { ours } else { ambient.named & !drop.named & ours };
        let bounding = ((base | add.named) & !drop.named & ours) | ambient;
        Ok(Self { bounding, ambient })
    }

    /// As the OCI spec writes them.
    pub(crate) fn to_oci(self) -> LinuxCapabilities {
        let bounding = names(self.bounding);
        let ambient = names(self.ambient);
        let mut caps = LinuxCapabilities::default();
        caps.set_bounding(Some(bounding.clone()))
            .set_effective(Some(bounding.clone()))
            .set_permitted(Some(bounding))
            .set_inheritable(Some(ambient.clone()))
            .set_ambient(Some(ambient));
        caps
    }
}

struct Mask {
    all: bool,
    named: u64,
}

fn mask(field: &str, list: &[String]) -> Result<Mask> {
    let mut mask = Mask { all: false, named: 0 };
    for (i, name) in list.iter().enumerate() {
        if name.eq_ignore_ascii_case(ALL) {
            mask.all = true;
        } else if let Some(bit) = bit(name) {
            mask.named |= bit;
        } else {
            return Err(Error::invalid(
                format!("linux.security_context.capabilities.{field}[{i}]"),
                format!("{name:?} is no capability"),
            ));
        }
    }
    Ok(mask)
}

/// Accepts any case, with or without `CAP_`.
fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// Whether a CRI capability list may hold `name`.
pub(crate) fn is_known(name: &str) -> bool {
    name.eq_ignore_ascii_case(ALL) || bit(name).is_some()
}

/// Whether `mask` holds the capability of that name.
pub(crate) fn has(mask: u64, name: &str) -> bool {
    bit(name).is_some_and(|bit| mask & bit != 0)
}

fn names(mask: u64) -> HashSet<Capability> {
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| mask & (1 << number) != 0)
        .filter_map(|(_, name)| Capability::from_str(name).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u64 = (1 << 41) - 1;

    fn sets(add: &[&str], drop: &[&str], ambient: &[&str], ours: u64) -> Sets {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let security = Security {
            add_capabilities: own(add),
            drop_capabilities: own(drop),
            add_ambient_capabilities: own(ambient),
            ..Security::default()
        };
        Sets::of(&security, ours).unwrap()
    }

    fn bits(list: &[&str]) -> u64 {
        list.iter().map(|name| bit(name).unwrap()).fold(0, |all, bit| all | bit)
    }

    #[test]
    fn every_name_is_one_of_the_oci_spec() {
        assert_eq!(names(OURS).len(), NAMES.len());
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("cap_sys_admin"), Some(1 << 21));
    }

    #[test]
    fn adds_and_drops() {
        let default = bits(&DEFAULT);
        for (add, drop, expected) in [
            (&[][..], &[][..], default),
            (&["SYS_ADMIN"], &[], default | 1 << 21),
            (&["CAP_SYS_ADMIN"], &["KILL"], (default | 1 << 21) & !(1 << 5)),
            (&["ALL"], &[], OURS),
            (&["all"], &["CHOWN"], OURS & !1),
            (&[], &["ALL"], 0),
            (&["NET_BIND_SERVICE"], &["ALL"], 1 << 10),
            (&["ALL"], &["ALL"], 0),
            (&["CHOWN"], &["CHOWN"], default & !1),
        ] {
            assert_eq!(
                sets(add, drop, &[], OURS),
                Sets { bounding: expected, ambient: 0 },
                "{add:?} {drop:?}"
            );
        }
    }

    #[test]
    fn never_more_than_ours_and_nothing_inheritable_unless_ambient() {
        let without_resource = OURS & !(1 << 24);
        assert_eq!(sets(&["ALL"], &[], &[], without_resource).bounding, without_resource);
        assert_eq!(sets(&["SYS_RESOURCE"], &[], &["SYS_RESOURCE"], without_resource).ambient, 0);
        let sets = sets(&[], &["ALL"], &["NET_ADMIN"], OURS);
        assert_eq!(sets, Sets { bounding: 1 << 12, ambient: 1 << 12 });
        let plain = Sets::of(&Security::default(), OURS).unwrap().to_oci();
        assert!(plain.inheritable().as_ref().unwrap().is_empty());
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_place() {
        let security = Security {
            drop_capabilities: vec!["KILL".into(), "EVERYTHING".into()],
            ..Security::default()
        };
        let err = Sets::of(&security, OURS).unwrap_err().to_string();
        assert_eq!(
            err,
            "linux.security_context.capabilities.drop_capabilities[1]: \"EVERYTHING\" is no capability"
        );
    }
}
