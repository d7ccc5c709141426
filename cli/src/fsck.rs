//! `podwright fsck`: what nobody owns, and layers that are damaged.

use std::io::Write;
use std::process::ExitCode;

use api::node::v1::{DamagedLayer, FsckRequest, FsckResponse, Leftover};

use crate::daemon::Daemon;
use crate::json;
use crate::table::{Column, Table};

/// Find what pods and images left behind; exit status 0 means that nothing is, or is any more
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Give back what is found, and fetch damaged layers again
    #[arg(long)]
    fix: bool,
    /// Compare every file of every layer with what it was unpacked from, too
    #[arg(long)]
    layers: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let request = FsckRequest { fix: args.fix, verify_layers: args.layers };
    let found = daemon.node.fsck(request).await?.into_inner();
    let text = if args.json {
        format!("{:#}\n", json::message(&found)?)
    } else {
        report(&found, args.layers)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    let clean = found.leftovers.iter().all(|one| one.released)
        && found.damaged_layers.iter().all(|layer| layer.repaired);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(found: &FsckResponse, verified: bool) -> String {
    let mut text = if found.leftovers.is_empty() {
        "nothing is left behind\n".to_owned()
    } else {
        leftovers(&found.leftovers)
    };
    if verified {
        text += &format!("{} layers compared\n", found.verified_layers);
    }
    for layer in &found.damaged_layers {
        text += &damage(layer);
    }
    text
}

fn leftovers(found: &[Leftover]) -> String {
    let columns = &[Column::Fixed("KIND"), Column::Fixed("NAME"), Column::Fixed("RELEASED")];
    let mut table = Table::new(columns);
    for one in found {
        let released = match (one.released, one.error.as_str()) {
            (true, _) => "yes".to_owned(),
            (false, "") => "no".to_owned(),
            (false, why) => format!("no: {why}"),
        };
        table.row([one.kind.clone(), one.name.clone(), released]);
    }
    table.render()
}

fn damage(layer: &DamagedLayer) -> String {
    let repair = match (layer.repaired, layer.not_repaired.as_str()) {
        (true, _) => ", repaired".to_owned(),
        (false, "") => String::new(),
        (false, why) => format!(", not repaired: {why}"),
    };
    if !layer.error.is_empty() {
        return format!("layer {}: {}{repair}\n", layer.digest, layer.error);
    }
    let (digest, count) = (&layer.digest, layer.path_count);
    let mut text = format!("layer {digest}: {count} paths differ{repair}\n");
    for path in &layer.paths {
        text += &format!("  {path}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_and_damage_are_told_with_their_reasons() {
        let one = |name: &str, released, error: &str| Leftover {
            kind: "snapshot".into(),
            name: name.into(),
            released,
            error: error.into(),
        };
        let found = FsckResponse {
            leftovers: vec![one("a", true, ""), one("b", false, "busy"), one("c", false, "")],
            verified_layers: 3,
            damaged_layers: vec![DamagedLayer {
                digest: "sha256:d".into(),
                paths: vec!["bin/sh".into()],
                path_count: 1,
                not_repaired: "busy".into(),
                ..Default::default()
            }],
        };
        let expected = "\
KIND      NAME  RELEASED
snapshot  a     yes
snapshot  b     no: busy
snapshot  c     no
3 layers compared
layer sha256:d: 1 paths differ, not repaired: busy
  bin/sh
";
        assert_eq!(report(&found, true), expected);
        assert_eq!(report(&FsckResponse::default(), false), "nothing is left behind\n");
    }
}
