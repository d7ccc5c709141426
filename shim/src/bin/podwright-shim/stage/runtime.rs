//! Mounts a container's root file system, and volumes beside it, in a mount namespace of its own and becomes the OCI
//! runtime there. The container's namespace is a copy of this one, so it keeps the mount; the
//! host never has it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use api::types::Mount;
use rustix::fs::Mode;

use super::bpf;
use super::mounts::{self, Users};
use crate::sys;

#[derive(Default)]
struct Orders {
    score: Option<String>,
    report: PathBuf,
    program: PathBuf,
    rootfs: PathBuf,
    users: Option<Users>,
    mounts: Vec<Mount>,
    volumes: Vec<Mount>,
    line: Vec<OsString>,
}

/// Returns only when something went wrong, with what it was.
pub(super) fn run(arguments: &[OsString]) -> Result<(), String> {
    let orders = parse(arguments).ok_or("malformed orders")?;
    let error = become_runtime(&orders);
    let line = serde_json::json!({ "level": "error", "msg": error });
    // Standard error is the container's.
    Err(std::fs::write(&orders.report, line.to_string()).map_or(error, |()| String::new()))
}

fn become_runtime(orders: &Orders) -> String {
    if let Some(score) = &orders.score
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score)
    {
        return format!("oom_score_adj: {error}");
    }
    if !(orders.mounts.is_empty() && orders.volumes.is_empty()) {
        let mapped = match mounts::enter(&orders.rootfs, orders.users.as_ref()) {
            Ok(mapped) => mapped,
            Err(error) => return format!("root file system: {error}"),
        };
        if let Err(error) = mounts::assemble(&orders.mounts, &orders.rootfs, mapped.as_ref()) {
            return format!("root file system: {error}");
        }
        if let Err(error) = mounts::add(&orders.volumes, mapped.as_ref()) {
            return format!("volume: {error}");
        }
        if let Err(error) = mapped.map_or(Ok(()), mounts::Mapped::done) {
            return format!("root file system: {error}");
        }
        bpf::hide(&orders.line, &orders.rootfs.with_file_name("config.json"));
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::reset_signals();
    let Some((name, arguments)) = orders.line.split_first() else {
        return "no program".into();
    };
    let error = Command::new(&orders.program).arg0(name).args(arguments).exec();
    format!("{}: {error}", name.display())
}

fn parse(arguments: &[OsString]) -> Option<Orders> {
    let mut orders = Orders::default();
    let mut rest = arguments.iter();
    let text = |value: Option<&OsString>| value?.to_str().map(str::to_owned);
    while let Some(flag) = rest.next() {
        match flag.to_str()? {
            "--oom-score" => orders.score = Some(text(rest.next())?),
            "--report" => orders.report = rest.next()?.into(),
            "--program" => orders.program = rest.next()?.into(),
            "--rootfs" => orders.rootfs = rest.next()?.into(),
            "--users" => {
                let (namespace, root) = (rest.next()?.into(), rest.next()?.into());
                orders.users = Some(Users { namespace, root });
            }
            flag @ ("--mount" | "--volume") => {
                let mut mount = Mount {
                    r#type: text(rest.next())?,
                    source: text(rest.next())?,
                    target: text(rest.next())?,
                    options: Vec::new(),
                };
                for _ in 0..text(rest.next())?.parse::<usize>().ok()? {
                    mount.options.push(text(rest.next())?);
                }
                match flag {
                    "--mount" => orders.mounts.push(mount),
                    _ => orders.volumes.push(mount),
                }
            }
            "--" => {
                orders.line = rest.cloned().collect();
                return Some(orders);
            }
            _ => return None,
        }
    }
    None
}
