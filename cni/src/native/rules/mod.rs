//! Packet filter rules, written and removed as the plugins of CNI do it with `iptables`.
//!
//! What is wanted is said as a list of [`Step`]s, each of which is done unless it is done already: an [`Addition`].
//! A [`Removal`] takes a chain away with the rules that lead to it, or single rules. Both hold for one table of one
//! family, are idempotent, and are one transaction: all of it happens or nothing.
//!
//! It never flushes or changes what others have written, and never starts anything where the rules of the node cannot
//! be told to be those that `iptables` of the node writes ([`usable`]).

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use crate::deadline::{Deadline, Over};
use crate::engine::{Engine, Engines};
use crate::error::Error;

use super::Job;
use super::turn::Turns;
use tools::Tools;
use way::Way;

mod expression;
mod flow;
mod kernel;
pub(crate) mod name;
pub(crate) mod nftables;
mod restore;
mod route;
mod rule;
mod saved;
mod tools;
mod way;

pub(crate) use flow::forget_udp;
pub(crate) use route::route_loopback;
pub(crate) use rule::{Family, Match, Protocol, Rule, Target, is_expressible};

/// The backend's name, where a plugin can be told one: the one way of writing rules that old and new plugins share.
pub(crate) const BACKEND: &str = "iptables";

/// One change of the tables at a time. Of two that find the same missing only one may add it: the executables, of
/// which each looks for itself, were seen to double the rules that all pods share when pods came at once.
static CHANGES: Turns<()> = Turns::new();

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Nat,
    Filter,
}

impl Table {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A chain that all pods share.
    Chain(String),
    /// The chain of one attachment.
    Own(String),
    /// In that chain; at its beginning if it was not there.
    First(String, Rule),
    /// In that chain; at its end if it was not there.
    Last(String, Rule),
}

/// What is to be there in one table.
#[derive(Debug)]
pub(crate) struct Addition {
    pub(crate) table: Table,
    pub(crate) family: Family,
    pub(crate) steps: Vec<Step>,
}

/// What is not to be there in one table.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) table: Table,
    pub(crate) family: Family,
    /// Chains with all that is in them, each with the chain that leads to it.
    pub(crate) chains: Vec<(String, &'static str)>,
    /// Rules, each with its chain.
    pub(crate) rules: Vec<(&'static str, Rule)>,
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Problem {
    /// This family of tables is not there, or its programs are not.
    Unusable(String),
    Failed(String),
    Over(Over),
}

impl From<Over> for Problem {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

impl Problem {
    /// As the failure of a piece of work.
    pub(crate) fn of(self, job: &Job<'_>) -> Error {
        match self {
            Problem::Unusable(problem) | Problem::Failed(problem) => job.refused(problem),
            Problem::Over(over) => job.over(over),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::Unusable(problem) | Problem::Failed(problem) => problem,
            Problem::Over(Over::TimedOut) => "no answer in time",
            Problem::Over(Over::Cancelled) => "cancelled",
        })
    }
}

/// The node's own engines.
pub(crate) fn engines() -> Engines {
    by_family(own_engine)
}

fn own_engine(family: Family) -> Option<Engine> {
    tools::find(family)?.engine
}

fn by_family(of: impl Fn(Family) -> Option<Engine>) -> Engines {
    Engines { v4: of(Family::V4), v6: of(Family::V6) }
}

/// Who wrote an attachment's rules, where that is not recorded and it was not who the node has now: told by the chains
/// that are named after it.
pub(crate) fn find_out(
    engines: Engines,
    network: &str,
    container_id: &str,
    deadline: &Deadline,
) -> Engines {
    let chains = ["", "DN-"].map(|prefix| name::chain(prefix, network, container_id));
    let told_by_chains = |family: Family| {
        let own = own_engine(family);
        let others = Engine::ALL.into_iter().filter(|other| Some(*other) != own);
        let mut likely = others.filter(|other| way::may_have(*other, Table::Nat, family));
        likely.find(|other| {
            let way = Way::of(family, *other);
            way.has_any(Table::Nat, &chains, deadline).unwrap_or(false)
        })
    };
    by_family(|family| family.engine(engines).or_else(|| told_by_chains(family)))
}

/// Programs of engines that are not the node's own: a name for the lot, and each by the name of the node's.
pub(crate) fn elsewhere(engines: Engines) -> Vec<(String, [(String, PathBuf); 3])> {
    let of = |family: Family| {
        let engine = family.engine(engines).filter(|engine| own_engine(family) != Some(*engine))?;
        let Tools { iptables, save, restore, .. } = tools::of(family, engine)?;
        let name = tools::name(family);
        let links = [
            (name.to_owned(), iptables),
            (format!("{name}-save"), save),
            (format!("{name}-restore"), restore),
        ];
        Some((format!("{name}-{}", engine.suffix()), links))
    };
    Family::BOTH.into_iter().filter_map(of).collect()
}

/// Can the rules of this family be written here, just as `iptables` of the attachment's engine would? Where that has
/// been taken from the node, there may be rules of it all the same.
pub(crate) fn usable(family: Family, engines: Engines) -> bool {
    family.engine(engines).is_some() || tools::find(family).is_some()
}

/// Does what is missing, by the engine of the attachment.
pub(crate) fn add(addition: &Addition, job: &Job<'_>) -> Result<(), Problem> {
    let family = addition.family;
    let way = Way::of_node(family).or_of(family.engine(job.attachment.engines));
    let _turn = CHANGES.wait((), job.deadline)?;
    way.add(addition, job.deadline)
}

/// Takes away what is there: of the engine that wrote it, and of the others unless it is certain that they have
/// nothing. They may have where it is not known who wrote it, and where the node's `iptables` became another
/// meanwhile.
pub(crate) fn remove(removal: &Removal, job: &Job<'_>) -> Result<(), Problem> {
    let Removal { table, family, .. } = *removal;
    let recorded = family.engine(job.attachment.engines);
    let own = Way::of_node(family);
    let is_certain = recorded.is_some() && recorded == own.engine;
    let way = own.or_of(recorded);
    let is_done = job.is_beside && (recorded.is_none() || way.tools.is_some());
    if is_certain && is_done {
        return Ok(());
    }
    let _turn = CHANGES.wait((), job.deadline)?;
    let done = if is_done { Ok(()) } else { way.remove(removal, job.deadline) };
    let outcome = match done {
        // Its tables are there, and most likely the rules.
        Err(Problem::Unusable(problem)) if recorded.is_some() && way.tools.is_none() => {
            Err(Problem::Failed(format!("{problem}, which wrote the rules")))
        }
        other => other,
    };
    let others = Engine::ALL.into_iter().filter(|other| !is_certain && Some(*other) != way.engine);
    for other in others.filter(|other| way::may_have(*other, table, family)) {
        match Way::of(family, other).remove(removal, job.deadline) {
            Err(Problem::Unusable(problem)) => tracing::debug!(problem, "rules of another engine"),
            done => done?,
        }
    }
    outcome
}
