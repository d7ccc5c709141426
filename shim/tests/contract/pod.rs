//! A pod under test: a shim, a connection to it, and the leak check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shim::client::{self, Client, CreateTask, Exec, Options, Podwright, Stdio};
use shim::launch::{self, Bootstrap, Shim};
use snapshotter::mount::{Kind, Mount};
use tokio::task::JoinSet;

use crate::bundle::Spec;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    pub(crate) client: Client,
    pub(crate) bootstrap: Bootstrap,
    drivers: JoinSet<()>,
    mounts: BTreeSet<String>,
}

/// The one that `./dev` unpacked, where it did; else the one on PATH.
pub(crate) fn runtime() -> PathBuf {
    if let Some(named) = std::env::var_os("PODWRIGHT_TEST_RUNTIME") {
        return named.into();
    }
    let unpacked =
        std::env::var_os("PODWRIGHT_TOOLS").map(|tools| Path::new(&tools).join("bin/runc"));
    unpacked.filter(|runc| runc.exists()).unwrap_or_else(|| "runc".into())
}

pub(crate) fn binary() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_podwright-shim").into();
    std::env::var_os("PODWRIGHT_SHIM").map_or(built, PathBuf::from)
}

/// Mounts of the host, without what other programs' tests may be doing meanwhile.
fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    let ours = table.lines().filter(|line| line.contains("podwright-shim-test"));
    ours.map(str::to_owned).collect()
}

impl Pod {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With a socket to which events go.
    pub(crate) async fn start_with(events: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        // The last letter keeps one id from being the beginning of another.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("pwt{}-{number}e", std::process::id());
        let dir = PathBuf::from(format!("/run/podwright-shim-test/{id}"));
        for sub in ["shim", "runtime", "logs"] {
            fs::create_dir_all(dir.join(sub)).expect("directories");
        }
        let mounts = mounts();
        let binary = binary();
        let launch = Shim { events, ..shim(&id, &dir, &binary) };
        let bootstrap = launch::start(&launch, &Options::None, LIMIT).await.expect("a shim");
        let (client, driver) =
            client::connect(&bootstrap.address, LIMIT).await.expect("a connection");
        let mut drivers = JoinSet::new();
        drivers.spawn(driver);
        Self { id, dir, client, bootstrap, drivers, mounts }
    }

    /// A second connection, as after a restart of the daemon.
    pub(crate) async fn reconnect(&mut self) {
        self.drivers.shutdown().await;
        let (client, driver) =
            client::connect(&self.bootstrap.address, LIMIT).await.expect("a connection");
        self.client = client;
        self.drivers.spawn(driver);
    }

    pub(crate) fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    pub(crate) fn bundle(&self, name: &str) -> PathBuf {
        self.dir.join("ctr").join(name)
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).expect("a log")
    }

    /// Writes a bundle and says how to create it.
    pub(crate) fn prepare(&self, name: &str, spec: &Spec) -> CreateTask {
        let bundle = self.bundle(name);
        for sub in ["rootfs", "upper", "work"] {
            fs::create_dir_all(bundle.join(sub)).expect("directories");
        }
        let id = self.container(name);
        fs::write(bundle.join("config.json"), spec.json(&id)).expect("config.json");
        let rootfs = vec![Mount {
            kind: Kind::Overlay,
            source: "overlay".into(),
            layers: vec![crate::bundle::rootfs().to_owned()],
            upper: Some(bundle.join("upper")),
            work: Some(bundle.join("work")),
            options: Vec::new(),
            read_only: false,
        }];
        let options = Options::Podwright(Podwright {
            runtime: runtime(),
            runtime_root: Some(self.dir.join("runtime")),
            log_path: Some(self.log_path(name)),
            exit_path: Some(bundle.join("exit.json")),
            stdin: spec.stdin,
            ..Podwright::default()
        });
        let stdio = Stdio { terminal: spec.terminal, ..Stdio::default() };
        CreateTask { id, bundle, rootfs, stdio, options }
    }

    /// Creates and starts a container.
    pub(crate) async fn run(&self, name: &str, spec: &Spec) -> u32 {
        let pid = self.client.create(self.prepare(name, spec), LIMIT).await.expect("created");
        let id = self.container(name);
        assert_eq!(self.client.start(&id, "", LIMIT).await.expect("started"), pid);
        pid
    }

    /// Waits for a container's end and removes it; its exit status.
    pub(crate) async fn finish(&self, name: &str) -> u32 {
        let id = self.container(name);
        let exit = tokio::time::timeout(LIMIT, self.client.wait(&id, "")).await;
        let exit = exit.expect("in time").expect("an exit");
        let deleted = self.client.delete(&id, "", LIMIT).await.expect("deleted");
        assert_eq!(exit, deleted);
        exit.status
    }

    /// Kills a container and removes it.
    pub(crate) async fn remove(&self, name: &str) -> u32 {
        self.client.kill(&self.container(name), "", 9, true, LIMIT).await.expect("killed");
        self.finish(name).await
    }

    pub(crate) fn exec(&self, name: &str, exec_id: &str, args: &[&str]) -> Exec {
        Exec {
            id: self.container(name),
            exec_id: exec_id.into(),
            process: Spec::new(args).process().to_string().into_bytes(),
            stdio: Stdio::default(),
        }
    }

    /// Ends the pod and checks that nothing of it is left.
    pub(crate) async fn end(mut self) {
        self.client.shutdown_sandbox(&self.id, LIMIT).await.expect("a shutdown");
        self.drivers.shutdown().await;
        self.check_leaks();
    }

    pub(crate) fn check_leaks(&self) {
        eventually("no process is left", || processes(&self.id).is_empty());
        assert_eq!(mounts(), self.mounts, "mounts are left");
        let cgroups = cgroups(&self.id);
        assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
        let state: Vec<_> = fs::read_dir(self.dir.join("runtime")).expect("a root").collect();
        assert!(state.is_empty(), "runtime state is left: {state:?}");
        fs::remove_dir_all(&self.dir).expect("removed");
    }
}

/// How to call a shim's commands.
pub(crate) fn shim<'a>(id: &'a str, dir: &Path, binary: &'a Path) -> Shim<'a> {
    // Leaked: a test's worth of paths.
    let bundle: &'a Path = Box::leak(dir.join("shim").into_boxed_path());
    Shim {
        binary,
        id,
        bundle,
        address: "",
        events: "",
        publish_binary: Path::new(""),
        debug: false,
    }
}

/// Processes whose command line, root or working directory names the pod.
pub(crate) fn processes(id: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ours = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == ours || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if line.contains(id) || group.contains(id) {
            found.push(format!("{name} {line}"));
        }
    }
    found
}

/// The file system types of cgroups, v1 and v2.
const CGROUPS: [rustix::fs::FsWord; 2] = [0x0027_e0eb, 0x6367_7270];

/// Cgroups named after the pod's containers, in any hierarchy.
fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path()));
    let entries = roots.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(id)))
        // On a host made to look non-hybrid, crun makes plain directories where cgroup2 was.
        .filter(|path| rustix::fs::statfs(path).is_ok_and(|fs| CGROUPS.contains(&fs.f_type)))
        .collect()
}

/// Polls until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT * 2;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
