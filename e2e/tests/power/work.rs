//! The work that is cut: everything that changes what is on the disk, some of it at the same time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use e2e::World;
use e2e::disk::{Disk, Log};
use e2e::image::catalogue;
use e2e::pod::{Pod, container, sandbox, shell};
use rustix::process::Signal;

use crate::images;
use crate::marks::{Marks, Thing};

/// The exit code that somebody sees.
pub(crate) const CODE: i32 = 7;

/// All that a cut needs to know.
pub(crate) struct Recording {
    pub log: Log,
    pub base: PathBuf,
    /// Where the first daemon started.
    pub start: u64,
    pub marks: Marks,
    /// What is in each layer, by digest.
    pub layers: BTreeMap<String, String>,
}

/// The disk's clock, and what was answered by it.
struct Clock<'a> {
    disk: &'a Disk,
    marks: &'a Mutex<Marks>,
}

impl Clock<'_> {
    /// Makes a call and notes what it told.
    fn call<T>(&self, call: impl FnOnce() -> T, tells: impl FnOnce(&T) -> Vec<(Thing, bool)>) -> T {
        let began = self.disk.position();
        let answer = call();
        let answered = self.disk.position();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for (thing, there) in tells(&answer) {
            marks.add(thing, there, began, answered);
        }
        answer
    }

    fn pull(&self, world: &World, image: &str) {
        self.call(|| world.pull(image), |_| vec![(Thing::Image(image.into()), true)]);
    }

    fn remove_image(&self, world: &World, image: &str) {
        self.call(|| world.remove_image(image), |()| vec![(Thing::Image(image.into()), false)]);
    }

    fn pod<'w>(&self, world: &'w World, name: &str) -> Pod<'w> {
        let config = sandbox(world, name);
        self.call(|| world.pod_of(config), |pod| vec![(Thing::Pod(pod.id.clone()), true)])
    }

    fn start(&self, pod: &Pod<'_>, name: &str, image: &str, line: &str) -> String {
        let config = container(name, image, &shell(line));
        let id = self.call(|| pod.create(config), |id| vec![(Thing::Container(id.clone()), true)]);
        pod.world.start_container(&id).expect("StartContainer");
        id
    }

    fn remove(&self, pod: &Pod<'_>, containers: &[&String]) {
        pod.stop().expect("StopPodSandbox");
        let gone = |thing| (thing, false);
        self.call(
            || pod.remove().expect("RemovePodSandbox"),
            |()| {
                let of = containers.iter().flat_map(|id| {
                    [Thing::Container((*id).clone()), Thing::Exit((*id).clone(), CODE)]
                });
                of.chain([Thing::Pod(pod.id.clone())]).map(gone).collect()
            },
        );
    }
}

/// Does the work on a disk that remembers. The world's daemon is ended at the end, and all it held is gone.
pub(crate) fn record(world: &mut World) -> Recording {
    images::put(catalogue::storage());
    let disk = Disk::attach(world);
    world.start_registry();
    let start = disk.position();
    world.start_daemon();
    world.settle();
    let marks = Mutex::default();
    let clock = Clock { disk: &disk, marks: &marks };
    let layers = work(world, &clock);
    world.end_daemon(Signal::TERM);
    let log = disk.log();
    let base = disk.base.clone();
    let marks = marks.into_inner().unwrap_or_else(PoisonError::into_inner);
    Recording { log, base, start, marks, layers }
}

fn work(world: &mut World, clock: &Clock<'_>) -> BTreeMap<String, String> {
    let (first, second) = (images::first(), images::second());
    clock.pull(world, &first);
    let pod = clock.pod(world, "one");
    let ends = clock.start(&pod, "ends", &first, &format!("exit {CODE}"));
    clock.call(|| world.ended(&ends), |_| vec![(Thing::Exit(ends.clone(), CODE), true)]);
    let writes = "busybox dd if=/dev/urandom of=/data bs=64k count=20; exec sleep 3600";
    let runs = clock.start(&pod, "runs", &first, writes);
    // Commits of images beside those of pods.
    let other = std::thread::scope(|scope| {
        let pulls = scope.spawn(|| clock.pull(world, &second));
        let other = clock.pod(world, "two");
        pulls.join().expect("the other pull");
        other
    });
    let layers = world_layers(world);
    let last = clock.start(&other, "runs", &second, "exec sleep 3600");
    clock.remove_image(world, &first);
    world.stop_container(&runs, 0).expect("StopContainer");
    clock.call(
        || world.remove_container(&ends).expect("RemoveContainer"),
        |()| {
            let exit = Thing::Exit(ends.clone(), CODE);
            vec![(Thing::Container(ends.clone()), false), (exit, false)]
        },
    );
    clock.remove(&pod, &[&runs]);
    let (id, config) = (other.id.clone(), other.config.clone());
    // A polite end and a start in the middle; the pod does not notice.
    world.end_daemon(Signal::TERM);
    world.start_daemon();
    let world = &*world;
    clock.pull(world, &first);
    clock.remove_image(world, &second);
    clock.remove(&Pod { world, id, config }, &[&last]);
    clock.remove_image(world, &first);
    layers
}

/// The digest of what is in each layer. Damage is a layer whose digest differs, or that says so itself.
fn world_layers(world: &World) -> BTreeMap<String, String> {
    crate::check::layers(world)
        .into_iter()
        .map(|layer| {
            assert_eq!(layer.differences, "0", "{} was unpacked wrongly", layer.name);
            (layer.name, layer.tree)
        })
        .collect()
}
