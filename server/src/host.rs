//! Facts about this node, read once at start: boot, cgroups, our own privileges, OCI runtimes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{CgroupDriver, Config};
use crate::error::{Error, Result};

use features::Features;

pub(crate) mod apparmor;
pub(crate) mod cgroup;
pub(crate) mod features;
pub(crate) mod instance;
pub(crate) mod owners;
pub(crate) mod process;
pub(crate) mod selinux;
pub(crate) mod storage;
mod systemd;
pub(crate) mod usage;

/// What the node is and may do.
#[derive(Debug)]
pub(crate) struct Host {
    /// Changes with every boot: no process of another boot is alive.
    pub boot_id: String,
    pub cgroup_v2: bool,
    pub cgroup_driver: CgroupDriver,
    /// Whether systemd's scopes have a policy for when memory runs out.
    pub scopes_have_oom_policy: bool,
    /// Without CAP_SYS_RESOURCE `oom_score_adj` cannot be lowered nor hard limits raised.
    pub sys_resource: bool,
    /// Our own, below which no container's can go without CAP_SYS_RESOURCE.
    pub oom_score_adj: i32,
    /// Capabilities that we may hand on (the bounding set), as a bit mask.
    pub bounding: u64,
    pub hostname: String,
    pub kernel: String,
    /// OCI runtimes by handler name.
    pub handlers: BTreeMap<String, Handler>,
    /// The handler of pods that name none.
    pub default_handler: String,
    pub apparmor: Option<apparmor::AppArmor>,
    pub selinux: Option<selinux::SeLinux>,
    /// What is being looked up on storage of others.
    pub storage: storage::Storage,
}

/// A runtime handler: the name in a RuntimeClass, and the program behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handler {
    pub name: String,
    pub binary: PathBuf,
    #[serde(default)]
    pub features: Features,
}

/// What the names of runtimes begin with that run containers in a VM.
const VM: &str = "kata";
/// Of those whose containers have a network stack of their own.
const OWN_NETWORK: [&str; 2] = [VM, "runsc"];

impl Handler {
    /// Whether its containers have a network stack that the host's namespaces do not show: VMs and gVisor.
    pub(crate) fn has_own_network(&self) -> bool {
        OWN_NETWORK.iter().any(|one| self.program().starts_with(one))
    }

    /// Whether its pods run in VMs.
    pub(crate) fn is_vm(&self) -> bool {
        self.program().starts_with(VM)
    }

