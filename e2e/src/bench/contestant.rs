//! Who is compared: daemons that speak CRI, each in a world of its own on the same machine, with the same runtime
//! binary, the same plugins and network configuration, and the same images, through the same client.

use std::path::{Path, PathBuf};

use crate::density::daemon_and_shims;
use crate::image::catalogue::BUSYBOX;
use crate::measure::Processor;
use crate::peer::Containerd;
use crate::world::{Options, World};

use super::report::Target;

/// One of them, with the demonstration's image pulled.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) label: &'static str,
    /// Its client is the contestant's.
    pub(super) world: World,
    who: Who,
}

#[derive(Debug)]
enum Who {
    /// Whether its network is made by executed plugins.
    Podwright {
        plugins: bool,
        processor: Processor,
    },
    Containerd(Box<Containerd>),
}

/// What lies in /run on a node is in memory here, too.
fn in_memory(world: &World, dir: &Path) {
    std::fs::create_dir_all(dir).expect("the world's directory");
    world.sh(&format!("mount -t tmpfs -o mode=755 state {}", dir.display()));
}

/// Targets that hang on who makes a pod's network: with executed plugins, and without.
pub(super) type ByNetwork = (Target, Target);

impl Contestant {
    /// This build's daemon; `config` is read after the harness's own.
    pub(super) fn podwright(label: &'static str, config: &str, plugins: bool) -> Self {
        let config = format!("log_level = \"warn\"\n{config}");
        let mut world = World::without_daemon(Options { config, ..Default::default() });
        in_memory(&world, &world.path("state"));
        world.begin();
        let processor = Processor::of(&world);
        Self { label, world, who: Who::Podwright { plugins, processor } }.prepared()
    }

    /// Debian's, as `e2e/peers` has unpacked it.
    pub(super) fn containerd(peers: &Path) -> Self {
        let mut world = World::without_daemon(Options::default());
        world.start_registry();
        in_memory(&world, &world.path("containerd/state"));
        let processor = Processor::all(&world, "containerd");
        let mut containerd = Containerd::start_counted(&world, peers, processor);
        std::mem::swap(&mut world.client, &mut containerd.client);
        Self { label: "containerd", world, who: Who::Containerd(Box::new(containerd)) }.prepared()
    }

    fn prepared(self) -> Self {
        self.world.pull(BUSYBOX);
        self.world.pod("warm-up").end();
        self
    }

    /// Of the daemon and all that it starts, pods too.
    pub(super) fn processor(&self) -> &Processor {
        match &self.who {
            Who::Podwright { processor, .. } => processor,
            Who::Containerd(containerd) => &containerd.processor,
        }
    }

    pub(super) fn is_peer(&self) -> bool {
        matches!(self.who, Who::Containerd(_))
    }

    /// What is wanted of it; nothing of a peer.
    pub(super) fn wanted(&self, target: Target) -> Option<Target> {
        (!self.is_peer()).then_some(target)
    }

    pub(super) fn wanted_by_network(&self, (executed, in_process): ByNetwork) -> Option<Target> {
        match self.who {
            Who::Podwright { plugins: true, .. } => Some(executed),
            Who::Podwright { plugins: false, .. } => Some(in_process),
            Who::Containerd(_) => None,
        }
    }

    /// The directories in /proc of the daemon and of all shims.
    pub(super) fn processes(&self) -> (PathBuf, Vec<PathBuf>) {
        // As much of the names as the kernel keeps.
        let names = match self.who {
            Who::Podwright { .. } => ("podwrightd", "podwright-shim"),
            Who::Containerd(_) => ("containerd", "containerd-shim"),
        };
        daemon_and_shims(&self.world, names)
    }

    /// Kills the daemon and starts it again, without waiting for it to answer.
    pub(super) fn restart(&mut self) {
        match &mut self.who {
            Who::Podwright { processor, .. } => {
                self.world.end_daemon(rustix::process::Signal::KILL);
                self.world.spawn_daemon();
                processor.enter(&self.world);
            }
            Who::Containerd(containerd) => containerd.restart(&self.world),
        }
    }

    /// Ours shows that it has left nothing behind.
    pub(super) fn finish(self) {
        if !self.is_peer() {
            self.world.finish();
        }
    }
}
