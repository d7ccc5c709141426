//! `./dev bench`, as little of it as there can be: that it measures, and leaves nothing behind.

use std::time::Duration;

use e2e::bench::{Settings, plot, run, table};

#[test]
fn a_comparison_of_one_measures_everything() {
    let report = run(&Settings {
        rounds: 2,
        pods: 2,
        quiet: Duration::ZERO,
        bursts: 1,
        commands: 2,
        calls: 2,
        listed: 2,
        kills: 1,
        pulls: 0,
        bytes: 4 << 20,
        transfers: 1,
        peers: None,
        only: String::new(),
    });
    let empty: Vec<&str> = report
        .rows
        .iter()
        .filter(|row| {
            let measured = row.figures.iter().flatten().all(|figure| figure.value > 0.0);
            let any = row.figures.iter().any(Option::is_some) || row.floor.is_some();
            !measured || !any || row.floor.is_some_and(|floor| floor <= 0.0)
        })
        .map(|row| row.what.as_str())
        .collect();
    assert!(empty.is_empty(), "nothing was measured of {empty:?}");
    let table = table::of(&report);
    for what in [
        "up: Run, Create and Start",
        "kill -9 until",
        "2 real pods",
        "lines of 64 bytes",
        "exec, there",
    ] {
        assert!(table.contains(what), "{what}: {table}");
    }
    assert_eq!(plot::svg(&report), None, "nobody to compare with");
    println!("{table}");
}
