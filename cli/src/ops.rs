//! `podwright ops`: what the daemon is doing.

use std::io::Write;
use std::process::ExitCode;

use api::node::v1::{ListOperationsRequest, Operation, Transfer};

use crate::daemon::Daemon;
use crate::human;
use crate::json;
use crate::table::{Column, Table};

/// List operations under way: where each is, for how long, and what it waits for
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let list = daemon.node.list_operations(ListOperationsRequest {}).await?.into_inner();
    let text = if args.json {
        format!("{:#}\n", json::message(&list)?)
    } else {
        if !list.ready {
            eprintln!("podwrightd is starting or ending: CRI is not served");
        }
        table(&list.operations)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(operations: &[Operation]) -> String {
    let mut table = Table::new(&[
        Column::Cut("OPERATION"),
        Column::Cut("STAGE"),
        Column::Right("IN STAGE"),
        Column::Right("AGE"),
        Column::Right("CALLERS"),
        Column::Cut("WAITS FOR"),
    ]);
    for operation in operations {
        table.row([
            operation.what.clone(),
            stage(operation),
            human::duration(operation.in_stage_ms),
            human::duration(operation.age_ms),
            operation.waiting_callers.to_string(),
            if operation.waits_for.is_empty() {
                "-".into()
            } else {
                operation.waits_for.join(", ")
            },
        ]);
    }
    table.render()
}

/// The stage, and of what moves data, how much of it is here.
fn stage(operation: &Operation) -> String {
    let mut stage = operation.stage.clone();
    if let Some(Transfer { bytes_done, bytes_total, layers_done, layers_total }) =
        operation.transfer
        && bytes_total > 0
    {
        let (done, total) = (human::size(bytes_done), human::size(bytes_total));
        stage += &format!(": {done} of {total}, {layers_done} of {layers_total} layers");
    }
    if operation.cancelled {
        stage += ", to end";
    }
    stage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_tells_its_bytes_and_a_create_its_path() {
        let pull = Operation {
            what: "pull a:1".into(),
            stage: "fetching".into(),
            in_stage_ms: 1500,
            age_ms: 90_000,
            waiting_callers: 2,
            transfer: Some(Transfer {
                bytes_done: 5_000_000,
                bytes_total: 10_000_000,
                layers_done: 1,
                layers_total: 3,
            }),
            ..Default::default()
        };
        let create = Operation {
            what: "create c".into(),
            stage: "resolving".into(),
            waits_for: vec!["/mnt/nfs".into()],
            cancelled: true,
            ..Default::default()
        };
        let text = table(&[pull, create]);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].contains("fetching: 5.00 MB of 10.0 MB, 1 of 3 layers"), "{text}");
        assert!(rows[1].contains("1.5s") && rows[1].contains("90s"), "{text}");
        assert!(rows[2].contains("resolving, to end") && rows[2].ends_with("/mnt/nfs"), "{text}");
    }
}
