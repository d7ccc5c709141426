//! Pods and commands: one after the other, each contestant in turn, and several at once.

use std::time::{Duration, Instant};

use crate::image::catalogue::BUSYBOX;
use crate::measure::Samples;
use crate::pod::{Pod, container, sandbox};
use crate::world::World;

use super::contestant::{ByNetwork, Contestant};
use super::floor::PAUSE;
use super::report::{Figure, Row, Target, Unit};

/// Pods that start at once.
const AT_ONCE: usize = 8;
const UP: ByNetwork = (Target::Share(0.5), Target::Share(0.2));
const CYCLE: ByNetwork = (Target::Share(0.5), Target::Share(0.15));
const EXEC: Target = Target::Share(0.4);

/// A figure of a contestant, with what design wants of it.
fn figure(samples: &Samples, target: Option<Target>) -> Option<Figure> {
    Some(Figure::sampled(samples).target(target))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What one contestant's pods took.
#[derive(Debug, Default)]
struct Cycles {
    /// RunPodSandbox, CreateContainer, StartContainer, all three, and Stop with Remove.
    parts: [Samples; 5],
    processor: Duration,
}

impl Cycles {
    fn one(&mut self, contestant: &Contestant, number: usize) {
        let world = &contestant.world;
        let [run, create, start, up, down] = &mut self.parts;
        let config = sandbox(world, &format!("pod-{number}"));
        let pod = run.time(|| world.pod_of(config));
        let id = create.time(|| pod.create(container("c", BUSYBOX, &[])));
        start.time(|| world.start_container(&id)).expect("StartContainer");
        up.add(run.last() + create.last() + start.last());
        down.time(|| pod.end());
    }
}

/// Pods one after the other. The processor's time is that of whole rounds, what is done in the background included.
pub(super) fn sequential(all: &[Contestant], rounds: usize, floor: f64) -> Vec<Row> {
    println!("{rounds} pods, one after the other");
    let mut cycles: Vec<Cycles> = all.iter().map(|_| Cycles::default()).collect();
    let before: Vec<_> = all.iter().map(|one| one.processor().used()).collect();
    for number in 0..rounds {
        all.iter().zip(&mut cycles).for_each(|(one, cycles)| cycles.one(one, number));
    }
    for ((one, cycles), before) in all.iter().zip(&mut cycles).zip(before) {
        cycles.processor = (one.processor().used() - before) / rounds.max(1) as u32;
    }
    let row = |part: usize, what: &str, target: Option<ByNetwork>| {
        let figures = all.iter().zip(&cycles).map(|(one, cycles)| {
            let target = target.and_then(|target| one.wanted_by_network(target));
            figure(&cycles.parts[part], target)
        });
        Row::new("a pod", what, Unit::Milliseconds, figures.collect())
    };
    let processor = all.iter().zip(&cycles).map(|(one, cycles)| {
        let target = one.wanted_by_network(CYCLE);
        Some(Figure::of(milliseconds(cycles.processor)).target(target))
    });
    let up = row(3, "up: Run, Create and Start", Some(UP));
    vec![
        up.floor(floor),
        row(0, "RunPodSandbox", None),
        row(1, "CreateContainer", None),
        row(2, "StartContainer", None),
        row(4, "down: Stop and Remove", None),
        Row::new("a pod", "processor, up and down", Unit::Milliseconds, processor.collect()),
    ]
}

/// So many pods at once, up and then down.
#[derive(Debug, Default)]
struct Bursts {
    up: Samples,
    down: Samples,
    /// Until the last one was up.
    all_up: Samples,
}

/// Pods with one container each, started by so many clients at once, and how long each took.
pub(super) fn start_at_once(world: &World, count: usize, name: &str) -> (Vec<Started>, Samples) {
    let one = |number: usize| {
        let mut samples = Samples::default();
        let config = sandbox(world, &format!("{name}-{number}"));
        let started = samples.time(|| {
            let pod = world.pod_of(config.clone());
            let container = pod.run(container("c0", BUSYBOX, &[]));
            Started { pod: pod.id, container, config }
        });
        (started, samples)
    };
    let (started, samples): (Vec<_>, Vec<_>) = at_once(0..count, one).into_iter().unzip();
    (started, samples.into_iter().fold(Samples::default(), Samples::and))
}

/// A pod that is up, without a hold on its world.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pod: String,
    pub(super) container: String,
    config: crate::cri::PodSandboxConfig,
}

