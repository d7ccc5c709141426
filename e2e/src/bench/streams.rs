//! Bytes there and back through exec and port-forward, beside a plain proxy and nothing at all.

use crate::throughput::{Rates, measure as once};

use super::contestant::Contestant;
use super::logs::median;
use super::report::{Figure, Row, Unit};

/// So many bytes each way, each contestant in turn.
pub(super) fn measure(all: &[Contestant], rounds: usize, bytes: usize) -> Vec<Row> {
    println!("{} MB there and back through exec and port-forward", bytes / 1_000_000);
    let mut rates: Vec<Vec<Rates>> = all.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (one, rates) in all.iter().zip(&mut rates) {
            rates.push(once(&one.world, bytes));
        }
    }
    let row = |what: &str, of: fn(&Rates) -> f64| {
        let figures = rates.iter().map(|rates| Some(Figure::of(median(rates.iter().map(of)))));
        Row::new("streams", what, Unit::MegabytesPerSecond, figures.collect())
    };
    // Who is measured makes no difference to these.
    let alone = |of: fn(&Rates) -> f64| median(rates.iter().flatten().map(of));
    let (direct, proxy) = (alone(|of| of.direct), alone(|of| of.proxy));
    vec![
        row("exec, there and back", |of| of.exec),
        row("port-forward, there and back", |of| of.forward).floor(direct),
        Row::alone(
            "streams",
            "a plain proxy, there and back",
            Unit::MegabytesPerSecond,
            all.len(),
            proxy,
        ),
    ]
}
