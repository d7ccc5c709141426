//! One of the engines as it can be reached: by netlink, by programs, or both.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::kernel::{self, Outcome};
use super::tools::{self, Tools};
use super::{Addition, Family, Problem, Removal, Table, restore};
use crate::deadline::Deadline;
use crate::engine::Engine;

/// As the kernel calls it.
const NF_TABLES: &str = "nf_tables";
/// What the calling thread's network has.
const NETWORK: &str = "/proc/thread-self/net";

#[derive(Debug)]
pub(crate) struct Way {
    /// None: whatever the node's `iptables` is.
    pub(crate) engine: Option<Engine>,
    pub(crate) tools: Option<Tools>,
    family: Family,
}

impl Way {
    /// The node's own.
    pub(crate) fn of_node(family: Family) -> Self {
        let tools = tools::find(family);
        Self { engine: tools.as_ref().and_then(|tools| tools.engine), tools, family }
    }

    /// That of an engine.
    pub(crate) fn of(family: Family, engine: Engine) -> Self {
        Self { engine: Some(engine), tools: tools::of(family, engine), family }
    }

    /// That of whoever is recorded, who may be the node's own.
    pub(crate) fn or_of(self, recorded: Option<Engine>) -> Self {
        match recorded {
            Some(engine) if self.engine != recorded => Self::of(self.family, engine),
            _ => self,
        }
    }

    pub(crate) fn add(&self, addition: &Addition, deadline: &Deadline) -> Result<(), Problem> {
        let tools = self.tools()?;
        if self.engine == Some(Engine::NfTables) && is_done("add", kernel::add(addition)) {
            return Ok(());
        }
        restore::add(tools, addition, deadline)
    }

    pub(crate) fn remove(&self, removal: &Removal, deadline: &Deadline) -> Result<(), Problem> {
        match self.engine {
            Some(Engine::NfTables) if self.by_kernel(removal) => Ok(()),
            Some(Engine::Legacy) if !has_legacy(removal.table, removal.family) => Ok(()),
            _ => restore::remove(self.tools()?, removal, deadline),
        }
    }

    /// Are any of these chains there?
    pub(crate) fn has_any(
        &self,
        table: Table,
        chains: &[String],
        deadline: &Deadline,
    ) -> Result<bool, Problem> {
        match self.engine {
            Some(Engine::NfTables) => kernel::has_any(table, self.family, chains)
                .map_err(|e| Problem::Unusable(format!("nf_tables: {e}"))),
            _ => restore::has_any(self.tools()?, table, chains, deadline),
        }
    }

    fn by_kernel(&self, removal: &Removal) -> bool {
        is_done("remove", kernel::remove(removal, self.tools.is_some()))
    }

    fn tools(&self) -> Result<&Tools, Problem> {
        let name = tools::name(self.family);
        let suffix = self.engine.map(|engine| format!("-{}", engine.suffix())).unwrap_or_default();
        let unusable = || Problem::Unusable(format!("{name}{suffix} is not usable"));
        self.tools.as_ref().ok_or_else(unusable)
    }
}

fn is_done(what: &str, outcome: io::Result<Outcome>) -> bool {
    match outcome {
        Ok(outcome) => outcome == Outcome::Done,
        Err(e) => {
            tracing::debug!(error = %e, "rules: {what} by iptables");
            false
        }
    }
}

/// May an engine have such a table? Told without starting anything, and without having the kernel load or make what
/// it does not have yet.
pub(crate) fn may_have(engine: Engine, table: Table, family: Family) -> bool {
    match engine {
        Engine::NfTables => has_nf_tables(),
        Engine::Legacy => has_legacy(table, family),
    }
}

/// The kernel lists the tables that anybody has asked for.
fn has_legacy(table: Table, family: Family) -> bool {
    let list = match family {
        Family::V4 => "ip_tables_names",
        Family::V6 => "ip6_tables_names",
    };
    match fs::read_to_string(Path::new(NETWORK).join(list)) {
        Ok(names) => names.lines().any(|name| name == table.name()),
        // No such list, as without the module; unless that cannot be told.
        Err(e) => e.kind() != ErrorKind::NotFound || !Path::new(NETWORK).exists(),
    }
}

/// Whoever asks about a table has the kernel load the module, if there is one to load.
fn has_nf_tables() -> bool {
    let is_loaded = || Path::new("/sys/module").join(NF_TABLES).exists();
    let is_built_in = || {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let list = Path::new("/lib/modules").join(release).join("modules.builtin");
        let file = format!("/{NF_TABLES}.ko");
        fs::read_to_string(list).is_ok_and(|list| list.lines().any(|line| line.ends_with(&file)))
    };
    !Path::new("/proc/modules").exists() || is_loaded() || is_built_in()
}
