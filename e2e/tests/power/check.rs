//! What has to hold after a loss of power.

use std::collections::BTreeSet;
use std::time::Instant;

use e2e::cri::*;
use e2e::disk::Cut;
use e2e::measure::Samples;
use e2e::pod::{container, shell};
use e2e::{World, place};

use crate::images::{self, VERIFY};
use crate::marks::Thing;
use crate::work::{CODE, Recording};

/// Over all cuts.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub cuts: usize,
    pub lost: usize,
    pub damaged: usize,
    /// Records that could not be decoded, databases that could not be opened.
    pub undecodable: usize,
    pub problems: Vec<String>,
    pub recovery: Samples,
}

/// Boots a node from what is mounted, and asks everything. An `Err` is what was wrong.
pub(crate) fn check(
    world: &mut World,
    recording: &Recording,
    cut: Cut,
    totals: &mut Totals,
) -> Result<(), String> {
    world.start_registry();
    let begin = Instant::now();
    if !world.try_start_daemon() {
        return Err(format!("the daemon ended: {}", world.read(world.path("daemon.log"))));
    }
    totals.recovery.add(begin.elapsed());
    let world = &*world;
    let log = world.read(world.path("daemon.log"));
    let aside = log.lines().filter(|line| line.contains("set aside")).count();
    totals.undecodable += aside;
    let mut wrong = recording.marks.violations(recording.log.position(cut.entries), &found(world)?);
    totals.lost += wrong.len();
    if aside > 0 {
        wrong.push(format!("{aside} records or databases were set aside"));
    }
    let damaged = damaged(world, recording);
    totals.damaged += damaged.len();
    wrong.extend(damaged);
    // What is listed serves as it is; what is not, or was damaged, the next pull brings.
    wrong.extend(serves(world).err());
    wrong.extend(cleanup(world).err());
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

/// All that a client is told of.
fn found(world: &World) -> Result<BTreeSet<Thing>, String> {
    let failed = |status: tonic::Status| status.to_string();
    let client = &world.client;
    let images = client.list_images(ListImagesRequest::default()).map_err(failed)?;
    let pods = client.list_pod_sandbox(ListPodSandboxRequest::default()).map_err(failed)?;
    let containers = client.list_containers(ListContainersRequest::default()).map_err(failed)?;
    let tags = images.images.into_iter().flat_map(|image| image.repo_tags);
    let mut found: BTreeSet<Thing> = tags.map(Thing::Image).collect();
    for pod in pods.items {
        if pod.state() == PodSandboxState::SandboxReady {
            return Err(format!("pod {} is ready after a reboot", pod.id));
        }
        found.insert(Thing::Pod(pod.id));
    }
    for one in containers.containers {
        if one.state() == ContainerState::ContainerRunning {
            return Err(format!("container {} runs after a reboot", one.id));
        }
        let status = world.container_status(&one.id).map_err(failed)?;
        if status.state() == ContainerState::ContainerExited && status.exit_code == CODE {
            found.insert(Thing::Exit(one.id.clone(), CODE));
        }
        found.insert(Thing::Container(one.id));
    }
    Ok(found)
}

/// A layer as `fixture layers` tells it.
pub(crate) struct Told {
    pub name: String,
    pub tree: String,
    pub differences: String,
}

pub(crate) fn layers(world: &World) -> Vec<Told> {
    let fixture = place::binary("fixture");
    let dir = world.path("root/snapshots");
    let told = world.sh(&format!("{} layers {}", fixture.display(), dir.display()));
    told.lines()
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || words.next().expect("three words");
            Told { name: next(), tree: next(), differences: next() }
        })
        .collect()
}

/// Layers that are there and are not what was unpacked.
fn damaged(world: &World, recording: &Recording) -> Vec<String> {
    let differs = |told: &Told| {
        told.differences != "0" || recording.layers.get(&told.name) != Some(&told.tree)
    };
    layers(world)
        .into_iter()
        .filter(differs)
        .map(|told| format!("layer {} is damaged: {} differences", told.name, told.differences))
        .collect()
}

/// Both images, pulled anew, run and have every byte that they should.
fn serves(world: &World) -> Result<(), String> {
    let failed = |status: tonic::Status| status.to_string();
    let pod = world.try_pod(e2e::pod::sandbox(world, "after")).map_err(failed)?;
    for image in [images::first(), images::second()] {
        world.try_pull(&image).map_err(|status| format!("pull {image}: {status}"))?;
        let name = image.replace(['/', ':', '.'], "-");
        let id = pod.try_create(container(&name, &image, &shell(VERIFY))).map_err(failed)?;
        world.start_container(&id).map_err(failed)?;
        let status = world.ended(&id);
        if status.exit_code != 0 {
            return Err(format!(
                "{image} serves damaged files ({}): {}",
                status.exit_code,
                pod.log(&name)
            ));
        }
    }
    Ok(())
}

/// As a kubelet ends what it finds after a reboot; then nothing is left, on the disk neither.
fn cleanup(world: &World) -> Result<(), String> {
    let failed = |status: tonic::Status| status.to_string();
    let client = &world.client;
    let pods = client.list_pod_sandbox(ListPodSandboxRequest::default()).map_err(failed)?;
    for pod_sandbox_id in pods.items.into_iter().map(|pod| pod.id) {
        let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        client.stop_pod_sandbox(stop).map_err(failed)?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id };
        client.remove_pod_sandbox(remove).map_err(failed)?;
    }
    for image in [images::first(), images::second()] {
        world.remove_image(&image);
    }
    let dir = world.path("root");
    let places = format!(
        "cd {} && find snapshots/layers snapshots/snapshots snapshots/ingest snapshots/trash images/ingest \
         images/sha256 images/sha512 images/records/images ../cni/ipam -mindepth 1 ! -name lock ! -name 'last_reserved_ip*' \
         ! -path ../cni/ipam/pods; find db -name '*broken*' -o -name '*new*'",
        dir.display()
    );
    let mut left = String::new();
    let start = Instant::now();
    while start.elapsed() < e2e::poll::LIMIT {
        left = world.sh(&places);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    if !left.is_empty() {
        // What lies in something that is named is not; a lease says whose it is.
        let some: Vec<&str> = left.lines().filter(|path| path.matches('/').count() < 5).collect();
        let leases = world.path("cni/ipam/pods");
        let owners = world.sh(&format!("head -c 100 {}/1* || true", leases.display()));
        return Err(format!("left on the disk: {}; leases: {owners:?}", some.join(" ")));
    }
    let more = world.residue();
    if more.is_empty() { Ok(()) } else { Err(format!("left behind: {}", more.join(", "))) }
}
