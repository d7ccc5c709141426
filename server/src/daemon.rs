//! How the daemon stands up and sits down: lock, stores, recovery, sockets, signals.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{CgroupDriver, Config, SnapshotterKind};
use crate::container::fact::Facts;
use crate::container::facts;
use crate::container::node::{Node, Undone};
use crate::error::{Error, Result};
use crate::export::Exporter;
use crate::failpoint;
use crate::host::apparmor::AppArmor;
use crate::host::instance::Instance;
use crate::host::{Host, cgroup, owners};
use crate::image::{Images, Settings};
use crate::operation::Operations;
use crate::resource::Hands;
use crate::sandbox::{Pods, network::Networks};
use crate::store::Store;
use crate::telemetry::Tasks;
use crate::{container, cri, image, recover, sandbox, scrape, stream, sys, systemd, watchdog};

/// How long operations may take to end once the daemon shall stop. What is cut off is released at the next start.
const GRACE: Duration = Duration::from_secs(10);
/// How long another holder of the state directory's lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Request handling needs few threads; what blocks has a pool of its own.
const WORKERS: usize = 2;
/// Threads for what blocks on the kernel, the disk or a plugin.
const MAX_BLOCKING: usize = 64;

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What kept it from starting or from serving.
pub(crate) fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING)
        .thread_name("podwrightd")
        .enable_all()
        .build()
        .map_err(Error::io("start the threads of", Path::new("tokio")))?;
    let result = runtime.block_on(serve(config));
    // Watchers of running containers never end by themselves.
    runtime.shutdown_background();
    result
}

async fn serve(config: Config) -> Result<()> {
    make_directories(&config)?;
    let _lock = lock(&config.root).await?;
    failpoint::step("start/mount", || keep_mounts_private(&config.state))?;
    let instance = Instance::establish(&config.root, &config.state)?;
    let listener = listen(&config.socket)?;
    let socket = config.socket.clone();
    let pods = Arc::new(assemble(config, instance)?);
    watchdog::start(&pods)?;
    let traces = Exporter::start(&pods);
    watch_slow(&pods);

    let (streams, streams_listener) = stream::Server::bind(pods.clone()).await?;
    let server = cri::Server::new(pods.clone(), streams.clone());
    let (ready, tasks) = (server.ready(), server.tasks());
    let stop = tokio_util::sync::CancellationToken::new();
    let serving =
        pods.node.tasks.spawn(tracing::info_span!("cri"), server.serve(listener, stop.clone()));
    let span = tracing::info_span!("streaming");
    pods.node.tasks.spawn(span, streams.clone().serve(streams_listener));
    watch_networks(&pods);
    scrape::start(&pods).await;

    recover::recover(&pods).await?;
    sandbox::watch::glances(&pods);
    // Before anybody is served: who looks at what the daemon holds finds all that it goes on holding.
    watch_imports(&pods);
    failpoint::sure("start/serve", || ready.open());
    load_profile(&pods);
    tracing::info!(socket = %socket.display(), handler = pods.node.host.default_handler, "serving CRI");
    systemd::tell("READY=1");

    wait_for_end().await?;
    tracing::info!("ending; pods go on running");
    systemd::tell("STOPPING=1");
    ready.close();
    if tokio::time::timeout(GRACE, tasks.finish()).await.is_err() {
        tracing::warn!("operations still run; what they hold is released at the next start");
    }
    if tokio::time::timeout(GRACE, streams.end()).await.is_err() {
        tracing::warn!("sessions still run");
    }
    if tokio::time::timeout(GRACE, pods.node.store.flush()).await.is_err() {
        tracing::warn!("records are still being written");
    }
    stop.cancel();
    tokio::time::timeout(GRACE, serving).await.ok();
    std::fs::remove_file(&socket).ok();
    traces.end().await;
    scrape::end(&pods);
    tidy_up(&pods);
    Ok(())
}

