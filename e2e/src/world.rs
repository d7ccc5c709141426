//! One daemon with all that it needs, in namespaces of its own.
//!
//! On systemd's cgroup driver that is no pid namespace, see [`crate::cgroup`].

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::cgroup::{self, Driver, Home};
use crate::client::Client;
use crate::daemon::{self, Daemon};
use crate::failpoint::Failpoints;
use crate::image::catalogue;
use crate::leak::Held;
use crate::place::{self, Tools};
use crate::poll::eventually;
use crate::registry::Storage;

/// What differs between worlds.
#[derive(Debug, Clone)]
pub struct Options {
    /// The default handler: `crun` or `runc`.
    pub runtime: &'static str,
    /// TOML that is read after the harness's own settings.
    pub config: String,
    /// The network's conflist; `None` for the bridge with host-local and portmap.
    pub conflist: Option<String>,
    /// Use the host's network, to reach registries outside.
    pub host_network: bool,
    /// Run the daemon that has failpoints.
    pub failpoints: bool,
    /// Whether the kernel's AppArmor and SELinux are in sight. What is loaded into them is everybody's, so they are
    /// where the machine belongs to the tests, see [`World::owns_machine`], and nowhere else.
    pub security_modules: bool,
    /// Who makes containers' cgroups.
    pub driver: Driver,
    /// The daemon's, beside the test's own.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            runtime: "crun",
            config: String::new(),
            conflist: None,
            host_network: false,
            failpoints: false,
            security_modules: World::owns_machine(),
            driver: Driver::of_tests(),
            environment: Vec::new(),
        }
    }
}

/// Ends with its value: every process in it is killed, every mount and network goes.
#[derive(Debug)]
pub struct World {
    pub client: Client,
    pub(crate) dir: TempDir,
    pub(crate) tools: Tools,
    pub(crate) options: Options,
    pub(crate) cgroup: String,
    /// `None`: a pid namespace holds them.
    pub(crate) home: Option<Home>,
    pub(crate) daemon: Option<Daemon>,
    registry: Option<Child>,
    /// As the host numbers it.
    init: u32,
    unshare: Child,
    /// Pid 1 leaves when this closes.
    _leash: ChildStdin,
    before: Option<Held>,
    /// Where the daemon and the shim under test are; `None`: this build's.
    pub(crate) binaries: Option<PathBuf>,
}

impl World {
    /// Whether the kernel belongs to the tests, as `./dev vm-test` says.
    pub fn owns_machine() -> bool {
        std::env::var_os("PODWRIGHT_OWN_MACHINE").is_some()
    }

    /// A world with a registry and a daemon that answers.
    pub fn start(options: Options) -> Self {
        let mut world = Self::without_daemon(options);
        world.begin();
        world
    }

    /// A registry, a daemon that answers, and what is held from the start.
    pub fn begin(&mut self) {
        self.start_registry();
        self.start_daemon();
        self.settle();
    }

