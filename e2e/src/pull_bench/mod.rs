//! `./dev bench pull`: what a pull takes and costs beside containerd and beside skopeo with umoci, and beside what it
//! cannot be faster than; and what a pull costs the pods that start meanwhile.
//!
//! All pull the same images from one registry on loopback, in turn and several times, in one run: ratios count.

mod beside;
mod content;
mod contestant;
mod floor;
mod random;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::registry::Storage;
use crate::world::{Options, World};

use content::Subject;
use contestant::Contestant;
use floor::Floor;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often each image is pulled by each; the median counts.
    pub rounds: usize,
    /// Images whose names begin so.
    pub only: String,
    /// Pods that are started with and without a pull beside them.
    pub pods: usize,
    /// Where `e2e/peers` has unpacked.
    pub peers: PathBuf,
    /// Whether skopeo with umoci is measured, too.
    pub tools: bool,
    /// For the images, which are kept for the next run, and the figures.
    pub dir: PathBuf,
}

/// One contestant's median on one image.
#[derive(Debug, Clone, Copy)]
struct Figures {
    /// Until the call came back, and until all of it was on the disk.
    wall: Duration,
    durable: Duration,
    processor: Duration,
}

/// One image.
struct Row {
    subject: Subject,
    floor: Floor,
    figures: Vec<(&'static str, Result<Figures>)>,
}

/// Measures, prints, and returns the figures.
pub fn run(settings: &Settings) -> Value {
    let storage = Storage::at(&settings.dir.join("registry"));
    std::fs::create_dir_all(&settings.dir).expect("the target directory can be written");
    content::store_busybox(&storage);
    let subjects: Vec<Subject> = content::SUBJECTS
        .into_iter()
        .filter(|subject| subject.name.starts_with(&settings.only))
        .collect();
    subjects.iter().for_each(|subject| subject.store(&storage, &settings.dir));
    let mut world = World::without_daemon(Options {
        config: "log_level = \"warn\"\n".into(),
        ..Options::default()
    });
    world.start_registry_of(&storage);
    world.start_daemon();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(contestant::podwright(&world)),
        Box::new(contestant::containerd(&world, &settings.peers)),
    ];
    if settings.tools {
        contestants.push(Box::new(contestant::tools(&world, &settings.peers)));
    }
    let measure = |subject: &Subject| {
        let floor = Floor::of(subject, &storage, &world.path("floor"));
        let figures = compete(&contestants, subject, settings.rounds);
        Row { subject: subject.clone(), floor, figures }
    };
    let rows: Vec<Row> = subjects.iter().map(measure).collect();
    print(&rows, cores);
    let beside = (settings.pods > 0).then(|| beside::measure(&world, settings.pods));
    json!({ "cores": cores, "images": rows.iter().map(|row| row.json(cores)).collect::<Vec<_>>(), "pods": beside })
}

type Result<T> = std::result::Result<T, String>;

/// In turn, so that what else the machine does meets all alike.
fn compete(
    contestants: &[Box<dyn Contestant + '_>],
    subject: &Subject,
    rounds: usize,
) -> Vec<(&'static str, Result<Figures>)> {
    let mut samples: Vec<Vec<Result<Figures>>> = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for (contestant, samples) in contestants.iter().zip(&mut samples) {
            // Whoever cannot is not asked again.
            if samples.iter().all(Result::is_ok) {
                samples.push(once(contestant.as_ref(), subject));
            }
        }
    }
    let names = contestants.iter().map(|contestant| contestant.name());
    names.zip(samples.into_iter().map(median)).collect()
}

fn once(contestant: &dyn Contestant, subject: &Subject) -> Result<Figures> {
    rustix::fs::sync();
    let (before, start) = (contestant.processor().used(), Instant::now());
    let pulled = contestant.pull(subject);
    let wall = start.elapsed();
    rustix::fs::sync();
    let durable = start.elapsed();
    let processor = contestant.processor().used() - before;
    pulled?;
    contestant.forget(subject);
    let (name, ms) = (contestant.name(), wall.as_millis());
    println!("{}: {name} {ms} ms, {} ms of processor", subject.name, processor.as_millis());
    Ok(Figures { wall, durable, processor })
}

/// Of each figure by itself.
fn median(samples: Vec<Result<Figures>>) -> Result<Figures> {
    let samples = samples.into_iter().collect::<Result<Vec<_>>>()?;
    let of = |figure: fn(&Figures) -> Duration| {
        let mut all: Vec<_> = samples.iter().map(figure).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    Ok(Figures { wall: of(|f| f.wall), durable: of(|f| f.durable), processor: of(|f| f.processor) })
}

impl Row {
    fn ours(&self) -> Option<Figures> {
        self.figures.first().and_then(|(_, figures)| figures.clone().ok())
    }

    fn json(&self, cores: u32) -> Value {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let figures = self.figures.iter().map(|(name, figures)| match figures {
            Ok(f) => json!({
                "who": name, "wall_ms": ms(f.wall), "durable_ms": ms(f.durable), "cpu_ms": ms(f.processor),
            }),
            Err(why) => json!({ "who": name, "failed": why }),
        });
        json!({
            "image": self.subject.name, "what": self.subject.what, "limit": self.floor.json(cores),
            "figures": figures.collect::<Vec<_>>(),
        })
    }
}

fn print(rows: &[Row], cores: u32) {
    println!("\nmilliseconds; in brackets podwright's share of it");
    println!("{:<28} {:<16} {:>16} {:>16} {:>16}", "", "", "wall", "until on disk", "processor");
    for row in rows {
        let ours = row.ours();
        let share = |of: fn(&Figures) -> Duration, other: Duration| {
            let share = ours.map_or(f64::NAN, |ours| of(&ours).as_secs_f64() / other.as_secs_f64());
            format!("{:.0} ({share:.2})", other.as_secs_f64() * 1e3)
        };
        let mut what = row.subject.what;
        for (name, figures) in &row.figures {
            match figures {
                Ok(f) => println!(
                    "{what:<28} {name:<16} {:>16} {:>16} {:>16}",
                    share(|f| f.wall, f.wall),
                    share(|f| f.durable, f.durable),
                    share(|f| f.processor, f.processor)
                ),
                Err(why) => println!("{what:<28} {name:<16} cannot: {why}"),
            }
            what = "";
        }
        println!(
            "{:<28} {:<16} {:>16} {:>16} {:>16}",
            "",
            "the limit",
            share(|f| f.wall, row.floor.wall(cores)),
            "",
            share(|f| f.processor, row.floor.processor())
        );
    }
}
