//! The engines of the packet filter: a node's `iptables` is built on one of them, and another day on the other.
//!
//! Neither sees what the other has written. So an attachment records who wrote its rules, before the first of them
//! is written, and that one is asked for all that becomes of the attachment: by what is done in-process, and by the
//! plugins' executables, which find it under the name of the node's `iptables`. Where it is not recorded, DEL is the
//! node's present engine's, or that of the chains that are named after the attachment, and what is known of the
//! plugins' rules is taken away from every engine that has tables.

use serde::{Deserialize, Serialize};

use crate::native;

/// Where rules are kept, and by which programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `iptables-nft`.
    NfTables,
    /// `iptables-legacy`, and all there was before the other.
    Legacy,
}

impl Engine {
    pub(crate) const ALL: [Engine; 2] = [Engine::NfTables, Engine::Legacy];

    /// As the names of its programs have it.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Engine::NfTables => "nft",
            Engine::Legacy => "legacy",
        }
    }
}

/// The engine of each family; none where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Engines {
    /// Of `iptables`.
    pub v4: Option<Engine>,
    /// Of `ip6tables`.
    pub v6: Option<Engine>,
}

impl Engines {
    /// Those of the node, as plugins would find them now.
    pub fn of_node() -> Self {
        native::engines()
    }
}
