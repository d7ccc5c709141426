//! Processes that a world needs and no package has: its pid 1, loops that are timed inside it, and a CNI plugin that
//! keeps a ledger.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio, exit};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
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
        ["runtime", runtime, bundle, rounds] => time_runtime(runtime, bundle, rounds, "0"),
        ["runtime", runtime, bundle, rounds, pause] => time_runtime(runtime, bundle, rounds, pause),
        ["exec", runtime, bundle, rounds] => time_exec(runtime, bundle, rounds, "0"),
        ["exec", runtime, bundle, rounds, pause] => time_exec(runtime, bundle, rounds, pause),
        ["plugins", dir, conflist, rounds] => time_plugins(Path::new(dir), conflist, rounds),
        ["veth", rounds] => time_veth(rounds),
        ["overlay", dir, rounds] => time_overlay(Path::new(dir), rounds),
        _ => {
            let usage = "init SCRIPT | hang DIR | disk MOUNTPOINT BASE LOG | layers DIR | runtime PROGRAM BUNDLE N [PAUSE] | \
                         exec PROGRAM BUNDLE N [PAUSE] | plugins DIR CONFLIST N | veth N | overlay DIR N";
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

/// Prints the microseconds of each create and start, so many milliseconds apart, and at last the processor's of all.
fn time_runtime(runtime: &str, bundle: &str, rounds: &str, pause: &str) -> anyhow::Result<()> {
    let pause = Duration::from_millis(pause.parse()?);
    let root = format!("{bundle}/runtime");
    for round in 0..rounds.parse()? {
        let id = format!("round-{round}");
        let call = |verb: &str, rest: &[&str]| {
            let mut command = Command::new(runtime);
            command.args(["--root", &root, verb]).args(rest).arg(&id);
            run(command.stdin(Stdio::null()).stdout(Stdio::null()))
        };
        std::thread::sleep(pause);
        let start = Instant::now();
        call("create", &["--bundle", bundle])?;
        call("start", &[])?;
        println!("up {}", start.elapsed().as_micros());
        call("delete", &["--force"])?;
    }
    tell_processor()
}

/// Prints the microseconds of each exec in one container, so apart, and at last the processor's of all.
fn time_exec(runtime: &str, bundle: &str, rounds: &str, pause: &str) -> anyhow::Result<()> {
    let pause = Duration::from_millis(pause.parse()?);
    let root = format!("{bundle}/runtime");
    let call = |arguments: &[&str]| {
        let mut command = Command::new(runtime);
        command.args(["--root", &root]).args(arguments);
        run(command.stdin(Stdio::null()).stdout(Stdio::null()))
    };
    call(&["create", "--bundle", bundle, "exec"])?;
    call(&["start", "exec"])?;
    let before = processor()?;
    for _ in 0..rounds.parse()? {
        std::thread::sleep(pause);
        let start = Instant::now();
        call(&["exec", "exec", "/bin/busybox", "true"])?;
        println!("exec {}", start.elapsed().as_micros());
    }
    println!("cpu {}", processor()? - before);
    call(&["delete", "--force", "exec"])
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

/// Prints the microseconds of each network namespace with a link to a bridge, a route and an address.
fn time_veth(rounds: &str) -> anyhow::Result<()> {
    batch(&[], "link add floor0 type bridge\nlink set floor0 up\n")?;
    for round in 0..rounds.parse()? {
        let name = format!("round-{round}");
        let outside = format!(
            "netns add {name}\nlink add floor-{round} type veth peer name eth0 netns {name}\n\
             link set floor-{round} master floor0 up\n"
        );
        let inside = "link set lo up\naddr add 10.99.0.2/16 dev eth0\nlink set eth0 up\n\
                      route add default via 10.99.0.1\n";
        let start = Instant::now();
        batch(&[], &outside)?;
        batch(&["-n", &name], inside)?;
        println!("up {}", start.elapsed().as_micros());
        batch(&[], &format!("link del floor-{round}\nnetns delete {name}\n"))?;
    }
    batch(&[], "link del floor0\n")?;
    tell_processor()
}

/// One `ip` with many commands.
fn batch(options: &[&str], lines: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(options).args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("stdin is piped")?.write_all(lines.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("ip: {status}: {lines}");
    }
    Ok(())
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
    const TICK_MICROS: u64 = 10_000;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(") ").context("a stat line")?.1.split_whitespace().collect();
    let ticks: u64 = fields[13].parse::<u64>()? + fields[14].parse::<u64>()?;
    Ok(ticks * TICK_MICROS)
}
