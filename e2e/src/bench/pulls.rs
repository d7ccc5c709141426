//! One image of `./dev bench pull`, by who is compared here.

use std::path::Path;

use serde_json::Value;

use crate::place;
use crate::pull_bench::{self, Settings};

use super::contestant::Contestant;
use super::report::{Figure, Row, Target, Unit};

/// Eight layers of 75 MB, as gzip.
const IMAGE: &str = "eight-gzip";
const WANTED: Target = Target::Share(0.5);

/// The image pulled by each in turn. Who makes pods' networks makes no difference: of our own, the first speaks for all.
pub(super) fn measure(all: &[Contestant], rounds: usize, peers: &Path) -> Vec<Row> {
    let settings = Settings {
        rounds,
        only: IMAGE.into(),
        pods: 0,
        peers: peers.into(),
        tools: false,
        dir: place::target().join("bench"),
    };
    let measured = pull_bench::run(&settings);
    let image = &measured["images"][0];
    let of = |name: &str, figure: &str| -> Option<f64> {
        let all = image["figures"].as_array()?;
        all.iter().find(|one: &&Value| one["who"] == name)?[figure].as_f64()
    };
    let row = |what: &str, figure: &str| {
        let figures = all.iter().enumerate().map(|(at, one)| match one.is_peer() {
            true => of("containerd", figure).map(Figure::of),
            false if at == 0 => Some(Figure::of(of("podwright", figure)?).target(Some(WANTED))),
            false => None,
        });
        let row =
            Row::new("a pull: 8 layers, 600 MB, gzip", what, Unit::Milliseconds, figures.collect());
        let floor = image["limit"][figure].as_f64();
        floor.map_or(row.clone(), |floor| row.floor(floor))
    };
    vec![
        row("until it is answered", "wall_ms"),
        row("until all is on the disk", "durable_ms"),
        row("processor", "cpu_ms"),
    ]
}
