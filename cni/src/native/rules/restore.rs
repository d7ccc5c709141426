//! Reads a table with `iptables-save`, and writes the difference in one transaction with `iptables-restore`.

use std::ffi::OsString;
use std::path::Path;

use super::saved::Saved;
use super::tools::Tools;
use super::{Addition, Problem, Removal, Rule, Table};
use crate::deadline::Deadline;
use crate::plugin::{self, excerpt};
use crate::process::{self, Failure, Output, Program};

/// A table with the rules of ten thousand services.
const MAX_TABLE: usize = 64 << 20;
/// How often it is tried anew, when others have changed the table between reading and writing.
const TRIES: u32 = 4;
/// The status of `iptables -C` for a rule that is not there.
const NOT_THERE: i32 = 1;

pub(crate) fn add(tools: &Tools, addition: &Addition, deadline: &Deadline) -> Result<(), Problem> {
    let table = addition.table;
    change(tools, table, deadline, |saved| {
        saved.missing(addition, |chain, rule| exists(tools, table, chain, rule, deadline))
    })
}

pub(crate) fn remove(tools: &Tools, removal: &Removal, deadline: &Deadline) -> Result<(), Problem> {
    change(tools, removal.table, deadline, |saved| Ok(saved.present(removal)))
}

/// Are any of these chains there?
pub(crate) fn has_any(
    tools: &Tools,
    table: Table,
    chains: &[String],
    deadline: &Deadline,
) -> Result<bool, Problem> {
    Ok(Saved::parse(&read(tools, table, deadline)?).has_any(chains))
}

fn change(
    tools: &Tools,
    table: Table,
    deadline: &Deadline,
    difference: impl Fn(&Saved<'_>) -> Result<Vec<String>, Problem>,
) -> Result<(), Problem> {
    let mut last = None;
    for _ in 0..TRIES {
        let text = read(tools, table, deadline)?;
        let lines = difference(&Saved::parse(&text))?;
        if lines.is_empty() {
            return Ok(());
        }
        match write(tools, table, &lines, deadline) {
            Err(Problem::Failed(problem)) => last = Some(problem),
            other => return other,
        }
    }
    Err(Problem::Failed(last.unwrap_or_default()))
}

fn read(tools: &Tools, table: Table, deadline: &Deadline) -> Result<String, Problem> {
    let output = run(&tools.save, &["-t", table.name()], b"", deadline)?;
    let output = succeeded(&tools.save, output).map_err(|problem| match problem {
        Problem::Failed(problem) => Problem::Unusable(problem),
        other => other,
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(
    tools: &Tools,
    table: Table,
    lines: &[String],
    deadline: &Deadline,
) -> Result<(), Problem> {
    let text = format!("*{}\n{}\nCOMMIT\n", table.name(), lines.join("\n"));
    let wait = seconds(deadline);
    let output = run(&tools.restore, &["--noflush", "-w", &wait], text.as_bytes(), deadline)?;
    succeeded(&tools.restore, output).map(drop)
}

/// Asks for a rule as the plugins do.
fn exists(
    tools: &Tools,
    table: Table,
    chain: &str,
    rule: &Rule,
    deadline: &Deadline,
) -> Result<bool, Problem> {
    let words = rule.arguments();
    let wait = seconds(deadline);
    let mut arguments = vec!["-w", &wait, "-t", table.name(), "-C", chain];
    arguments.extend(words.iter().map(String::as_str));
    let output = run(&tools.iptables, &arguments, b"", deadline)?;
    if output.status.code() == Some(NOT_THERE) {
        return Ok(false);
    }
    succeeded(&tools.iptables, output).map(|_| true)
}

/// For the lock that the older kind of tables has. Who holds it is another process.
fn seconds(deadline: &Deadline) -> String {
    deadline.left().as_secs().max(1).to_string()
}

fn run(
    path: &Path,
    arguments: &[&str],
    stdin: &[u8],
    deadline: &Deadline,
) -> Result<Output, Problem> {
    let program = Program {
        path,
        args: arguments.iter().map(OsString::from).collect(),
        env: vec![("PATH", plugin::path_variable())],
        stdin,
        max_stdout: MAX_TABLE,
    };
    process::run(&program, deadline).map_err(|failure| match failure {
        Failure::Over(over) => Problem::Over(over),
        Failure::TooMuch => Problem::Failed(format!("{} prints too much", path.display())),
        Failure::Io(op, e) => Problem::Failed(format!("{op} {}: {e}", path.display())),
    })
}

fn succeeded(path: &Path, output: Output) -> Result<Output, Problem> {
    if output.status.success() {
        return Ok(output);
    }
    let said = excerpt(&output.stderr);
    Err(Problem::Failed(format!("{}: {}: {said}", path.display(), output.status)))
}
