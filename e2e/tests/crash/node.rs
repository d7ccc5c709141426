//! A world for the matrix: the daemon with failpoints, a network that keeps a ledger, and a bystander.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{bail, ensure};
use e2e::failpoint::{Armed, Failpoints, Passed};
use e2e::image::catalogue::BUSYBOX;
use e2e::{Options, World, place};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bystander::Bystander;

/// How often a daemon is started again that dies before it serves.
const STARTS: usize = 10;

#[derive(Debug)]
pub(crate) struct Node {
    // Ends before the world that it talks to.
    pub(crate) bystander: Bystander,
    pub(crate) world: World,
    points: Failpoints,
    ledger: PathBuf,
    /// Of the daemon, since the points were armed.
    pub(crate) deaths: usize,
}

impl Node {
    pub(crate) fn start(runtime: &'static str) -> Self {
        let mut world =
            World::without_daemon(Options { runtime, failpoints: true, ..Options::default() });
        let (plugins, ledger) = (world.path("plugins"), world.path("ledger"));
        std::fs::create_dir_all(&plugins).expect("the world's directory");
        std::os::unix::fs::symlink(place::binary("fixture"), plugins.join("ledger"))
            .expect("the world's directory");
        let dirs = [world.cni_plugins(), plugins];
        let config = format!("network.bin_dirs = {dirs:?}\n");
        std::fs::write(world.path("conf.d/test.toml"), config).expect("the world's directory");
        let conflist = json!({
            "cniVersion": "1.0.0", "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "pods0", "isGateway": true,
                    "ipam": {
                        "type": "host-local", "dataDir": world.path("cni/ipam"),
                        "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    },
                },
                {"type": "ledger", "ledger": ledger},
            ],
        });
        std::fs::write(world.path("cni/conf/10-pods.conflist"), conflist.to_string())
            .expect("the world's directory");
        world.start_registry();
        world.start_daemon();
        world.pull(BUSYBOX);
        let bystander = Bystander::start(&world);
        bystander.quiet(true);
        world.settle();
        bystander.quiet(false);
        let points = world.failpoints();
        Self { bystander, world, points, ledger, deaths: 0 }
    }

    pub(crate) fn arm(&mut self, armed: &[Armed]) {
        self.deaths = 0;
        self.points.arm(armed);
    }

    pub(crate) fn trace(&self) -> Vec<Passed> {
        self.points.trace()
    }

    /// What was armed and has not acted.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.points.waiting()
    }

    /// Makes sure that the daemon serves: starts it as often as it dies. True if it had died.
    pub(crate) fn revive(&mut self) -> anyhow::Result<bool> {
        if self.world.daemon_answers() {
            return Ok(false);
        }
        for _ in 0..STARTS {
            self.deaths += 1;
            if self.world.try_start_daemon() {
                return Ok(true);
            }
        }
        bail!("the daemon does not come up")
    }

    /// Kills the daemon of now so much later.
    pub(crate) fn kill_after(&self, delay: Duration) -> Killer {
        let pid = self.world.daemon_pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        Killer(Some(std::thread::spawn(move || {
            std::thread::sleep(delay);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::KILL);
            }
        })))
    }

    /// Nothing is there but the bystander, which has not noticed.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let before = self.bystander.quiet(true);
        let more = self.world.residue();
        self.bystander.quiet(before);
        ensure!(more.is_empty(), "residue: {}", more.join(", "));
        self.check_ledger()?;
        self.bystander.check(&self.world)
    }

    /// Each ADD has its DEL, but for the one pod that is up.
    fn check_ledger(&self) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.ledger)?;
        let mut last = BTreeMap::new();
        for (verb, id) in text.lines().filter_map(|line| line.split_once(' ')) {
            if verb == "ADD" || verb == "DEL" {
                last.insert(id, verb);
            }
        }
        let open: Vec<_> =
            last.iter().filter(|(_, verb)| **verb == "ADD").map(|(id, _)| *id).collect();
        ensure!(open.len() == 1, "residue: CNI ADD without DEL of {}", open[1..].join(", "));
        Ok(())
    }

    /// After a restart, records of what is there no more would show: each is an owner that recovery looks after, as it
    /// looked after so many after an undisturbed life, which is the first that this is called for.
    pub(crate) fn check_records(&mut self) -> anyhow::Result<()> {
        let before = self.bystander.quiet(true);
        self.world.end_daemon(Signal::TERM);
        self.arm(&[]);
        ensure!(self.world.try_start_daemon(), "the daemon does not come up");
        self.bystander.quiet(before);
        let owners = self.trace().iter().filter(|one| one.point == "recover/owner/before").count();
        static UNDISTURBED: OnceLock<usize> = OnceLock::new();
        let usual = *UNDISTURBED.get_or_init(|| owners);
        ensure!(owners == usual, "residue: recovery finds {owners} owners, not {usual}");
        Ok(())
    }
}

/// A kill to come. Dropped once it has come, so that it never meets another process.
#[derive(Debug)]
pub(crate) struct Killer(Option<JoinHandle<()>>);

impl Drop for Killer {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}
