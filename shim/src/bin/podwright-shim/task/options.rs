//! What a daemon may say beyond the Task service's own fields: ours, or containerd's for runc.

use std::path::{Path, PathBuf};

use api::podwright::CreateOptions;
use api::runc;
use api::types::Mount;
use prost_types::Any;

use shim::record::LOGGED;

use super::stdio::Extras;
use crate::log::{self, DEFAULT_MAX};
use crate::rpc::Failure;
use crate::runtime::Runtime;

/// Where containerd keeps the state of OCI runtimes, under the namespace's name.
const CONTAINERD_ROOT: &str = "/run/containerd/runc";

/// Paths to write to, beside the streams, and more.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// The exit record.
    pub(super) exit_path: Option<PathBuf>,
    /// The pid file; one is always written, by default in the bundle.
    pub(super) pid_path: Option<PathBuf>,
    pub(super) no_pivot: bool,
    pub(super) no_new_keyring: bool,
    /// Mounted beside the root file system.
    pub(super) volumes: Vec<Mount>,
    /// The pod's user namespace, and below what files get its owners.
    pub(super) users: Option<(PathBuf, PathBuf)>,
    /// Whose the standard streams are; `None`: ours.
    pub(super) owner: Option<(u32, u32)>,
}

/// Reads whichever options came with a Create.
pub(super) fn parse(
    any: Option<&Any>,
    namespace: &str,
) -> Result<(Runtime, Options, Extras), Failure> {
    let Some(any) = any else { return Ok(from_runc(&runc::Options::default(), namespace)) };
    if let Ok(options) = api::unpack::<CreateOptions>(any) {
        return from_podwright(options);
    }
    let options = api::unpack::<runc::Options>(any).map_err(Failure::invalid)?;
    Ok(from_runc(&options, namespace))
}

fn from_podwright(options: CreateOptions) -> Result<(Runtime, Options, Extras), Failure> {
    let path_of_log = match options.log_path.as_str() {
        "" => Path::new(""),
        path => log::checked_path(path)
            .ok_or_else(|| Failure::invalid(format_args!("log path {path:?} is not absolute")))?,
    };
    let longest = usize::try_from(options.log_max_line).unwrap_or(0);
    let exit_path = path(&options.exit_path);
    let log = Some(log::Wanted {
        path: path_of_log.to_owned(),
        max_line: if longest == 0 { DEFAULT_MAX } else { longest },
        counts: exit_path.as_ref().map(|path| path.with_file_name(LOGGED)),
    });
    let runtime = Runtime {
        binary: or(&options.runtime, "runc"),
        root: path(&options.runtime_root),
        systemd_cgroup: options.systemd_cgroup,
        arguments: options.runtime_args,
    };
    let owner = Some((options.io_uid, options.io_gid)).filter(|ids| *ids != (0, 0));
    let paths = Options {
        users: path(&options.user_namespace).zip(path(&options.mapped_root)),
        owner,
        exit_path,
        pid_path: path(&options.pid_path),
        volumes: options.volumes,
        ..Options::default()
    };
    let extras = Extras { log, stdin: options.stdin, stdin_once: options.stdin_once, owner };
    Ok((runtime, paths, extras))
}

fn from_runc(options: &runc::Options, namespace: &str) -> (Runtime, Options, Extras) {
    let runtime = Runtime {
        binary: or(&options.binary_name, "runc"),
        root: Some(or(&options.root, CONTAINERD_ROOT).join(namespace)),
        systemd_cgroup: options.systemd_cgroup,
        arguments: Vec::new(),
    };
    let options = Options {
        no_pivot: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        owner: Some((options.io_uid, options.io_gid)).filter(|ids| *ids != (0, 0)),
        ..Options::default()
    };
    let extras = Extras { owner: options.owner, ..Extras::default() };
    (runtime, options, extras)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn or(text: &str, default: &str) -> PathBuf {
    Path::new(if text.is_empty() { default } else { text }).to_owned()
}
