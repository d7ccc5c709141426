//! Pulls against a scripted registry, on the real snapshotter. As root, like everything that unpacks layers.

mod archives;
mod fake;
mod faults;
mod hostile;
mod identity;
mod logins;
mod measure;
mod signatures;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use fake::{Auth, Fake, Script, gzip, layer, tar};

/// A node's images on a directory of their own.
struct Node {
    images: Images,
    store: Store,
    tasks: Tasks,
    limits: Limits,
    root: tempfile::TempDir,
}

/// As patient as a test needs, with pauses that nobody notices.
fn limits() -> Limits {
    Limits {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(10),
        ..Limits::default()
    }
}

fn open(root: &Path, store: &Store, tasks: &Tasks, limits: Limits) -> Images {
    let snapshots = root.join("snapshots");
    let snapshotter = Arc::new(Snapshotter::open(&snapshots, snapshotter::Kind::Auto).unwrap());
    let settings = Settings {
        registry: registry::Settings {
            hosts_dir: root.join("certs.d"),
            docker_config: Some(root.join("docker.json")),
            limits,
        },
        keep_blobs: false,
        pinned: vec!["*/pinned:*".into()],
        max_concurrent_downloads: 3,
        verification: verify::Settings {
            policy: Some(root.join("policy.json")).filter(|path| path.exists()),
            ..verify::Settings::default()
        },
        always_allowed: 1 << 20,
    };
    let operations = Operations::default();
    Images::open(root, snapshotter, store.clone(), tasks.clone(), operations, settings).unwrap()
}

impl Node {
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: Limits) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(
            &root.path().join("images.redb"),
            &root.path().join("images/records"),
            &[RECORDS],
        )
        .unwrap();
        Self::on(root, store, limits)
    }

    fn on(root: tempfile::TempDir, store: Store, limits: Limits) -> Self {
        let tasks = Tasks::default();
        // Off the runtime's own threads, as at start-up.
        let opened = std::thread::scope(|scope| {
            let opening = scope.spawn(|| open(root.path(), &store, &tasks, limits.clone()));
            opening.join().unwrap()
        });
        Self { images: opened, store, tasks, limits, root }
    }

    /// Writes what the node's operator says about a registry.
    fn hosts(&self, registry: &str, text: &str) {
        let dir = self.root.path().join("certs.d").join(registry);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    /// The same node as the next daemon finds it.
    fn restart(self) -> Self {
        let Self { images, store, root, limits, .. } = self;
        drop(images);
        Self::on(root, store, limits)
    }

    async fn pull(&self, name: &str) -> Result<Digest, Shared> {
        self.pull_as(name, Credentials::default()).await
    }

    async fn pull_as(&self, name: &str, credentials: Credentials) -> Result<Digest, Shared> {
        let pull = self.images.pull(name, credentials).unwrap();
        tokio::time::timeout(Duration::from_secs(180), pull).await.expect("the pull hangs")
    }

    /// The text of the error that a pull ends with.
    async fn fails(&self, name: &str) -> String {
        self.pull(name).await.expect_err("the pull succeeds").to_string()
    }

    /// Nothing but what the images need is on the disk, once the background work has ended.
    async fn is_clean(&self) {
        self.images.start_collecting();
        let wanted: usize = self.images.list().iter().map(|image| image.layers().len()).sum();
        let count = |dir: PathBuf| std::fs::read_dir(dir).map_or(0, Iterator::count);
        wait(|| {
            let layers = count(self.root.path().join("snapshots/layers"));
            let ingests = count(self.root.path().join("snapshots/ingest"));
            layers <= wanted && ingests == 0
        })
        .await;
    }
}

/// Waits until something is so.
async fn wait(so: impl Fn() -> bool) {
    for _ in 0..3000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come true");
}

fn password(password: &str) -> Credentials {
    let auth = AuthFields { username: "user", password, ..AuthFields::default() };
    Credentials::from_auth(&auth).unwrap()
}

/// Text that compresses little; 32 bytes for each count.
fn noise(count: u32) -> Vec<u8> {
    let piece = |n: u32| Digest::sha256(&n.to_le_bytes()).hex().as_bytes()[..32].to_vec();
    (0..count).flat_map(piece).collect()
}
