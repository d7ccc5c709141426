//! podwrightd as a child of the test: its configuration, start and end.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::place;
use crate::poll::eventually;
use crate::world::{World, child_of};

/// The running daemon, behind the nsenter that put it into its world.
#[derive(Debug)]
pub(crate) struct Daemon {
    nsenter: Child,
    pid: u32,
}

impl Daemon {
    pub(crate) fn spawn(world: &World) -> Self {
        let log = File::options()
            .create(true)
            .append(true)
            .open(world.path("daemon.log"))
            .expect("the world's directory");
        let program = if world.options.failpoints { "podwrightd-failpoints" } else { "podwrightd" };
        let own = || place::binary(program);
        let program = world.binaries.as_ref().map_or_else(own, |dir| dir.join("podwrightd"));
        // As policies have it for who runs containers.
        let domain: &[&str] = match Path::new("/sys/fs/selinux/enforce").exists() {
            true if world.options.security_modules => &["runcon", "--type", "container_engine_t"],
            _ => &["env"],
        };
        let mut nsenter = world
            .command(domain[0])
            .args(&domain[1..])
            .arg(program)
            .env("PODWRIGHT_FAILPOINTS", world.failpoints().control())
            .arg("--config")
            .arg(world.path("config.toml"))
            .env_remove("NOTIFY_SOCKET")
            .envs(world.options.environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("nsenter is installed");
        // Without a pid namespace to enter it has become the daemon itself.
        let parent = nsenter.id();
        let becomes = world.home.as_ref().map(|_| parent);
        let pid = eventually("the daemon to start", || {
            becomes
                .or_else(|| child_of(parent))
                .or_else(|| nsenter.try_wait().ok().flatten().map(|_| 0))
        });
        Self { nsenter, pid }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.nsenter.try_wait(), Ok(None))
    }

    pub(crate) fn end(mut self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
        eventually("the daemon to end", || (!self.runs()).then_some(()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.nsenter.kill();
        let _ = self.nsenter.wait();
    }
}

/// Writes the daemon's configuration and the network's, and makes the directories.
pub(crate) fn configure(world: &World) {
    for dir in ["root", "state", "cni/conf", "cni/cache", "cni/ipam", "certs.d", "conf.d", "logs"] {
        std::fs::create_dir_all(world.path(dir)).expect("the world's directory");
    }
    let dir = world.dir.path().display();
    let crun = world.tools.program("crun");
    let runc = world.tools.program("runc");
    let config = format!(
        "root = \"{dir}/root\"\nstate = \"{dir}/state\"\nlog_level = \"debug\"\n\
         default_runtime = \"{}\"\nshim = \"{}\"\n\n\
         [runtimes]\ncrun = \"{}\"\nrunc = \"{}\"\n\n\
         [cgroup]\nparent = \"/{}\"\ndriver = \"{}\"\n\n\
         [network]\nconf_dir = \"{dir}/cni/conf\"\nbin_dirs = [\"{}\"]\ncache_dir = \"{dir}/cni/cache\"\n\n\
         [registry]\nhosts_dir = \"{dir}/certs.d\"\n\n\
         [devices]\ncdi_spec_dirs = [\"{dir}/cdi/a\", \"{dir}/cdi/b\"]\n",
        world.options.runtime,
        world.shim().display(),
        crun.display(),
        runc.display(),
        world.cgroup,
        world.driver().name(),
        world.tools.cni().display(),
    );
    let write = |name: &str, text: &str| {
        std::fs::write(world.path(name), text).expect("the world's directory");
    };
    write("config.toml", &config);
    write("conf.d/test.toml", &world.options.config);
    let conflist =
        world.options.conflist.clone().unwrap_or_else(|| bridge(&format!("{dir}/cni/ipam")));
    if !conflist.is_empty() {
        write("cni/conf/10-pods.conflist", &conflist);
    }
}

/// The usual network: a bridge with addresses from host-local, and host ports.
pub fn bridge(leases: &str) -> String {
    bridge_of("pods0", "10.88.0.0/16", leases)
}

/// The same under another name and on other addresses.
pub fn bridge_of(name: &str, subnet: &str, leases: &str) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": leases,
                    "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
    .to_string()
}
