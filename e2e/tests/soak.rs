//! A node that works for less than a minute; `./dev soak` does the same for longer.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::time::Duration;

use e2e::soak::{Settings, run};

/// Half of the time with daemons that are killed. Short as it is, it finds what every pod leaves.
#[test]
fn nothing_rises_while_pods_come_and_go() {
    for restarts in [false, true] {
        let report = run(Settings { length: Duration::from_secs(24), pods: 4, restarts });
        println!("{}", report.table());
        let problems = report.problems();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
