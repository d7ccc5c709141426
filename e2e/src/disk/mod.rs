//! A disk that remembers: one file in a FUSE file system, served by a process of the world, with every write and
//! every flush in the order in which they reached it.
//!
//! A loop device over that file carries a file system, and what such a device does not say was flushed may be lost
//! when power fails. [`Log`] says what can be on the disk then. The log is written before the kernel hears of a
//! write's end, so all that was durable when somebody looked at [`Disk::position`] lies before that position.
//! Nothing here outlives its world: the loop device frees itself with its last user.

mod layers;
mod log;
mod serve;

use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::place;
use crate::poll::eventually;
use crate::world::{World, child_of, kill};

pub use layers::tell_layers;
pub use log::{Cut, Dice, Log};
pub use serve::serve;

/// Small, since each cut copies what is in use of it.
const SIZE: u64 = 128 << 20;
/// The file's name in its file system.
pub const NAME: &str = "disk";

/// A file system for the parts of a world that survive a loss of power.
#[derive(Debug)]
pub struct Disk {
    server: Child,
    log: PathBuf,
    /// As it was before the first write.
    pub base: PathBuf,
}

/// What survives a reboot, and lies on the disk.
const PARTS: [&str; 3] = ["root", "cni/ipam", "cni/cache"];

impl Disk {
    /// Makes a file system and mounts the world's durable directories from it, recording. The world has no daemon.
    pub fn attach(world: &World) -> Self {
        let base = world.path("base.img");
        let mkfs = format!(
            "truncate -s {SIZE} {0} && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {0}",
            base.display()
        );
        world.sh(&mkfs);
        let (log, fuse) = (world.path("disk.log"), world.path("fuse"));
        std::fs::create_dir_all(&fuse).expect("the world's directory");
        let server = world
            .command(place::binary("fixture"))
            .arg("disk")
            .args([&fuse, &base, &log])
            .stdin(Stdio::null())
            .spawn()
            .expect("nsenter is installed");
        let file = fuse.join(NAME);
        eventually("the disk to be there", || world.seen(&file).exists().then_some(()));
        mount(world, &file);
        // Of this one alone: others on the machine may hang.
        world.sh(&format!("sync -f {}", world.path("disk").display()));
        Self { server, log, base }
    }

    /// How much has been recorded: what was durable before this call lies before it.
    pub fn position(&self) -> u64 {
        std::fs::metadata(&self.log).expect("the log is there").len()
    }

    /// All that was recorded.
    pub fn log(&self) -> Log {
        Log::read(&self.log).expect("the log can be read")
    }
}

impl Drop for Disk {
    /// The server ends while others are in its mount namespace, and with it the connection. If it were the last of
    /// them, it would write back what is mounted from it, and wait for itself for ever.
    fn drop(&mut self) {
        if let Some(server) = child_of(self.server.id()) {
            kill(server);
        }
        let _ = self.server.wait();
    }
}

/// Mounts the world's durable directories from a disk image.
pub fn mount(world: &World, image: &std::path::Path) {
    let dir = world.path("disk");
    let mut script =
        format!("mkdir -p {0}; mount -t ext4 -o loop {1} {0}\n", dir.display(), image.display());
    for part in PARTS {
        let (on_disk, place) = (dir.join(part), world.path(part));
        script += &format!(
            "mkdir -p {0} {1}; mount --bind {0} {1}\n",
            on_disk.display(),
            place.display()
        );
    }
    world.sh(&format!("set -e\n{script}"));
}
