//! What no runtime does without: an OCI runtime's own calls, a network namespace with its link, an overlay. Each alone,
//! in the namespaces of a world without a daemon, and spared whatever a caller can spare it: a floor is what nobody is
//! below.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon;
use crate::image::catalogue::BUSYBOX;
use crate::measure::Samples;
use crate::place;
use crate::pod::container;
use crate::world::{Options, World};

/// After which the kernel waits again before it moves a process between cgroups.
pub(super) const PAUSE: Duration = Duration::from_millis(150);

/// What something took alone, and the processor's time for one.
#[derive(Debug)]
pub struct Alone {
    pub what: String,
    pub samples: Samples,
    pub cpu: Option<Duration>,
}

/// The same container without a pod: create and start, and exec, of the runtime's executable on a prepared bundle. It
/// is executed from a read-only mount, which spares it to guard itself at every call.
pub fn runtime(runtime: &str, rounds: usize) -> [Alone; 2] {
    let world = World::without_daemon(Options::default());
    let bundle = bundle(&world, &[], &specification(world.cgroup()));
    let time = |what: &str| {
        let mut command = world.command(place::binary("fixture"));
        command.args([what, "eased"]).arg(world.tool(runtime)).arg(&bundle);
        printed(command.args([rounds.to_string(), "0".into()]))
    };
    let up = format!("{runtime} alone: create + start; processor with delete");
    let exec = format!("{runtime} alone: exec true");
    [alone(&up, &time("runtime"), "up", rounds), alone(&exec, &time("exec"), "exec", rounds)]
}

/// The same with the whole configuration of a pod's container, beside it in its pod. Calls that follow each other at once
/// never wait for the kernel to get ready for a move between cgroups; a pod's do, so there are pauses. The last is the
/// least that an exec takes after one: the wait begins with the call, and the runtime is spared its guard.
pub fn in_a_pod(runtime: &'static str, rounds: usize) -> [Alone; 3] {
    let config = "log_level = \"warn\"\n".into();
    let world = World::start(Options { runtime, config, ..Default::default() });
    world.pull(BUSYBOX);
    let pod = world.pod("floor");
    let id = pod.run(container("c", BUSYBOX, &["sleep", "3600"]));
    let spec = world.read(world.path(&format!("state/pods/{}/ctr/{id}/config.json", pod.id)));
    let mut spec: Value = serde_json::from_str(&spec).expect("the daemon's own");
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/alone", world.cgroup()));
    let bundle = bundle(&world, &["sleep"], &spec);
    let pause = PAUSE.as_millis().to_string();
    let time = |what: &str, how: &str, row: &str, name: &str| {
        let mut command = world.command(place::binary("fixture"));
        command.args([what, how]).arg(world.tool(runtime)).arg(&bundle);
        let output = printed(command.args([&rounds.to_string(), &pause]));
        alone(&format!("{runtime} with a pod's configuration: {row}"), &output, name, rounds)
    };
    let up = format!("create + start, {pause} ms apart");
    let exec = format!("exec true, {pause} ms apart");
    let eased = format!("{exec}, the kernel's wait begun with it");
    let all = [
        time("runtime", "plain", &up, "up"),
        time("exec", "plain", &exec, "exec"),
        time("exec", "eased", &eased, "exec"),
    ];
    pod.end();
    world.finish();
    all
}

/// The chain's plugins, each executed as libcni would, on a fresh network namespace.
pub fn plugins(rounds: usize) -> [Alone; 2] {
    let world = World::without_daemon(Options::default());
    let leases = world.path("cni/ipam").display().to_string();
    let mut command = world.command(place::binary("fixture"));
    command.arg("plugins").arg(world.cni_plugins()).arg(daemon::bridge(&leases));
    let output = printed(command.arg(rounds.to_string()));
    let what = "CNI plugins alone: ADD (loopback, bridge, portmap); processor with DEL";
    let mut del = alone("CNI plugins alone: DEL (portmap, bridge)", &output, "del", rounds);
    del.cpu = None;
    [alone(what, &output, "add", rounds), del]
}

/// A network namespace with a link to a bridge, an address and a route, by netlink alone, in one process.
pub fn network(rounds: usize) -> Alone {
    let world = World::without_daemon(Options::default());
    let mut command = world.command(place::binary("fixture"));
    let output = printed(command.arg("veth").arg(rounds.to_string()));
    alone("netns, veth, address and route by netlink alone", &output, "up", rounds)
}

/// An overlay of eight layers, mounted.
pub fn overlay(rounds: usize) -> Alone {
    let world = World::without_daemon(Options::default());
    let mut command = world.command(place::binary("fixture"));
    command.arg("overlay").arg(world.path("overlay"));
    let output = printed(command.arg(rounds.to_string()));
    alone("an overlay of 8 layers alone", &output, "up", rounds)
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("nsenter is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn alone(what: &str, printed: &str, name: &str, rounds: usize) -> Alone {
    let cpu = Samples::parse(printed, "cpu").total() / u32::try_from(rounds).unwrap_or(1).max(1);
    Alone { what: what.into(), samples: Samples::parse(printed, name), cpu: Some(cpu) }
}

/// A bundle in the world's directory, with busybox under its own name and those of `programs`.
pub(super) fn bundle(world: &World, programs: &[&str], specification: &Value) -> PathBuf {
    let bundle = world.path("bundle");
    let bin = bundle.join("rootfs/bin");
    fs::create_dir_all(&bin).expect("the world's directory");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for program in programs {
        symlink("busybox", bin.join(program)).expect("the world's directory");
    }
    fs::write(bundle.join("config.json"), specification.to_string())
        .expect("the world's directory");
    bundle
}

/// What podwrightd asks for a plain container, as far as time goes.
pub(super) fn specification(cgroup: &str) -> Value {
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "network"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "sleep", "3600"],
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/{cgroup}/alone"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 2}},
        },
    })
}
