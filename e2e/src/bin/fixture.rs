//! Processes that a world needs and no package has: its pid 1, loops that are timed inside it, and a CNI plugin that
//! keeps a ledger.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio, exit};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::bench::veth::Netlink;
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    let name = arguments.remove(0);
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["init", script] => init(script),
        [] if name.ends_with("/ledger") => ledger(),
        ["hang", dir] => e2e::hang::serve(Path::new(dir)),
        ["disk", mountpoint, base, log] => {
            e2e::disk::serve(mountpoint.as_ref(), base.as_ref(), log.as_ref()).map_err(Into::into)
        }
        ["layers", dir] => e2e::disk::tell_layers(Path::new(dir)),
        ["runtime", how, runtime, bundle, rounds, pause] => {
            Runtime::new(how, runtime, bundle, pause).and_then(|it| it.time_start(rounds))
        }
        ["exec", how, runtime, bundle, rounds, pause] => {
            Runtime::new(how, runtime, bundle, pause).and_then(|it| it.time_exec(rounds))
        }
        ["plugins", dir, conflist, rounds] => time_plugins(Path::new(dir), conflist, rounds),
        ["veth", rounds] => time_veth(rounds),
        ["overlay", dir, rounds] => time_overlay(Path::new(dir), rounds),
        _ => {
            let usage = "init SCRIPT | hang DIR | disk MOUNTPOINT BASE LOG | layers DIR | \
                         runtime plain|eased PROGRAM BUNDLE N PAUSE | exec plain|eased PROGRAM BUNDLE N PAUSE | \
                         plugins DIR CONFLIST N | veth N | overlay DIR N";
            Err(anyhow::anyhow!(usage))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("fixture: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Pid 1 of a world: prepares it, says `ready`, reaps, and leaves when its standard input closes.
fn init(script: &str) -> anyhow::Result<()> {
    let prepared = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).status()?;
    if !prepared.success() {
        bail!("{script}: {prepared}");
    }
    // One child that never ends, so that waiting for any child always blocks.
    Command::new("/bin/busybox").args(["sleep", "2147483647"]).spawn()?;
    writeln!(std::io::stdout(), "ready")?;
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        exit(0);
    });
    loop {
        rustix::process::wait(rustix::process::WaitOptions::empty())?;
    }
}

/// As the last plugin of a chain: writes down `VERB CONTAINERID` where its configuration says, and passes on what the
/// plugins before it made.
fn ledger() -> anyhow::Result<()> {
    let config: Value = serde_json::from_reader(std::io::stdin())?;
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let verb = variable("CNI_COMMAND");
    let path = config["ledger"].as_str().context("the configuration names a ledger")?;
    let mut ledger = std::fs::File::options().create(true).append(true).open(path)?;
    ledger.write_all(format!("{verb} {}\n", variable("CNI_CONTAINERID")).as_bytes())?;
    match verb.as_str() {
        "ADD" => println!("{}", config["prevResult"]),
        "VERSION" => println!("{}", json!({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]})),
        _ => {}
    }
    Ok(())
}

/// An OCI runtime on a prepared bundle, its calls so many milliseconds apart.
struct Runtime {
    program: PathBuf,
    root: String,
    bundle: String,
    pause: Duration,
    /// Spared what can be done for it: executed from a read-only mount it need not guard its file, and the wait for
    /// the kernel that comes after a pause begins with the call, not once it gets there.
    eased: bool,
}

impl Runtime {
    fn new(how: &str, program: &str, bundle: &str, pause: &str) -> anyhow::Result<Self> {
        let eased = match how {
            "plain" => false,
            "eased" => true,
            _ => bail!("{how}: neither plain nor eased"),
        };
        let program = if eased { read_only(program, bundle)? } else { program.into() };
        let pause = Duration::from_millis(pause.parse()?);
        Ok(Self { program, root: format!("{bundle}/runtime"), bundle: bundle.into(), pause, eased })
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["--root", &self.root]).args(arguments);
        run(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// Prints the microseconds of what comes after a pause.
    fn time(&self, what: &str, calls: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        std::thread::sleep(self.pause);
        let start = Instant::now();
        std::thread::scope(|scope| {
            if self.eased && !self.pause.is_zero() {
                scope.spawn(move_nowhere);
            }
            calls()?;
            println!("{what} {}", start.elapsed().as_micros());
            Ok(())
        })
    }

    /// Of each create and start, and at last the processor's of all.
    fn time_start(&self, rounds: &str) -> anyhow::Result<()> {
        for round in 0..rounds.parse()? {
            let id = format!("round-{round}");
            self.time("up", || {
                self.call(&["create", "--bundle", &self.bundle, &id])?;
                self.call(&["start", &id])
            })?;
            self.call(&["delete", "--force", &id])?;
        }
        tell_processor()?;
        self.end()
    }

    /// Of each exec in one container, and at last the processor's of all.
    fn time_exec(&self, rounds: &str) -> anyhow::Result<()> {
        self.call(&["create", "--bundle", &self.bundle, "exec"])?;
        self.call(&["start", "exec"])?;
        let before = processor()?;
        for _ in 0..rounds.parse()? {
            self.time("exec", || self.call(&["exec", "exec", "/bin/busybox", "true"]))?;
        }
        println!("cpu {}", processor()? - before);
        self.call(&["delete", "--force", "exec"])?;
        self.end()
    }

    fn end(&self) -> anyhow::Result<()> {
        if self.eased {
            rustix::mount::unmount(&self.program, rustix::mount::UnmountFlags::DETACH)?;
        }
        Ok(())
    }
}

/// The program where nobody can write to it.
fn read_only(program: &str, bundle: &str) -> anyhow::Result<PathBuf> {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    let name = Path::new(program).file_name().context("a program has a name")?;
    let path = Path::new(bundle).join(name);
    std::fs::write(&path, "")?;
    mount_bind(program, &path)?;
    mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY, c"")?;
    Ok(path)
}