/// Stops and removes them, so many at once; how long each took.
pub(super) fn end_at_once(world: &World, started: Vec<Started>) -> Samples {
    let one = |started: Started| {
        let mut samples = Samples::default();
        samples.time(|| Pod { world, id: started.pod, config: started.config }.end());
        samples
    };
    at_once(started, one).into_iter().fold(Samples::default(), Samples::and)
}

fn at_once<I, T: Send>(inputs: impl IntoIterator<Item = I>, work: impl Fn(I) -> T + Sync) -> Vec<T>
where
    I: Send,
{
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            inputs.into_iter().map(|input| scope.spawn(move || work(input))).collect();
        threads.into_iter().map(|thread| thread.join().expect("calls succeed")).collect()
    })
}

/// Several pods at once, each contestant in turn.
pub(super) fn bursts(all: &[Contestant], rounds: usize) -> Vec<Row> {
    println!("{AT_ONCE} pods at once, {rounds} times");
    let mut bursts: Vec<Bursts> = all.iter().map(|_| Bursts::default()).collect();
    for round in 0..rounds {
        for (one, bursts) in all.iter().zip(&mut bursts) {
            let name = format!("burst-{round}");
            let begun = Instant::now();
            let (started, up) = start_at_once(&one.world, AT_ONCE, &name);
            bursts.all_up.add(begun.elapsed());
            bursts.up = std::mem::take(&mut bursts.up).and(up);
            let down = end_at_once(&one.world, started);
            bursts.down = std::mem::take(&mut bursts.down).and(down);
        }
    }
    let row = |what: &str, of: fn(&Bursts) -> &Samples| {
        let figures = bursts.iter().map(|bursts| figure(of(bursts), None));
        Row::new(&format!("{AT_ONCE} pods at once"), what, Unit::Milliseconds, figures.collect())
    };
    vec![
        row("up, each of them", |bursts| &bursts.up),
        row("until all are up", |bursts| &bursts.all_up),
        row("down, each of them", |bursts| &bursts.down),
    ]
}

/// Commands that only end, each contestant in turn: one at once after the other, as a busy node runs them, and each
/// after a pause, as probes come, when the kernel is not ready for a move between cgroups any more.
pub(super) fn commands(
    all: &[Contestant],
    rounds: usize,
    [floor, after_pause]: [f64; 2],
) -> Vec<Row> {
    println!("{rounds} commands in a container, without and with a pause before each");
    let pods: Vec<_> = all.iter().map(|one| one.world.pod("exec")).collect();
    let ids: Vec<_> = pods.iter().map(|pod| pod.run(container("c", BUSYBOX, &[]))).collect();
    let series = |pause: Duration| {
        let mut samples: Vec<Samples> = all.iter().map(|_| Samples::default()).collect();
        for _ in 0..rounds {
            for ((one, id), samples) in all.iter().zip(&ids).zip(&mut samples) {
                std::thread::sleep(pause);
                samples.time(|| one.world.try_exec(id, &["true"], 10)).expect("ExecSync");
            }
        }
        samples
    };
    let before: Vec<_> = all.iter().map(|one| one.processor().used()).collect();
    let at_once = series(Duration::ZERO);
    let processor = all.iter().zip(before).map(|(one, before)| {
        let used = one.processor().used() - before;
        Some(Figure::of(milliseconds(used) / rounds.max(1) as f64))
    });
    let processor = processor.collect();
    let apart = series(PAUSE);
    pods.into_iter().for_each(Pod::end);
    let row = |what: &str, samples: &[Samples]| {
        let wall = all.iter().zip(samples).map(|(one, samples)| figure(samples, one.wanted(EXEC)));
        Row::new("a command", what, Unit::Milliseconds, wall.collect())
    };
    vec![
        row("ExecSync true, one at once after the other", &at_once).floor(floor),
        Row::new("a command", "processor of one", Unit::Milliseconds, processor),
        row(&format!("ExecSync true, each {} ms after the last", PAUSE.as_millis()), &apart)
            .floor(after_pause),
    ]
}
