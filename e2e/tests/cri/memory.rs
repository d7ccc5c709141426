//! What an idle pod costs in memory, beside its workload: its shim.

use e2e::cri::NamespaceMode;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, sandbox, shell};
use e2e::{Options, World, within};

/// Of design section 6, for each of a hundred pods, in KiB.
const MAX_SHARE: u64 = 256;
const NODE: u64 = 100;

/// One process's memory in KiB: what is its own, and what it shares with every other of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    own: u64,
    shared: u64,
    pss: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let process = std::path::PathBuf::from(format!("/proc/{pid}"));
        let field = |line: &str| e2e::measure::memory(&process, line).unwrap();
        let own = field("Private_Dirty:") + field("Private_Clean:");
        Self { own, shared: field("Rss:") - own, pss: field("Pss:") }
    }
}

pub(super) fn shims(world: &World) -> Vec<u32> {
    let own = format!("/proc/{}/ns/mnt", world.init());
    let own = std::fs::read_link(own).unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let named = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            named.is_ok_and(|name| name == "podwright-shim\n")
                && std::fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|ns| ns == own)
        })
        .collect()
}

/// With `PODWRIGHT_FULL=1` a hundred pods, else a few and what a hundred would come to.
#[test]
fn an_idle_pod_costs_a_quarter_of_a_megabyte() {
    let full = std::env::var_os("PODWRIGHT_FULL").is_some();
    let count = if full { NODE } else { 6 };
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let pods: Vec<_> = (0..count)
        .map(|number| {
            let mut config = sandbox(&world, &format!("idle-{number}"));
            // Its network is not the shim's.
            let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            let namespaces = namespaces(NamespaceMode::Node, NamespaceMode::Container);
            security.namespace_options = Some(namespaces);
            let pod = world.pod_of(config);
            // It has had something to say, and was probed.
            let id = pod.run(container("c", BUSYBOX, &shell("seq 1 2000; exec sleep 3600")));
            world.exec(&id, "true");
            pod
        })
        .collect();
    let shims = shims(&world);
    assert_eq!(shims.len() as u64, count);
    let share = |memory: &Memory| match full {
        true => memory.pss,
        false => memory.own + memory.shared.div_ceil(NODE),
    };
    // Buffers go back a moment after their last use.
    let all = within(std::time::Duration::from_secs(20), "the shims to be small", || {
        let all: Vec<_> = shims.iter().map(|pid| Memory::of(*pid)).collect();
        all.iter().all(|memory| share(memory) <= MAX_SHARE).then_some(all)
    });
    let mean = all.iter().map(share).sum::<u64>() / count;
    println!("an idle pod's shim, of {count}: {mean} KiB, of which {} KiB its own", all[0].own);
    pods.into_iter().for_each(e2e::pod::Pod::end);
    world.finish();
}
