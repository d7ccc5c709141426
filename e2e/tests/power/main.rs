//! Power fails at every write barrier of the disk, and between them: what was answered is there afterwards, what
//! was half done is undone, and nothing that is served is damaged.
//!
//! One world does its work on a disk that remembers (`e2e::disk`). For each cut, the disk is put together as it
//! may be after the power went there, and a node boots from it: another boot id, no process, an empty state
//! directory. What is asked then is in `check`.
//!
//! `PODWRIGHT_MATRIX=full` walks all cuts; else as many as `PODWRIGHT_POWER_SECONDS` (60) allow, in an order that
//! `PODWRIGHT_POWER_SEED` gives and that the summary tells.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod check;
mod images;
mod marks;
mod work;

use std::time::{Duration, Instant};

use e2e::disk::{Cut, Dice};
use e2e::{Options, World, disk};

const SECONDS: u64 = 60;
/// In the full matrix: how many of the moments between two barriers, for each barrier.
const BETWEEN: usize = 2;

#[test]
fn nothing_is_lost_when_power_fails() {
    let mut world = World::without_daemon(Options::default());
    world.reboot();
    let recording = work::record(&mut world);
    let plan = Plan::new(&recording);
    println!(
        "power: {} barriers and {} writes between them recorded; seed {}",
        plan.barriers, plan.writes, plan.seed
    );
    let start = Instant::now();
    let mut totals = check::Totals::default();
    for cut in &plan.cuts {
        if plan.limit.is_some_and(|limit| start.elapsed() > limit) {
            break;
        }
        totals.cuts += 1;
        // A name of its own: the last node's loop device may go a moment after it.
        let image = world.path(&format!("cut-{}.img", totals.cuts));
        recording.log.replay(&recording.base, *cut, &image).expect("scratch can be written");
        world.reboot();
        disk::mount(&world, &image);
        if let Err(problem) = check::check(&mut world, &recording, *cut, &mut totals) {
            totals.problem(*cut, &problem);
        }
        std::fs::remove_file(&image).expect("the world's directory");
    }
    totals.tell(start.elapsed());
    assert!(totals.problems.is_empty(), "{}", totals.problems.join("\n"));
    assert!(totals.cuts > 0, "there was time for no cut at all");
}

/// Which cuts are made, in which order.
struct Plan {
    cuts: Vec<Cut>,
    barriers: usize,
    writes: usize,
    seed: u64,
    limit: Option<Duration>,
}

impl Plan {
    fn new(recording: &work::Recording) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let full = std::env::var("PODWRIGHT_MATRIX").is_ok_and(|value| value == "full");
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let seed = number("PODWRIGHT_POWER_SEED").unwrap_or(now);
        let mut dice = Dice(seed);
        let barriers = recording.log.barriers(recording.start);
        let mut between = recording.log.between(recording.start);
        let (count, writes) = (barriers.len(), between.len());
        dice.shuffle(&mut between);
        between.truncate(BETWEEN * count);
        let mut cuts: Vec<Cut> =
            barriers.into_iter().map(|entries| Cut { entries, seed: None }).collect();
        cuts.extend(between.into_iter().map(|entries| Cut { entries, seed: Some(dice.roll()) }));
        dice.shuffle(&mut cuts);
        let limit = Duration::from_secs(number("PODWRIGHT_POWER_SECONDS").unwrap_or(SECONDS));
        Self { cuts, barriers: count, writes, seed, limit: (!full).then_some(limit) }
    }
}

impl check::Totals {
    fn tell(&self, took: Duration) {
        let Self { cuts, lost, damaged, undecodable, problems, recovery, .. } = self;
        println!(
            "power: {cuts} cuts walked in {:.0} s: {lost} answers lost, {damaged} layers damaged, \
             {undecodable} records or databases set aside, {} other problems; the daemon answers after {:.0} ms \
             (p50), {:.0} ms (p99)",
            took.as_secs_f64(),
            problems.len(),
            recovery.percentile(50),
            recovery.percentile(99),
        );
    }

    fn problem(&mut self, cut: Cut, problem: &str) {
        println!("power: {cut:?}: {problem}");
        self.problems.push(format!("{cut:?}: {problem}"));
    }
}
