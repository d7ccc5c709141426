//! Which cases there are, and the workers that go through them, each in a world of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::failpoint::{Action, Armed, Passed};

use crate::kubelet::{Kind, Life};
use crate::node::Node;
use crate::pull::{self, Stored};

/// Worlds at a time for each walk, since most of the time one waits for a process.
const WORKERS: usize = 2;
/// After a failure, so many points at most belong to the release that follows.
const RELEASE: usize = 30;
/// Kills of each scenario that are not at a point.
const INSTANTS: u32 = 10;
const INSTANTS_OF_ALL: u32 = 200;
/// Of a hundred cases so many may miss their point, where the order of events is another than in the first run.
const MAY_MISS: usize = 10;

/// What is done to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Killed, and killed again in the recovery that follows.
    Kill,
    /// Killed so long after the beginning.
    KillAnytime,
    /// An effect fails, and then again with a kill in the release that follows.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Scenario {
    Pod(Kind),
    Image,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario::Pod(Kind::Plain),
    Scenario::Pod(Kind::SharedPid),
    Scenario::Pod(Kind::HostNetwork),
    Scenario::Image,
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    scenario: Scenario,
    armed: Vec<Armed>,
    /// When the daemon is killed without a point.
    after: Option<Duration>,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let armed: Vec<String> = self.armed.iter().map(ToString::to_string).collect();
        write!(f, "{:?}: {}", self.scenario, armed.join(", "))?;
        self.after.map_or(Ok(()), |after| write!(f, "killed after {after:?}"))
    }
}

#[derive(Debug, Default)]
struct Tally {
    points: BTreeSet<String>,
    cases: usize,
    kills: usize,
    failures: usize,
    retries: usize,
    missed: usize,
    commands: usize,
    wrong: Vec<String>,
}

struct Walk {
    disturbance: Disturbance,
    /// Every second point, and every point in each scenario.
    full: bool,
    queue: Mutex<VecDeque<Case>>,
    tally: Mutex<Tally>,
    whole: Mutex<Option<Stored>>,
}

/// Goes through all cases, tells what came of them, and panics if anything was wrong.
pub(crate) fn walk(disturbance: Disturbance) {
    let start = Instant::now();
    let full = std::env::var("PODWRIGHT_MATRIX").is_ok_and(|what| what == "full");
    let mut node = Node::start("crun");
    let mut whole = None;
    let cases = discover(&mut node, disturbance, full, &mut whole).expect("an undisturbed life");
    drop(node);
    let walk = Walk {
        disturbance,
        full,
        queue: Mutex::new(cases.into()),
        tally: Mutex::default(),
        whole: Mutex::new(whole),
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| walk.work());
        }
    });
    let tally = walk.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let count = |what: &str| tally.wrong.iter().filter(|text| text.contains(what)).count();
    println!(
        "crash matrix, {disturbance:?}: points walked {}, runs {}, kills {}, failures injected {}, \
         retries converged {}, residue ({}), lost exits ({}), points missed {}, bystander's commands answered {}, {:.0} s",
        tally.points.len(),
        tally.cases,
        tally.kills,
        tally.failures,
        tally.retries,
        count("residue"),
        count("lost exit"),
        tally.missed,
        tally.commands,
        start.elapsed().as_secs_f64()
    );
    assert!(tally.wrong.is_empty(), "{} wrong:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(tally.missed * 100 <= tally.cases * MAY_MISS, "{} points were missed", tally.missed);
    assert!(tally.commands > 0, "the bystander was never asked");
}

/// Every passage of every scenario. One that several have in common is walked in one of them, in turn, unless all are
/// wanted.
fn discover(
    node: &mut Node,
    disturbance: Disturbance,
    full: bool,
    whole: &mut Option<Stored>,
) -> anyhow::Result<Vec<Case>> {
    let action = match disturbance {
        Disturbance::Kill | Disturbance::KillAnytime => Action::Kill,
        Disturbance::Fail => Action::Fail,
    };
    let only = std::env::var("PODWRIGHT_MATRIX_ONLY").unwrap_or_default();
    let mut passages: Vec<(Armed, Vec<Scenario>)> = Vec::new();
    let mut cases = Vec::new();
    node.bystander.quiet(true);
    for scenario in SCENARIOS {
        node.arm(&[]);
        let start = Instant::now();
        scenario.live(node, false, whole)?;
        if disturbance == Disturbance::KillAnytime {
            cases.extend(instants(scenario, start.elapsed(), full));
            continue;
        }
        let (trace, mut counts) = (node.trace(), BTreeMap::<String, usize>::new());
        if scenario == Scenario::Pod(Kind::SharedPid) {
            // Its init outlives its shim, in a cgroup that only the record names.
            let first = |point: &str| trace.iter().position(|one| one.point == point);
            let (kept, launched) =
                (first("store/sandboxes/put/after"), first("launch/spawn/before"));
            ensure!(
                kept.is_some() && kept < launched,
                "the shim is started before the record is kept"
            );
        }
        for Passed { point, fails } in trace {
            let n = counts.entry(point.clone()).or_default();
            *n += 1;
            let armed = Armed { point, n: *n, action };
            if !armed.point.contains(&only) || !fails && disturbance == Disturbance::Fail {
                continue;
            }
            match passages.iter_mut().find(|(known, _)| *known == armed) {
                Some((_, scenarios)) => scenarios.push(scenario),
                None => passages.push((armed, vec![scenario])),
            }
        }
        node.check()?;
    }
    node.bystander.quiet(false);
    node.check_records()?;
    for (number, (armed, scenarios)) in passages.into_iter().enumerate() {
        let some = if full { scenarios } else { vec![scenarios[number % scenarios.len()]] };
        let case = |scenario| Case { scenario, armed: vec![armed.clone()], after: None };
        cases.extend(some.into_iter().map(case));
    }
    Ok(cases)
}