    /// Namespaces, directories and configuration alone.
    pub fn without_daemon(options: Options) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this needs root: sudo ./dev test");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        SWEPT.call_once(sweep);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}-{number}-", std::process::id()))
            .tempdir_in(place::scratch())
            .expect("scratch can be written");
        let cgroup = options.driver.parent(number);
        let home = Home::of(options.driver, number);
        let (mut unshare, init) = enter_new_namespaces(&options, home.as_ref());
        let world = Self {
            client: Client::new(&seen_from_host(init, &dir.path().join(SOCKET))),
            tools: Tools::find(),
            cgroup,
            home,
            daemon: None,
            registry: None,
            init,
            _leash: unshare.stdin.take().expect("stdin is piped"),
            unshare,
            before: None,
            binaries: None,
            options,
            dir,
        };
        daemon::configure(&world);
        world
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A file of the world as the test's own namespaces reach it.
    pub fn seen(&self, path: impl AsRef<Path>) -> PathBuf {
        seen_from_host(self.init, path.as_ref())
    }

    pub fn read(&self, path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.seen(path)).unwrap_or_default()
    }

    /// Relative to each hierarchy's root.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The name of the default handler.
    pub fn runtime(&self) -> &'static str {
        self.options.runtime
    }

    pub fn init(&self) -> u32 {
        self.init
    }

    pub fn tool(&self, name: &str) -> PathBuf {
        self.tools.program(name)
    }

    pub fn cni_plugins(&self) -> PathBuf {
        self.tools.cni()
    }

    pub fn ctr(&self) -> Option<PathBuf> {
        self.tools.ctr()
    }

    pub fn kubectls(&self) -> Vec<PathBuf> {
        self.tools.kubectls()
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let (mut command, pid) = match &self.home {
            None => (Command::new("nsenter"), Some("--pid")),
            Some(home) => (home.command("nsenter"), None),
        };
        command.arg(format!("--target={}", self.init)).args(["--mount", "--net"]);
        command.args(pid).arg("--").arg(program);
        command
    }

    /// Connects to an address of the world's own network.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.in_network(move || TcpStream::connect(to))
    }

    /// Listens at an address of the world's own network.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        self.in_network(move || TcpListener::bind(at))
    }

    fn in_network<T: Send + 'static>(
        &self,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.init))?;
        let inside = move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), kind)?;
            open()
        };
        std::thread::spawn(inside).join().expect("opening a socket does not panic")
    }

    /// Runs a shell line inside; panics where it fails.
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
        out
    }

    pub fn try_sh(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().expect("nsenter is installed")
    }

    /// The registry serves what [`catalogue::storage`] holds, also what is put there later.
    pub fn start_registry(&mut self) {
        self.start_registry_of(catalogue::storage());
    }

    /// The registry serves another storage.
    pub fn start_registry_of(&mut self, storage: &Storage) {
        let config = self.path("registry.yml");
        std::fs::write(&config, storage.configuration()).expect("the world's directory");
        let log = std::fs::File::create(self.path("registry.log")).expect("the world's directory");
        let registry = self
            .command(self.tool("docker-registry"))
            .arg("serve")
            .arg(config)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("nsenter is installed");
        self.registry = Some(registry);
        eventually("the registry to listen", || self.listens(5000).then_some(()));
    }

    pub fn has_registry(&self) -> bool {
        self.registry.is_some()
    }

    /// Whether anything in the world's own network listens on this TCP port.
    pub fn listens(&self, port: u16) -> bool {
        let port = format!(":{port:04X} ");
        ["tcp", "tcp6"].iter().any(|table| {
            std::fs::read_to_string(format!("/proc/{}/net/{table}", self.init))
                .unwrap_or_default()
                .lines()
                .any(|line| line.contains(" 0A ") && line.contains(&port))
        })
    }

    /// The next daemon gets this in its environment, too.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.options.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The next daemon, and its shims, are those in `dir`.
    pub fn use_binaries(&mut self, dir: &Path) {
        self.binaries = Some(dir.to_owned());
        daemon::configure(self);
    }

    /// Where `use_binaries` said that they are.
    pub fn binaries(&self) -> &Path {
        self.binaries.as_deref().expect("a world with binaries of its own")
    }

    pub(crate) fn shim(&self) -> PathBuf {
        self.binaries.as_ref().map_or_else(place::shim, |dir| dir.join("podwright-shim"))
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        let answers = self.try_start_daemon();
        assert!(answers, "the daemon ended:\n{}", self.read(self.path("daemon.log")));
    }

    /// Starts the daemon and waits until it answers; false if it ended before.
    pub fn try_start_daemon(&mut self) -> bool {
        self.spawn_daemon();
        self.daemon_answers()
    }

    /// Starts the daemon, which may not answer yet.
    pub fn spawn_daemon(&mut self) {
        self.daemon = Some(Daemon::spawn(self));
    }

    /// Waits until the daemon answers; false if there is none, or it ends before.
    pub fn daemon_answers(&mut self) -> bool {
        eventually("the daemon to answer or to end", || {
            if !self.daemon.as_mut().is_some_and(Daemon::runs) {
                return Some(false);
            }
            self.client.version(crate::cri::VersionRequest::default()).ok().map(|_| true)
        })
    }

    /// The points at which the daemon can be made to die or fail, if it is the one with failpoints.
    pub fn failpoints(&self) -> Failpoints {
        Failpoints::of(self)
    }

    /// Ends the daemon with a signal and waits until it is gone.
    pub fn end_daemon(&mut self, signal: rustix::process::Signal) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end(signal);
        }
    }

    /// The daemon's pid, as the host numbers it.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Fails where the world holds anything that it did not hold at the start.
    pub fn finish(self) {
        let more = self.residue();
        assert!(more.is_empty(), "left behind:\n{}", more.join("\n"));
    }

    /// What it holds, after a while for the kernel and the daemon to finish, that it did not hold at the start.
    pub fn residue(&self) -> Vec<String> {
        let before = self.before.as_ref().expect("the world had a daemon");
        before.more(self)
    }

    /// The node loses its power and boots again: every process ends, what lay in memory is gone, and the boot has
    /// another id. Nothing runs afterwards; disks are mounted by whoever had mounted them.
    pub fn reboot(&mut self) {
        self.halt();
        std::fs::remove_dir_all(self.path("state")).expect("the world's directory");
        std::fs::create_dir(self.path("state")).expect("the world's directory");
        std::fs::write(self.path("daemon.log"), "").expect("the world's directory");
        let (mut unshare, init) = enter_new_namespaces(&self.options, self.home.as_ref());
        self._leash = unshare.stdin.take().expect("stdin is piped");
        (self.unshare, self.init) = (unshare, init);
        self.client = Client::new(&self.seen(self.path(SOCKET)));
        let id = self.path("boot_id");
        self.sh(&format!(
            "cat /proc/sys/kernel/random/uuid >{0} && mount --bind {0} /proc/sys/kernel/random/boot_id",
            id.display()
        ));
    }

    /// Ends all that runs in it.
    fn halt(&mut self) {
        kill(self.init);
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        if let Some(home) = &self.home {
            home.end();
        }
        if let Some(mut registry) = self.registry.take() {
            let _ = registry.wait();
        }
        drop(self.daemon.take());
        cgroup::remove_all(self.options.driver, &self.cgroup);
    }

    /// What it holds now counts as held from the start.
    pub fn settle(&mut self) {
        self.before = Some(Held::now(self));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.read(self.path("daemon.log"));
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the daemon's log, its end");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.halt();
    }
}

