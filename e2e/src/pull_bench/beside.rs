//! How long pods take to start while images are pulled, beside how long they take otherwise.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::content::{SUBJECTS, Subject};
use crate::cri::{ImageSpec, PullImageRequest, RemoveImageRequest};
use crate::image::catalogue::BUSYBOX;
use crate::measure::Samples;
use crate::pod::container;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(600);

/// The image that is pulled over and over: eight layers keep every thread busy.
fn subject() -> &'static Subject {
    &SUBJECTS[1]
}

pub(super) fn measure(world: &World, pods: usize) -> Value {
    println!("\nstarting {pods} pods, and as many beside pulls of {}", subject().what);
    world.pull(BUSYBOX);
    world.pod("warm-up").end();
    let alone = start(world, pods);
    let (stop, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                pull_and_remove(world);
                pulls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let samples = start(world, pods);
        stop.store(true, Ordering::Relaxed);
        samples
    });
    for (what, samples) in [("alone", &alone), ("beside pulls", &beside)] {
        println!(
            "pod up (Run + Create + Start), {what}: p50 {:.0} ms, p90 {:.0} ms",
            samples.percentile(50),
            samples.percentile(90)
        );
    }
    json!({ "alone": alone.json(), "beside_pulls": beside.json(), "pulls": pulls.load(Ordering::Relaxed) })
}

fn start(world: &World, pods: usize) -> Samples {
    let mut up = Samples::default();
    for number in 0..pods {
        let pod = up.time(|| {
            let pod = world.pod(&format!("pod-{number}"));
            pod.run(container("c", BUSYBOX, &[]));
            pod
        });
        pod.end();
    }
    up
}

fn pull_and_remove(world: &World) {
    let image = Some(ImageSpec { image: subject().reference(), ..Default::default() });
    let request = PullImageRequest { image: image.clone(), ..Default::default() };
    world.client.pull_image_within(PATIENCE, request).expect("PullImage");
    world.client.remove_image(RemoveImageRequest { image }).expect("RemoveImage");
}