/// Moves this process to the cgroup that it is in, of whichever hierarchy lets it: the kernel then gets ready for the
/// next move.
fn move_nowhere() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let pid = std::process::id().to_string();
    let _ = own.lines().any(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(hierarchy), Some(path)) = (parts.next(), parts.next()) else { return false };
        let hierarchy = hierarchy.strip_prefix("name=").unwrap_or(hierarchy);
        let file = format!("/sys/fs/cgroup/{hierarchy}{path}/cgroup.procs");
        std::fs::write(file, &pid).is_ok()
    });
}

/// Prints the microseconds of each ADD and DEL of the chain on a fresh namespace.
fn time_plugins(dir: &Path, conflist: &str, rounds: &str) -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(conflist)?;
    let chain = list["plugins"].as_array().context("a chain of plugins")?;
    for round in 0..rounds.parse()? {
        let name = format!("round-{round}");
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let call = |verb: &str, plugin: &Value, previous: &Value| {
            plugin_call(dir, verb, &list, plugin, previous, &name)
        };
        let start = Instant::now();
        let loopback = json!({"type": "loopback"});
        call("ADD", &loopback, &Value::Null)?;
        let mut result = Value::Null;
        for plugin in chain {
            result = call("ADD", plugin, &result)?;
        }
        println!("add {}", start.elapsed().as_micros());
        let start = Instant::now();
        for plugin in chain.iter().rev() {
            call("DEL", plugin, &result)?;
        }
        println!("del {}", start.elapsed().as_micros());
        run(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    tell_processor()
}

fn plugin_call(
    dir: &Path,
    verb: &str,
    list: &Value,
    plugin: &Value,
    previous: &Value,
    name: &str,
) -> anyhow::Result<Value> {
    let mut config = plugin.clone();
    config["name"] = list["name"].clone();
    config["cniVersion"] = list["cniVersion"].clone();
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    let kind = plugin["type"].as_str().context("a plugin has a type")?;
    let mut child = Command::new(dir.join(kind))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", format!("/run/netns/{name}"))
        .env("CNI_IFNAME", if kind == "loopback" { "lo" } else { "eth0" })
        .env("CNI_PATH", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{verb} {kind}: {text}");
    }
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Prints the microseconds of each network namespace with a link to a bridge, an address and a route. All of them go
/// in the end: while the kernel takes one down, it keeps others from being made.
fn time_veth(rounds: &str) -> anyhow::Result<()> {
    let host = Netlink::open()?;
    let bridge = host.bridge("floor0")?;
    let (own, gateway) = ((Ipv4Addr::new(10, 99, 0, 2), 16), Ipv4Addr::new(10, 99, 0, 1));
    let before = processor_of_own()?;
    let rounds: u32 = rounds.parse()?;
    let names: Vec<_> = (0..rounds).map(|round| format!("floor-{round}")).collect();
    let path = |name: &str| Path::new("/run/netns").join(name);
    for name in &names {
        let start = Instant::now();
        cni::netns::create(&path(name))?;
        let namespace = std::fs::File::open(path(name))?;
        host.pair(name, bridge, "eth0", namespace.as_fd())?;
        let inside = || Netlink::open()?.configure("eth0", own, gateway);
        cni::netns::run_in(&path(name), inside)??;
        println!("up {}", start.elapsed().as_micros());
    }
    println!("cpu {}", processor_of_own()? - before);
    for name in &names {
        host.delete(name)?;
        cni::netns::remove(&path(name))?;
    }
    host.delete("floor0").map_err(Into::into)
}

/// Prints the microseconds of each mount of an overlay of eight layers.
fn time_overlay(dir: &Path, rounds: &str) -> anyhow::Result<()> {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let layers: Vec<_> = (0..8).map(|layer| dir.join(layer.to_string())).collect();
    let [upper, work, target] = ["upper", "work", "target"].map(|name| dir.join(name));
    for path in layers.iter().chain([&upper, &work, &target]) {
        std::fs::create_dir_all(path)?;
    }
    let lower: Vec<_> = layers.iter().map(|path| path.display().to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CString::new(options)?;
    for _ in 0..rounds.parse()? {
        let start = Instant::now();
        mount("overlay", &target, "overlay", MountFlags::empty(), options.as_c_str())?;
        println!("up {}", start.elapsed().as_micros());
        unmount(&target, UnmountFlags::empty())?;
    }
    tell_processor()
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

fn tell_processor() -> anyhow::Result<()> {
    println!("cpu {}", processor()?);
    Ok(())
}

/// Of this process's children, in the microseconds that the kernel's ticks allow.
fn processor() -> anyhow::Result<u64> {
    ticks([13, 14])
}

/// Of this process itself.
fn processor_of_own() -> anyhow::Result<u64> {
    ticks([11, 12])
}

fn ticks(fields: [usize; 2]) -> anyhow::Result<u64> {
    const TICK_MICROS: u64 = 10_000;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let all: Vec<&str> =
        stat.rsplit_once(") ").context("a stat line")?.1.split_whitespace().collect();
    let [user, system] = fields.map(|at| all[at].parse::<u64>());
    Ok((user? + system?) * TICK_MICROS)
}
