//! `podwright stats`: what the containers that run use.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::human;
use crate::json;
use crate::table::{Column, Table};
use crate::usage::{self, Usage, cores};

/// What is nice to look at, and long enough for the daemon to tell a rate.
const PERIOD: Duration = Duration::from_secs(2);
/// A rate is of a second at least: so long after a first reading there is one.
const RATE: Duration = Duration::from_millis(1100);
/// The first line of a terminal, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show what running containers use; on a terminal, again and again until Ctrl-C
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show it once
    #[arg(long)]
    once: bool,
    /// Print JSON, once
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let live = std::io::stdout().is_terminal() && !args.once && !args.json;
    loop {
        let (mut list, mut all) = usage::listed(daemon).await?;
        // Once is too little for a rate where nobody has asked in the last minutes.
        if !live && usage::of(&list.stats, &all).iter().any(|one| one.nano_cores.is_none()) {
            tokio::time::sleep(RATE).await;
            (list, all) = usage::listed(daemon).await?;
        }
        let text = match args.json {
            true => format!("{:#}\n", json::message(&list)?),
            false => table(&usage::of(&list.stats, &all)),
        };
        let clear = if live { CLEAR } else { "" };
        std::io::stdout().write_all(format!("{clear}{text}").as_bytes())?;
        std::io::stdout().flush()?;
        if !live {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn table(usage: &[Usage]) -> String {
    let mut table = Table::new(&[
        Column::Fixed("CONTAINER"),
        Column::Cut("NAME"),
        Column::Cut("POD"),
        Column::Right("CPU"),
        Column::Right("MEMORY"),
        Column::Right("LIMIT"),
        Column::Right("WRITTEN"),
    ]);
    let size = |bytes: Option<u64>| bytes.map_or("-".into(), human::size);
    for one in usage {
        table.row([
            human::short(&one.id).into(),
            one.name.clone(),
            one.pod.clone(),
            one.nano_cores.map_or("-".into(), cores),
            size(one.memory),
            size(one.limit),
            size(one.written),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{
        Container, ContainerAttributes, ContainerMetadata, ContainerStats, CpuUsage, MemoryUsage,
        UInt64Value,
    };

    use super::*;
    use crate::find::Candidates;

    fn stats(id: &str, nano_cores: Option<u64>, left: Option<u64>) -> ContainerStats {
        let value = |value| Some(UInt64Value { value });
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: id.into(),
                metadata: Some(ContainerMetadata { name: format!("name-{id}"), attempt: 0 }),
                ..Default::default()
            }),
            cpu: Some(CpuUsage {
                usage_nano_cores: nano_cores.and_then(value),
                ..Default::default()
            }),
            memory: Some(MemoryUsage {
                working_set_bytes: value(1_000_000),
                available_bytes: left.and_then(value),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_busiest_is_first_and_what_is_unknown_is_a_dash() {
        let container =
            Container { id: "b".into(), pod_sandbox_id: "p".into(), ..Default::default() };
        let all = Candidates { pods: Vec::new(), containers: vec![container] };
        let list = [stats("a", None, None), stats("b", Some(1_234_000_000), Some(3_000_000))];
        let told = table(&usage::of(&list, &all));
        let lines: Vec<Vec<&str>> =
            told.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["b", "name-b", "?", "123.4%", "1.00", "MB", "4.00", "MB", "-"]);
        assert_eq!(lines[2], ["a", "name-a", "?", "-", "1.00", "MB", "-", "-"]);
    }
}