/// With no pod left, nothing of ours stays on the host but what is on the disk.
fn tidy_up(pods: &Pods) {
    let config = &pods.node.config;
    if pods.sandboxes().is_empty() {
        // A slice is systemd's to remove.
        if pods.node.host.cgroup_driver == CgroupDriver::Cgroupfs {
            cgroup::remove_if_empty(pods.node.cgroup_parent(""));
        }
        rustix::mount::unmount(&config.state, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

/// Makes what everything works with.
fn assemble(config: Config, instance: Instance) -> Result<Pods> {
    let mut host = Host::probe(&config)?;
    if !host.sys_resource {
        tracing::warn!(
            "without CAP_SYS_RESOURCE: oom_score_adj is not lowered below {} and hard limits are not raised",
            host.oom_score_adj
        );
    }
    let databases = config.root.join("db");
    // What ends with the boot has its copies where everything does that ends with the boot.
    let copies = config.state.join("records");
    let store = failpoint::step("start/store", || {
        Store::open(&databases.join("pods"), &copies, &[sandbox::TABLE, container::TABLE])
    })?;
    let kind = match config.snapshotter {
        SnapshotterKind::Auto => snapshotter::Kind::Auto,
        SnapshotterKind::Overlay => snapshotter::Kind::Overlay,
        SnapshotterKind::Native => snapshotter::Kind::Native,
    };
    let snapshotter = failpoint::step("start/snapshots", || {
        snapshotter::Snapshotter::open(&config.root.join("snapshots"), kind)
            .map_err(|err| Error::Image(err.to_string()))
    })?;
    let snapshotter = Arc::new(snapshotter);
    if let Err(err) = owners::can_be_mapped(snapshotter.root()) {
        tracing::warn!(
            "pods can have no users of their own: owners cannot be mapped on the file system of {}: {err}",
            snapshotter.root().display()
        );
        host.without_user_namespaces();
    }
    let (tasks, operations) = (Tasks::default(), Operations::default());
    let copies = config.root.join("images/records");
    let database = Store::open(&databases.join("images"), &copies, &[image::RECORDS])?;
    let images = Images::open(
        &config.root,
        snapshotter.clone(),
        database,
        tasks.clone(),
        operations.clone(),
        Settings::new(&config),
    )
    .map_err(|err| Error::Image(err.to_string()))?;
    let cni = cni::Runtime {
        bin_dirs: config.network.bin_dirs.clone(),
        cache_dir: config.network.cache_dir.clone(),
        timeout: config.network.timeout,
        native: config.network.native,
        ..cni::Runtime::default()
    };
    let networks = Networks::load(&config.network.conf_dir);
    let hands = Hands { cni: Arc::new(cni), snapshotter };
    let facts = facts::node(&config, &host)?;
    let (undone, happened) = (Undone::default(), Facts::default());
    let cdi = container::cdi::Registry::new(config.cdi_spec_dirs.clone());
    let node = Node {
        config,
        host,
        facts,
        store,
        tasks,
        operations,
        hands,
        images,
        instance,
        undone,
        cdi,
        happened,
    };
    let default = node.cgroups_path("", "default");
    default.map_err(|err| Error::Unsupported(format!("cgroup.parent: {err}")))?;
    Ok(Pods::new(Arc::new(node), networks))
}

fn make_directories(config: &Config) -> Result<()> {
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    let (root, state) = (&config.root, &config.state);
    for dir in [
        root,
        &root.join("db"),
        &root.join("images"),
        state,
        &state.join("pods"),
        &state.join("runtime"),
    ] {
        private.create(dir).map_err(Error::io("create", dir))?;
    }
    Ok(())
}

/// A second daemon on the same state is kept out for as long as the file is open. One that was killed just now
/// may leave it to a child that has not reached its exec yet, so there is a moment's patience.
async fn lock(root: &Path) -> Result<std::fs::File> {
    let path = root.join("lock");
    let file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
    let start = std::time::Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if start.elapsed() > LOCK_PATIENCE {
            return Err(Error::Unavailable(format!(
                "another podwrightd works on {}: it holds {}",
                root.display(),
                path.display()
            )));
        }
        tokio::time::sleep(LOCK_PATIENCE / 20).await;
    }
    Ok(file)
}

/// Makes the state directory a private mount of itself, once: what is mounted below it in a mount namespace of
/// a container's never reaches the host's.
fn keep_mounts_private(state: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::io("read", Path::new("/proc/self/mountinfo")))?;
    let path = state.to_string_lossy();
    if !mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*path)) {
        mount_bind(state, state).map_err(Error::io("bind mount", state))?;
    }
    mount_change(state, MountPropagationFlags::PRIVATE)
        .map_err(Error::io("make a private mount of", state))
}

