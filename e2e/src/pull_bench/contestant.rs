//! Who pulls: podwrightd, Debian's containerd over the same CRI, and skopeo with umoci.
//!
//! Each has private directories on the same file system and a cgroup of its own, in which all that it starts is
//! counted. The registry is nobody's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::content::Subject;
use crate::client::Client;
use crate::cri::{ImageSpec, PullImageRequest, RemoveImageRequest};
use crate::measure::Processor;
use crate::peer::Containerd;
use crate::poll::within;
use crate::world::World;

/// For one pull, and for what is left of it to be deleted.
const PATIENCE: Duration = Duration::from_secs(600);

/// Brings an image into its store, unpacked, and takes it out again. A pull that has ended well has unpacked
/// everything; once an image has been forgotten, none of its blobs and layers is left.
pub(super) trait Contestant {
    fn name(&self) -> &'static str;
    fn pull(&self, subject: &Subject) -> Result<(), String>;
    fn forget(&self, subject: &Subject);
    /// Of all its processes, ended ones too.
    fn processor(&self) -> &Processor;
}

/// A daemon that speaks CRI, and the directories that are empty when it has no image.
struct Daemon<'w> {
    name: &'static str,
    world: &'w World,
    of: Of,
    stores: Vec<PathBuf>,
}

enum Of {
    World(Processor),
    Peer(Box<Containerd>),
}

impl Daemon<'_> {
    fn client(&self) -> &Client {
        match &self.of {
            Of::World(_) => &self.world.client,
            Of::Peer(peer) => &peer.client,
        }
    }
}

impl Contestant for Daemon<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pull(&self, subject: &Subject) -> Result<(), String> {
        let image = Some(ImageSpec { image: subject.reference(), ..Default::default() });
        let request = PullImageRequest { image, ..Default::default() };
        let pulled = self.client().pull_image_within(PATIENCE, request);
        pulled.map(drop).map_err(|status| status.message().to_owned())
    }

    fn forget(&self, subject: &Subject) {
        let image = Some(ImageSpec { image: subject.reference(), ..Default::default() });
        self.client().remove_image(RemoveImageRequest { image }).expect("RemoveImage");
        within(PATIENCE, "the layers to be deleted", || {
            self.stores.iter().all(|dir| is_empty(dir)).then_some(())
        });
    }

    fn processor(&self) -> &Processor {
        match &self.of {
            Of::World(processor) => processor,
            Of::Peer(peer) => &peer.processor,
        }
    }
}

/// The world's own daemon.
pub(super) fn podwright(world: &World) -> impl Contestant {
    let stores = ["layers", "ingest", "trash"].map(|dir| world.path("root/snapshots").join(dir));
    let of = Of::World(Processor::of_daemon(world));
    Daemon { name: "podwright", world, of, stores: stores.into() }
}

/// Debian's containerd.
pub(super) fn containerd<'w>(world: &'w World, peers: &Path) -> impl Contestant + 'w {
    let peer = Containerd::start(world, peers);
    Daemon { name: "containerd", world, stores: peer.stores(), of: Of::Peer(Box::new(peer)) }
}

/// `skopeo copy` into an OCI layout, and `umoci unpack` of that.
struct Tools<'w> {
    world: &'w World,
    bin: PathBuf,
    processor: Processor,
}

pub(super) fn tools<'w>(world: &'w World, peers: &Path) -> impl Contestant + 'w {
    Tools { world, bin: peers.join("bin"), processor: Processor::apart(world, "tools") }
}

impl Tools<'_> {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = self.processor.command(self.world, &self.bin.join(program));
        let output = command.args(arguments).output().expect("nsenter is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        output.status.success().then_some(()).ok_or_else(|| format!("{program}: {last}"))
    }
}

impl Contestant for Tools<'_> {
    fn name(&self) -> &'static str {
        "skopeo + umoci"
    }

    fn pull(&self, subject: &Subject) -> Result<(), String> {
        let dir = self.world.path("tools");
        // A pull that failed is not forgotten.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("the world's directory");
        let layout = format!("{}:1", dir.join("layout").display());
        let from = format!("docker://{}", subject.reference());
        self.run(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "--src-tls-verify=false",
                &from,
                &format!("oci:{layout}"),
            ],
        )?;
        self.run(
            "umoci",
            &["unpack", "--image", &layout, &dir.join("bundle").display().to_string()],
        )
    }

    fn forget(&self, _: &Subject) {
        std::fs::remove_dir_all(self.world.path("tools")).expect("the world's directory");
    }

    fn processor(&self) -> &Processor {
        &self.processor
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}
