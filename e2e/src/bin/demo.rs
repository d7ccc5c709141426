//! `./dev run [IMAGE]`: a daemon on private directories and a pod of two containers on it, until Ctrl-C.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use e2e::cri::ListPodSandboxRequest;
use e2e::image::catalogue::{CLOCK, WEB};
use e2e::{Options, World, daemon, place};
use tokio::signal::unix::{SignalKind, signal};

/// The bridge of a demonstration on the host's network.
const BRIDGE: &str = "podwright-demo0";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// How long the pod's server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this makes namespaces, mounts and networks, which takes root");
        return ExitCode::FAILURE;
    }
    let image = std::env::args().nth(1);
    let interrupted = listen();
    match demonstrate(image.as_deref(), &interrupted) {
        Err(err) if !interrupted.load(Ordering::Relaxed) => {
            eprintln!("{err:#}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// True once the user wants to end it.
fn listen() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
            // Later ones are taken too, so that the clean-up is not cut off.
            std::future::pending::<std::io::Result<()>>().await
        })
    });
    interrupted
}

fn demonstrate(image: Option<&str>, interrupted: &AtomicBool) -> anyhow::Result<()> {
    say("starting a daemon of its own, on private directories");
    let forward = std::fs::read_to_string(FORWARD).unwrap_or_default();
    let world =
        if image.is_some() { on_the_hosts_network() } else { World::start(Options::default()) };
    let shown = show_pod(&world, image, interrupted);
    if shown.is_ok() {
        tell_how_to_look(&world);
        while !interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    println!();
    say("cleaning up");
    let _ = podwright(&world, &["rm", "--force", "demo"]);
    if image.is_some() {
        let _ = world.try_sh(&format!("ip link delete {BRIDGE}"));
        let _ = std::fs::write(FORWARD, forward);
    }
    shown
}

/// A registry outside can only be reached from the host's network. The bridge and its rules go at the end.
fn on_the_hosts_network() -> World {
    let options =
        Options { host_network: true, conflist: Some(String::new()), ..Default::default() };
    let mut world = World::without_daemon(options);
    let leases = world.path("cni/ipam").display().to_string();
    let conflist = daemon::bridge_of(BRIDGE, "10.222.0.0/16", &leases);
    std::fs::write(world.path("cni/conf/10-pods.conflist"), conflist)
        .expect("the world's directory");
    if !world.listens(5000) {
        world.start_registry();
    }
    world.start_daemon();
    world
}

fn show_pod(world: &World, image: Option<&str>, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let main = format!("web={}", image.unwrap_or(WEB));
    let clock = format!("clock={CLOCK}");
    say("a pod of two containers");
    let mut run = vec!["run", "--name", "demo", "--container", &main];
    if world.has_registry() {
        run.extend(["--container", &clock]);
    }
    podwright(world, &run)?;
    podwright(world, &["pods"])?;
    podwright(world, &["ps"])?;
    say("its address answers");
    let ip = address(world)?;
    ask(world, &ip, interrupted)?;
    if world.has_registry() {
        say("its logs, and a command in it");
        podwright(world, &["logs", "--tail", "3", "clock"])?;
    }
    podwright(world, &["exec", "web", "cat", "/proc/1/comm"])
}

fn address(world: &World) -> anyhow::Result<String> {
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default())?;
    let id = &list.items.first().context("the pod is gone")?.id;
    Ok(world.sandbox_status(id)?.network.unwrap_or_default().ip)
}

fn ask(world: &World, ip: &str, interrupted: &AtomicBool) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < ANSWER {
        for port in [80, 8080] {
            // Not wget: that of Debian 12's busybox-static crashes.
            let line = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {ip} {port}");
            let output = world.try_sh(&line);
            if !output.stdout.is_empty() {
                println!("$ {line}");
                let text = String::from_utf8_lossy(&output.stdout);
                text.lines().take(24).for_each(|line| println!("{line}"));
                return Ok(());
            }
        }
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!(
        "nothing answers at {ip} on port 80 or 8080, so this image serves elsewhere or not at all"
    );
    Ok(())
}

fn tell_how_to_look(world: &World) {
    let here = std::env::current_dir().unwrap_or_default();
    let podwright = place::binary("podwright");
    let podwright = podwright.strip_prefix(&here).unwrap_or(&podwright);
    say("it runs; Ctrl-C ends it and cleans up. From another terminal:");
    println!(
        "nsenter --target {} --mount --net --pid --wd={} {} --socket {} ps",
        world.init(),
        here.display(),
        Path::new(podwright).display(),
        socket(world).display(),
    );
}

fn socket(world: &World) -> std::path::PathBuf {
    world.path("state/podwright.sock")
}

/// Runs the command as a user would, and shows it.
fn podwright(world: &World, arguments: &[&str]) -> anyhow::Result<()> {
    println!("$ podwright {}", arguments.join(" "));
    let status = world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(socket(world))
        .args(arguments)
        .status()
        .context("nsenter")?;
    if !status.success() {
        let log = world.read(world.path("daemon.log"));
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!(
            "podwright {}: {status}; the daemon's log ends with\n{}",
            arguments[0],
            tail.join("\n")
        );
    }
    Ok(())
}

fn say(what: &str) {
    println!("\x1b[1m== {what}\x1b[0m");
}
