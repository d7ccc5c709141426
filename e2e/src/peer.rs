//! Debian's containerd in a world of ours: what podwrightd is measured beside.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::client::Client;
use crate::image::catalogue::BUSYBOX;
use crate::measure::Processor;
use crate::poll::within;
use crate::world::{World, child_of, kill};

const PATIENCE: Duration = Duration::from_secs(60);

/// A containerd that answers, with its CRI plugin, private directories, and the world's runtimes and networks.
#[derive(Debug)]
pub struct Containerd {
    pub client: Client,
    /// Of itself and all that it starts outside pods' cgroups.
    pub processor: Processor,
    dir: PathBuf,
    peers: PathBuf,
    /// The nsenter behind which it runs; it ends with the world.
    nsenter: Child,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.nsenter.kill();
        let _ = self.nsenter.wait();
    }
}

impl Containerd {
    /// Starts what `e2e/peers` has unpacked in `peers`.
    pub fn start(world: &World, peers: &Path) -> Self {
        Self::start_counted(world, peers, Processor::apart(world, "containerd"))
    }

    /// The same, counted by `processor` with whatever else is counted there.
    pub fn start_counted(world: &World, peers: &Path, processor: Processor) -> Self {
        let dir = world.path("containerd");
        std::fs::create_dir_all(&dir).expect("the world's directory");
        let config = dir.join("config.toml");
        std::fs::write(&config, configuration(world, &dir)).expect("the world's directory");
        let nsenter = spawn(world, peers, &dir, &processor);
        let client = Client::new(&world.seen(dir.join("containerd.sock")));
        within(PATIENCE, "containerd to answer", || client.list_images(Default::default()).ok());
        Self { client, processor, dir, peers: peers.into(), nsenter }
    }

    /// Kills it, and starts it again once it is gone; its shims go on. Does not wait for it to answer.
    pub fn restart(&mut self, world: &World) {
        let pid = child_of(self.nsenter.id()).expect("containerd runs");
        kill(pid);
        let _ = self.nsenter.wait();
        self.nsenter = spawn(world, &self.peers, &self.dir, &self.processor);
    }

    /// The directories that are empty when it has no image.
    pub fn stores(&self) -> Vec<PathBuf> {
        let below = [
            "root/io.containerd.snapshotter.v1.overlayfs/snapshots",
            "root/io.containerd.content.v1.content/blobs/sha256",
        ];
        below.map(|below| self.dir.join(below)).into()
    }
}

fn spawn(world: &World, peers: &Path, dir: &Path, processor: &Processor) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log"));
    let log = log.expect("the world's directory");
    let path = std::env::var("PATH").unwrap_or_default();
    processor
        .command(world, &peers.join("bin/containerd"))
        .arg("--config")
        .arg(dir.join("config.toml"))
        // Its shim is looked for there.
        .env("PATH", format!("{}:{path}", peers.join("root/usr/bin").display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .expect("nsenter is installed")
}

fn configuration(world: &World, dir: &Path) -> String {
    let at = |below: &str| dir.join(below).display().to_string();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    // The opt plugin would make a directory on the host, the others have no file system here. It logs as much as the
    // daemon beside it.
    format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n\
         [debug]\nlevel = \"warn\"\n\
         [grpc]\naddress = \"{}\"\n[ttrpc]\naddress = \"{}\"\n\
         [{cri}]\nsandbox_image = \"{BUSYBOX}\"\nrestrict_oom_score_adj = true\n\
         [{cri}.cni]\nconf_dir = \"{}\"\nbin_dir = \"{}\"\n\
         [{cri}.containerd]\ndefault_runtime_name = \"default\"\n\
         [{cri}.containerd.runtimes.default]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{cri}.containerd.runtimes.default.options]\nBinaryName = \"{}\"\n",
        at("root"),
        at("state"),
        at("containerd.sock"),
        at("containerd.sock.ttrpc"),
        world.path("cni/conf").display(),
        world.cni_plugins().display(),
        world.tool(world.runtime()).display(),
    )
}