/// Evenly spread over a life that takes as long as the first one.
fn instants(scenario: Scenario, life: Duration, full: bool) -> impl Iterator<Item = Case> {
    let count = if full { INSTANTS_OF_ALL } else { INSTANTS };
    (0..count).map(move |number| {
        let after = life * number / count;
        Case { scenario, armed: Vec::new(), after: Some(after) }
    })
}

impl Scenario {
    /// From nothing to nothing; how many calls were tried again.
    fn live(
        self,
        node: &mut Node,
        may_fail: bool,
        whole: &mut Option<Stored>,
    ) -> anyhow::Result<usize> {
        match self {
            Self::Image => pull::live(node, whole),
            Self::Pod(kind) => {
                let mut life = Life::new(node, kind, may_fail);
                life.live()?;
                Ok(life.retries)
            }
        }
    }
}

impl Walk {
    fn next(&self) -> Option<(usize, Case)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front().map(|case| (queue.len(), case))
    }

    fn tally(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn work(&self) {
        let mut node = Node::start("crun");
        while let Some((number, case)) = self.next() {
            let Some(trace) = self.guarded(&mut node, &case) else { continue };
            let seconds = second(&case, &trace);
            // One of them, another one each time, unless all are wanted.
            let from = if self.full || seconds.is_empty() { 0 } else { number % seconds.len() };
            let count = if self.full { seconds.len() } else { 1 };
            for armed in seconds.into_iter().skip(from).take(count) {
                let mut case = case.clone();
                case.armed.push(armed);
                if self.guarded(&mut node, &case).is_none() {
                    break;
                }
            }
        }
        let commands = node.bystander.answered();
        let checked = node.check_records().map_err(|err| format!("at the end: {err:#}"));
        self.tally(|tally| {
            tally.commands += commands;
            tally.wrong.extend(checked.err());
        });
    }

    /// Runs a case; where it goes wrong, says so and goes on in a new world.
    fn guarded(&self, node: &mut Node, case: &Case) -> Option<Vec<Passed>> {
        let run = std::panic::AssertUnwindSafe(|| self.run(node, case));
        let outcome = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(anyhow::anyhow!("{text}"))
        });
        match outcome {
            Ok(trace) => Some(trace),
            Err(err) => {
                let log = node.world.read(node.world.path("daemon.log"));
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(80)..].join("\n");
                println!("--- {case}: {err:#}\n--- the daemon's log, its end\n{tail}\n---");
                self.tally(|tally| tally.wrong.push(format!("{case}: {err:#}")));
                *node = Node::start("crun");
                None
            }
        }
    }

    fn run(&self, node: &mut Node, case: &Case) -> anyhow::Result<Vec<Passed>> {
        // Its commands would be counted at these points.
        node.bystander.quiet(case.armed.iter().any(|one| one.point.contains("exec")));
        node.arm(&case.armed);
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let may_fail = self.disturbance == Disturbance::Fail;
        let kill = case.after.map(|after| node.kill_after(after));
        let lived = case.scenario.live(node, may_fail, &mut whole);
        drop(kill);
        let retries = lived?;
        node.revive()?;
        let (waiting, trace, kills) = (node.waiting().len(), node.trace(), node.deaths);
        node.arm(&[]);
        node.check()?;
        if self.disturbance == Disturbance::Fail {
            node.check_records()?;
        }
        let failures = case.armed.iter().filter(|one| one.action == Action::Fail).count();
        let early = case.after.is_some() && kills == 0;
        ensure!(kills + failures > 0 || waiting > 0 || early, "nothing happened");
        self.tally(|tally| {
            tally.cases += 1;
            tally.kills += kills;
            tally.retries += retries;
            if waiting == 0 && !early {
                tally.failures += failures;
                tally
                    .points
                    .extend(case.armed.iter().map(|one| format!("{} {}", one.point, one.n)));
            } else {
                tally.missed += 1;
            }
        });
        Ok(trace)
    }
}

/// Where a kill may follow what was armed first: in the recovery after a kill, in the release after a failure.
fn second(case: &Case, trace: &[Passed]) -> Vec<Armed> {
    let Some(first) = case.armed.first() else { return Vec::new() };
    let mut passages = trace.iter().enumerate().filter(|(_, passed)| passed.point == first.point);
    let Some((at, _)) = passages.nth(first.n - 1) else {
        return Vec::new();
    };
    let rest = &trace[at + 1..];
    let length = match first.action {
        Action::Kill => rest
            .iter()
            .position(|one| one.point == "start/serve/after")
            .map_or(rest.len(), |serves| serves + 1),
        Action::Fail | Action::Hang => rest.len().min(RELEASE),
    };
    let releases = |point: &str| point.starts_with("release/") || point.contains("/delete/");
    (at + 1..at + 1 + length)
        .filter(|&index| first.action == Action::Kill || releases(&trace[index].point))
        .map(|index| {
            let point = trace[index].point.clone();
            let n = trace[..=index].iter().filter(|one| one.point == point).count();
            Armed { point, n, action: Action::Kill }
        })
        .collect()
}