/// The daemon's, in the world's directory.
const SOCKET: &str = "state/podwright.sock";

/// Removes what killed tests left: their processes ended with them, their directories and cgroups did not.
fn sweep() {
    std::fs::create_dir_all(place::scratch()).expect("scratch can be written");
    let gone = |name: &str| {
        let owner = name.trim_start_matches(cgroup::PREFIX).split('-').next().unwrap_or_default();
        owner.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    for entry in std::fs::read_dir(place::scratch()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(gone) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    for hierarchy in cgroup::roots("") {
        for entry in std::fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(cgroup::PREFIX) && gone(name)) {
                cgroup::remove_all(Driver::Cgroupfs, &name.to_string_lossy());
            }
        }
    }
}

/// Starts pid 1 of a new world; its pid is as the host numbers it.
fn enter_new_namespaces(options: &Options, home: Option<&Home>) -> (Child, u32) {
    // The kernel's cgroup2 beside v1 controllers makes crun refuse; here, and only here, it goes.
    let mut script = String::from(
        "mkdir -p /run/netns; mount -t tmpfs -o mode=755 podwright-e2e /run/netns\n\
         mount -t tmpfs -o mode=755 podwright-e2e /var/log\n\
         if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi\n",
    );
    // What containers may do is the same on every machine, and the host's policy gets no profile of ours. Nothing of
    // the sysfs itself is covered: users of their own could not mount one then.
    if !options.security_modules {
        script.push_str(
            "if test -e /sys/kernel/security; then mount -t tmpfs none /sys/kernel/security; fi\n\
             if mountpoint -q /sys/fs/selinux; then umount -l /sys/fs/selinux; fi\n",
        );
    }
    let mut command = home.map_or_else(|| Command::new("unshare"), |home| home.command("unshare"));
    command.args(["--mount", "--fork", "--kill-child"]);
    if home.is_none() {
        command.args(["--pid", "--mount-proc"]);
    }
    if !options.host_network {
        command.arg("--net");
        script.push_str("ip link set lo up\n");
    }
    let mut unshare = command
        .arg("--")
        .arg(place::binary("fixture"))
        .args(["init", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Ctrl-C is for the program that drives the world, which then ends it in order.
        .process_group(0)
        .spawn()
        .expect("unshare is installed");
    let mut line = String::new();
    let stdout = unshare.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
    assert_eq!(line, "ready\n", "a world could not be prepared");
    let init = child_of(unshare.id()).expect("unshare forked");
    (unshare, init)
}

/// The only child of a process.
pub(crate) fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.nth(1)?.parse::<u32>().ok()? == parent).then_some(pid)
    })
}

pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn seen_from_host(init: u32, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").expect("paths of a world are absolute");
    Path::new(&format!("/proc/{init}/root")).join(inside)
}

/// Every process of a world, by its directory in /proc.
pub(crate) fn processes(world: &World) -> Vec<PathBuf> {
    world.pids().into_iter().map(|pid| world.seen(format!("/proc/{pid}"))).collect()
}
