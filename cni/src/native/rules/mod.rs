//! Packet filter rules, written and removed as the plugins of CNI do it with `iptables`.
//!
//! What is wanted is said as a list of [`Step`]s, each of which is done unless it is done already: an [`Addition`].
//! A [`Removal`] takes a chain away with the rules that lead to it, or single rules. Both hold for one table of one
//! family, are idempotent, and are one transaction: all of it happens or nothing.
//!
//! It never flushes or changes what others have written, and never starts anything where the rules of the node cannot
//! be told to be those that `iptables` of the node writes ([`usable`]).

use std::fmt::{self, Display, Formatter};
use std::io;

use crate::deadline::{Deadline, Over};
use crate::error::Error;

use super::Job;
use super::turn::Turns;
use kernel::Outcome;

mod expression;
mod flow;
mod kernel;
pub(crate) mod name;
mod restore;
mod route;
mod rule;
mod saved;
mod tools;

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

/// Can the rules of this family be written here, just as the node's `iptables` would?
pub(crate) fn usable(family: Family) -> bool {
    tools::find(family).is_some()
}

/// Does what is missing.
pub(crate) fn add(addition: &Addition, deadline: &Deadline) -> Result<(), Problem> {
    let tools = tools(addition.family)?;
    let _turn = CHANGES.wait((), deadline)?;
    if tools.is_nf_tables && is_done("add", kernel::add(addition)) {
        return Ok(());
    }
    restore::add(&tools, addition, deadline)
}

/// Takes away what is there.
pub(crate) fn remove(removal: &Removal, deadline: &Deadline) -> Result<(), Problem> {
    let tools = tools(removal.family)?;
    let _turn = CHANGES.wait((), deadline)?;
    if tools.is_nf_tables && is_done("remove", kernel::remove(removal)) {
        return Ok(());
    }
    restore::remove(&tools, removal, deadline)
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

fn tools(family: Family) -> Result<tools::Tools, Problem> {
    tools::find(family)
        .ok_or_else(|| Problem::Unusable(format!("{} is not usable", tools::name(family))))
}
