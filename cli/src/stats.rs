//! `podwright stats`: what the containers that run use.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use api::cri::v1::{
    ContainerStats, ListContainerStatsRequest, ListContainerStatsResponse, UInt64Value,
};

use crate::daemon::Daemon;
use crate::find::{Candidates, pod_name};
use crate::human;
use crate::json;
use crate::table::{Column, Table};

/// What is nice to look at, and long enough for the daemon to tell a rate.
const PERIOD: Duration = Duration::from_secs(2);
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
        let all = Candidates::load(daemon).await?;
        let request = ListContainerStatsRequest::default();
        let list = daemon.runtime.list_container_stats(request).await?.into_inner();
        let text = match args.json {
            true => format!("{:#}\n", json::message::<ListContainerStatsResponse>(&list)?),
            false => table(&list.stats, &all),
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

fn table(stats: &[ContainerStats], all: &Candidates) -> String {
    let mut table = Table::new(&[
        Column::Fixed("CONTAINER"),
        Column::Cut("NAME"),
        Column::Cut("POD"),
        Column::Right("CPU"),
        Column::Right("MEMORY"),
        Column::Right("LIMIT"),
        Column::Right("WRITTEN"),
    ]);
    let mut sorted: Vec<&ContainerStats> = stats.iter().collect();
    sorted.sort_by_key(|one| std::cmp::Reverse(used(one)));
    for one in sorted {
        let attributes = one.attributes.clone().unwrap_or_default();
        let memory = one.memory.unwrap_or_default();
        let working = number(memory.working_set_bytes);
        // What is left and what is used make what may be.
        let limit = memory.available_bytes.map(|left| left.value + working.unwrap_or(0));
        let written = one.writable_layer.as_ref().and_then(|layer| number(layer.used_bytes));
        let size = |bytes: Option<u64>| bytes.map_or("-".into(), human::size);
        table.row([
            human::short(&attributes.id).into(),
            attributes.metadata.map(|metadata| metadata.name).unwrap_or_default(),
            pod_of(&attributes.id, all).into(),
            one.cpu.as_ref().and_then(|cpu| number(cpu.usage_nano_cores)).map_or("-".into(), cores),
            size(working),
            size(limit),
            size(written),
        ]);
    }
    table.render()
}

fn number(value: Option<UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// What the list is sorted by: the busiest first.
fn used(stats: &ContainerStats) -> u64 {
    stats.cpu.as_ref().and_then(|cpu| number(cpu.usage_nano_cores)).unwrap_or(0)
}

/// Parts of one core, in percent.
fn cores(nano_cores: u64) -> String {
    format!("{:.1}%", nano_cores as f64 / 1e7)
}

/// The name of a container's pod; one that came after the list was made has none yet.
fn pod_of<'a>(container: &str, all: &'a Candidates) -> &'a str {
    let known = all.containers.iter().find(|one| one.id == container);
    let of = |id: &str| all.pods.iter().find(|pod| pod.id == id);
    known.and_then(|one| of(&one.pod_sandbox_id)).map_or("?", pod_name)
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{Container, ContainerAttributes, ContainerMetadata, CpuUsage, MemoryUsage};

    use super::*;

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
        let told = table(&list, &all);
        let lines: Vec<Vec<&str>> =
            told.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["b", "name-b", "?", "123.4%", "1.00", "MB", "4.00", "MB", "-"]);
        assert_eq!(lines[2], ["a", "name-a", "?", "-", "1.00", "MB", "-", "-"]);
    }
}