fn listen(socket: &Path) -> Result<UnixListener> {
    // We hold the lock: a socket that is there is a dead daemon's.
    std::fs::remove_file(socket).ok();
    let listener = UnixListener::bind(socket).map_err(Error::io("listen on", socket))?;
    let only_root = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(socket, only_root).map_err(Error::io("restrict", socket))?;
    Ok(listener)
}

/// Reads the network configuration again whenever its directory changes.
fn watch_networks(pods: &Arc<Pods>) {
    let dir = pods.node.config.network.conf_dir.clone();
    let mut watcher = match cni::Watcher::new(&dir).map(sys::watcher) {
        Ok(Ok(watcher)) => watcher,
        Ok(Err(err)) => return tracing::error!(%err, dir = %dir.display(), "cannot watch"),
        Err(err) => return tracing::error!(%err, dir = %dir.display(), "cannot watch"),
    };
    let pods = pods.clone();
    pods.node.tasks.clone().spawn(tracing::info_span!("networks"), async move {
        while let Ok(mut changed) = watcher.readable_mut().await {
            changed.clear_ready();
            let reload = changed.get_inner_mut().drain();
            match reload {
                Ok(false) => {}
                Ok(true) => {
                    let pods = pods.clone();
                    let load = move || {
                        pods.networks.reload();
                        Ok(())
                    };
                    crate::telemetry::blocking(load).await.ok();
                }
                Err(err) => return tracing::error!(%err, "the network configuration is not watched any more"),
            }
        }
    });
}

/// Imports what lies in the import directory, and from now on what appears there.
fn watch_imports(pods: &Arc<Pods>) {
    let dir = pods.node.config.import_dir.clone();
    let mut drop_in = image::DropIn::open(pods.node.images.clone(), dir.clone());
    let watcher = cni::Watcher::new(&dir).map(sys::watcher);
    pods.node.tasks.spawn(tracing::info_span!("imports"), async move {
        drop_in.look().await;
        let mut watcher = match watcher {
            Ok(Ok(watcher)) => watcher,
            Ok(Err(err)) => return tracing::error!(%err, dir = %dir.display(), "cannot watch"),
            Err(err) => return tracing::error!(%err, dir = %dir.display(), "cannot watch"),
        };
        while let Ok(mut changed) = watcher.readable_mut().await {
            changed.clear_ready();
            match changed.get_inner_mut().drain() {
                Ok(false) => {}
                Ok(true) => drop_in.look().await,
                Err(err) => return tracing::error!(%err, "imports are not watched any more"),
            }
        }
    });
}

/// Tells of operations that take long. Asleep while there is none.
fn watch_slow(pods: &Arc<Pods>) {
    let (node, span) = (pods.node.clone(), tracing::info_span!("slow"));
    pods.node.tasks.spawn(span, async move {
        node.operations.watch_slow(node.config.slow_operation).await;
    });
}

/// The first pod need not wait for AppArmor's parser.
fn load_profile(pods: &Arc<Pods>) {
    let pods = pods.clone();
    pods.node.tasks.clone().spawn(tracing::info_span!("apparmor"), async move {
        let load = move || {
            if let Some(Err(err)) = pods.node.host.apparmor.as_ref().map(AppArmor::load_default) {
                tracing::error!(%err, "containers run without an AppArmor profile unless they name one");
            }
            Ok(())
        };
        crate::telemetry::blocking(load).await.ok();
    });
}

async fn wait_for_end() -> Result<()> {
    let io = |err| Error::io("handle signals of", Path::new("this process"))(err);
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let io = |err| Error::io("handle signals of", Path::new("this process"))(err);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