    fn program(&self) -> &str {
        self.binary.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// OCI runtimes looked for on PATH, best first: the first one found is the default.
const DISCOVERED: [&str; 3] = ["crun", "runc", "youki"];
/// The same where cgroup v2 lies beside v1's controllers: there crun refuses to work.
const HYBRID_ORDER: [&str; 3] = ["runc", "youki", "crun"];
/// Searched besides PATH: a service's PATH is often short.
const EXTRA_PATH: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
const CAP_SYS_RESOURCE: u32 = 24;
/// The first systemd whose scopes have an `OOMPolicy=`; those before refuse a scope that names one.
const OOM_POLICY: u32 = 253;

impl Host {
    /// Reads the facts and settles what the configuration leaves open.
    ///
    /// # Errors
    /// When there is no OCI runtime, or the configured default is none of those there are.
    pub(crate) fn probe(config: &Config) -> Result<Self> {
        let cgroup_v2 = is_cgroup2("/sys/fs/cgroup");
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = capability_mask(&status, "CapEff:");
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy().into_owned();
        let handlers = discover(config, &kernel);
        let default_handler = default_handler(config, &handlers)?;
        if let Some(name) = config.handlers.keys().find(|name| !handlers.contains_key(*name)) {
            tracing::warn!("handlers.{name}: this node has no such runtime");
        }
        let cgroup_driver = driver(config.cgroup_driver, cgroup_v2, has_systemd())?;
        Ok(Self {
            boot_id: read("/proc/sys/kernel/random/boot_id")?,
            cgroup_v2,
            cgroup_driver,
            scopes_have_oom_policy: cgroup_driver == CgroupDriver::Systemd
                && systemd::version().is_some_and(|version| version >= OOM_POLICY),
            sys_resource: effective & (1 << CAP_SYS_RESOURCE) != 0,
            oom_score_adj: read("/proc/self/oom_score_adj")?.parse().unwrap_or(0),
            bounding: capability_mask(&status, "CapBnd:"),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            kernel,
            handlers,
            default_handler,
            apparmor: apparmor::AppArmor::probe(Path::new("/"), &config.state),
            selinux: selinux::SeLinux::probe(Path::new("/")),
            storage: storage::Storage::default(),
        })
    }

    /// Says of all handlers that their pods can have no users of their own.
    pub(crate) fn without_user_namespaces(&mut self) {
        self.handlers.values_mut().for_each(|handler| handler.features.user_namespaces = false);
    }

    /// The handler that a pod named; empty is the default.
    pub(crate) fn handler(&self, name: &str) -> Result<&Handler> {
        let name = if name.is_empty() { &self.default_handler } else { name };
        self.handlers.get(name).ok_or_else(|| {
            let known: Vec<_> = self.handlers.keys().map(String::as_str).collect();
            Error::invalid(
                "runtime_handler",
                format!("no runtime for {name:?} is configured; there are {}", known.join(", ")),
            )
        })
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(Error::io("read", Path::new(path)))
}

fn is_cgroup2(path: &str) -> bool {
    /// CGROUP2_SUPER_MAGIC of linux/magic.h.
    const MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == MAGIC)
}

/// True where v1 carries the controllers and a cgroup2 is mounted in the place that systemd gave it.
fn is_hybrid() -> bool {
    !is_cgroup2("/sys/fs/cgroup") && is_cgroup2("/sys/fs/cgroup/unified")
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn driver(
    configured: Option<CgroupDriver>,
    cgroup_v2: bool,
    has_systemd: bool,
) -> Result<CgroupDriver> {
    match configured {
        Some(CgroupDriver::Systemd) if !has_systemd => Err(Error::Unsupported(
            "cgroup.driver: systemd does not run here: set it to \"auto\" or \"cgroupfs\"".into(),
        )),
        Some(driver) => Ok(driver),
        None if cgroup_v2 && has_systemd => Ok(CgroupDriver::Systemd),
        None => Ok(CgroupDriver::Cgroupfs),
    }
}

/// A `Cap…:` line of /proc/self/status.
fn capability_mask(status: &str, line: &str) -> u64 {
    status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn discover(config: &Config, kernel: &str) -> BTreeMap<String, Handler> {
    let found = DISCOVERED.map(|name| Some((name.to_owned(), find_on_path(name)?)));
    let mut binaries: BTreeMap<String, PathBuf> = found.into_iter().flatten().collect();
    binaries.extend(config.runtimes.clone());
    // All are asked at once: the slowest decides how long the daemon's start takes.
    std::thread::scope(|scope| {
        let asked: Vec<_> = binaries
            .values()
            .map(|binary| scope.spawn(move || features::of(binary, kernel)))
            .collect();
        let features = asked.into_iter().map(|one| one.join().unwrap_or_default());
        let handler = |((name, binary), features): ((String, PathBuf), Features)| {
            (name.clone(), Handler { name, binary, features })
        };
        binaries.clone().into_iter().zip(features).map(handler).collect()
    })
}

fn default_handler(config: &Config, handlers: &BTreeMap<String, Handler>) -> Result<String> {
    if !config.default_runtime.is_empty() {
        return match handlers.get(&config.default_runtime) {
            Some(handler) => Ok(handler.name.clone()),
            None => Err(Error::Unsupported(format!(
                "default_runtime: there is no runtime {:?}",
                config.default_runtime
            ))),
        };
    }
    let order = if is_hybrid() { HYBRID_ORDER } else { DISCOVERED };
    order
        .iter()
        .find(|name| handlers.contains_key(**name))
        .map(|name| (*name).to_owned())
        .or_else(|| handlers.keys().next().cloned())
        .ok_or_else(|| Error::Unsupported("no OCI runtime on PATH: install crun or runc".into()))
}

/// The first executable file of that name on PATH.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(EXTRA_PATH.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| {
            rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_systemd_where_it_runs_on_v2_unless_another_is_configured() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (configured, v2, systemd, is) in [
            (None, true, true, Some(Systemd)),
            (None, true, false, Some(Cgroupfs)),
            (None, false, true, Some(Cgroupfs)),
            (Some(Systemd), false, true, Some(Systemd)),
            (Some(Systemd), true, false, None),
            (Some(Cgroupfs), true, true, Some(Cgroupfs)),
        ] {
            let found = driver(configured, v2, systemd).ok();
            assert_eq!(found, is, "{configured:?} {v2} {systemd}");
        }
    }

    #[test]
    fn masks_are_read_from_their_own_line() {
        let status = "Name:\tx\nCapEff:\t0000000001000000\nCapBnd:\t00000000000000ff\n";
        assert_eq!(capability_mask(status, "CapEff:"), 1 << CAP_SYS_RESOURCE);
        assert_eq!(capability_mask(status, "CapBnd:"), 0xff);
        assert_eq!(capability_mask(status, "CapAmb:"), 0);
    }
}
