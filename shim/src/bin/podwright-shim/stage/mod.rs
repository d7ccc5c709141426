//! What a child does between being started and becoming another program.
//!
//! Each stage is this same program started anew by the shim, so it runs as a plain
//! single-threaded process: it can use all of the language before it execs, and nothing of the
//! shim's memory is near the container.
//!
//! * `stage-runtime`: a mount namespace with the root file system in it, then the OCI runtime
//! * `stage-namespaces`: makes the pod's namespaces and waits until the shim holds them
//! * `stage-pid-init`: becomes the init of a shared pid namespace
//! * `stage-map-ids`: says what the ids of its parent's new user namespace are

mod bpf;
mod map_ids;
mod mounts;
mod namespaces;
mod pid_init;
mod runtime;
mod sysctl;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::podwright::{IdMapping, SandboxOptions};
use api::types::Mount;

use crate::sys;

/// What process lists show.
pub(crate) const NAME: &str = "podwright-shim";
const RUNTIME: &str = "stage-runtime";
const NAMESPACES: &str = "stage-namespaces";
const PID_INIT: &str = "stage-pid-init";
const MAP_IDS: &str = "stage-map-ids";

/// Runs a stage, if that is what the command line asks for. Does not return then.
pub(crate) fn run_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(stage) = arguments.next() else { return };
    let stage: fn(&[std::ffi::OsString]) -> Result<(), String> = match stage.to_str() {
        Some(RUNTIME) => runtime::run,
        Some(NAMESPACES) => namespaces::run,
        Some(PID_INIT) => pid_init::run,
        Some(MAP_IDS) => map_ids::run,
        _ => return,
    };
    // Standard streams are the stage's; everything else was not meant for it.
    sys::close_from(3);
    let arguments: Vec<_> = arguments.collect();
    match stage(&arguments) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            if !error.is_empty() {
                eprintln!("{error}");
            }
            std::process::exit(1);
        }
    }
}

/// What a container's file systems are assembled from; by default nothing.
pub(crate) struct Scene<'a> {
    pub(crate) mounts: &'a [Mount],
    /// Where `mounts` go.
    pub(crate) rootfs: &'a Path,
    /// Each goes to its own target.
    pub(crate) volumes: &'a [Mount],
    /// A user namespace, and the directory whose files get owners of it.
    pub(crate) users: Option<&'a (PathBuf, PathBuf)>,
}

impl Default for Scene<'_> {
    fn default() -> Self {
        Self { mounts: &[], rootfs: Path::new(""), volumes: &[], users: None }
    }
}

/// A command that mounts the scene where only the runtime sees it and then becomes the runtime.
/// Without anything to do in between, it is the runtime at once. What is executed is
/// `program`, whatever it is called in `line`. What goes wrong before is put into `report`, in the form in which
/// runtimes log.
pub(crate) fn runtime(
    score: Option<i32>,
    scene: &Scene<'_>,
    report: &Path,
    program: &Path,
    line: &[&OsStr],
) -> Command {
    if scene.mounts.is_empty() && scene.volumes.is_empty() && score.is_none() {
        let mut command = Command::new(program);
        command.arg0(line[0]).args(&line[1..]);
        return command;
    }
    let mut command = ourselves(RUNTIME);
    command.arg("--report").arg(report);
    if let Some(score) = score {
        command.arg("--oom-score").arg(score.to_string());
    }
    command.arg("--program").arg(program);
    command.arg("--rootfs").arg(scene.rootfs);
    if let Some((namespace, root)) = scene.users {
        command.arg("--users").args([namespace, root]);
    }
    for (flag, mounts) in [("--mount", scene.mounts), ("--volume", scene.volumes)] {
        for mount in mounts {
            command.arg(flag).args([&mount.r#type, &mount.source, &mount.target]);
            command.arg(mount.options.len().to_string()).args(&mount.options);
        }
    }
    command.arg("--").args(line);
    command
}

/// This program again, whatever has become of its file, under its own name.
pub(crate) fn ourselves(first: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).arg(first);
    command
}

/// From now on the calling stage ends with the thread that started it.
fn die_with_parent() -> io::Result<()> {
    let before = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have ended before that was said.
    if rustix::process::getppid() != before {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// A command that makes the namespaces of a pod, prints a line (the init's pid, or `0`) and
/// stays until its standard input ends.
pub(crate) fn namespaces(options: &SandboxOptions) -> Command {
    let mut command = ourselves(NAMESPACES);
    let flags = [
        (!options.host_ipc, "--ipc"),
        (!options.host_uts, "--uts"),
        (options.shared_pid, "--pid"),
        (options.own_network, "--net"),
    ];
    command.args(flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag));
    if !options.host_uts && !options.hostname.is_empty() {
        command.args(["--hostname", &options.hostname]);
    }
    if !options.netns_path.is_empty() {
        command.args(["--netns", &options.netns_path]);
    }
    if !options.cgroup_path.is_empty() {
        command.args(["--cgroup", &options.cgroup_path]);
    }
    for (flag, mappings) in [("--uids", &options.uids), ("--gids", &options.gids)] {
        for IdMapping { container_id, host_id, length } in mappings {
            command.args([flag, &format!("{container_id} {host_id} {length}")]);
        }
    }
    for (name, value) in &options.sysctls {
        command.args(["--sysctl", name, value]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}
