//! The configuration: one TOML file and the files of `conf.d` beside it, merged per key.
//!
//! Nothing has to be configured. A setting exists only if two real deployments need different values. All
//! mistakes, unknown keys included, are reported at once, each with its file and line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod endpoint;
mod handlers;
pub(crate) mod pattern;
mod settings;
mod tracing;

pub(crate) use endpoint::Endpoint;
pub(crate) use handlers::{HandlerConfig, Rlimit};
use settings::Settings;
pub(crate) use tracing::{Collector, TracingConfig};

/// Where the configuration is looked for when no file is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/podwright/config.toml";

/// Everything that can be configured, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What survives a reboot.
    pub root: PathBuf,
    /// What ends with the boot.
    pub state: PathBuf,
    /// Where CRI is served.
    pub socket: PathBuf,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// What takes longer is told in the log.
    pub slow_operation: Duration,
    /// Handler used when a pod names none; empty: crun if there is one, else runc; the other
    /// way round where a cgroup2 lies beside v1's controllers, since crun refuses such a host.
    pub default_runtime: String,
    /// Handlers beside the ones discovered on PATH: name to executable.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// What is particular to handlers, by their names.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// `podwright-shim`; empty: beside the daemon's own executable.
    pub shim: PathBuf,
    /// Parent cgroup of pods whose config names none; empty: one of ours, as the driver names it.
    pub cgroup_parent: String,
    /// `None`: systemd where it runs on cgroup v2, else cgroupfs.
    pub cgroup_driver: Option<CgroupDriver>,
    pub snapshotter: SnapshotterKind,
    pub network: NetworkConfig,
    /// Directory of `<host>/hosts.toml` files.
    pub registry_hosts: PathBuf,
    /// Docker's config.json: logins where the kubelet gives none.
    pub registry_docker_config: Option<PathBuf>,
    /// A download that brings less than a least number of bytes over so long is given up.
    pub registry_stall: Duration,
    /// Keep compressed blobs after they are unpacked.
    pub keep_blobs: bool,
    /// Patterns of image names that the kubelet is to spare.
    pub pinned_images: Vec<String>,
    /// Who has to have signed which images, as a policy.json says it; `None`: nobody.
    pub image_policy: Option<PathBuf>,
    pub verifiers: Option<VerifierConfig>,
    /// Archives in it are imported.
    pub import_dir: PathBuf,
    /// Layers of one image that download at a time.
    pub max_concurrent_downloads: usize,
    /// Size of each pod's /dev/shm in bytes.
    pub shm_size: u64,
    /// How long the output of an exec is read on after its process ended.
    pub exec_drain: Duration,
    pub streaming: StreamingConfig,
    /// Where vendors describe their devices; a later directory's description replaces an earlier one's.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Devices belong to the user and group that the container's security context names, as in the pod's volumes.
    pub device_ownership_from_security_context: bool,
    /// Classes of block I/O that annotations name.
    pub blockio_file: Option<PathBuf>,
    /// Where Prometheus reads; `None`: nowhere.
    pub metrics: Option<Endpoint>,
    /// Where traces go; `None`: nowhere.
    pub tracing: Option<TracingConfig>,
}

/// Executables that are asked about images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifierConfig {
    pub dir: PathBuf,
    /// Of them, by name.
    pub max: usize,
    /// For each.
    pub timeout: Duration,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupDriver {
    Systemd,
    Cgroupfs,
}

/// How root file systems are made from layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotterKind {
    /// Overlay where the file system carries it, else copies.
    Auto,
    Overlay,
    Native,
}

/// Where CNI's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkConfig {
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    pub cache_dir: PathBuf,
    /// For one ADD, DEL, CHECK or GC of a whole chain.
    pub timeout: Duration,
    /// The usual plugins' work is done in-process, where their configuration is understood.
    pub native: bool,
}

/// Where exec, attach and port-forward are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamingConfig {
    pub address: IpAddr,
    /// 0: any that is free.
    pub port: u16,
    pub tls: bool,
    /// `None`: a certificate of our own making.
    pub tls_files: Option<TlsFiles>,
    /// A session that carries nothing for so long is ended.
    pub idle_timeout: Duration,
    /// How long a client may take to open the streams of a session.
    pub creation_timeout: Duration,
    /// Connections at a time, upgraded or not. More wait in the kernel.
    pub max_connections: usize,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients need a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// Every mistake found, one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Mistakes(pub Vec<String>);

impl Config {
    /// Reads `path` and `conf.d/*.toml` beside it. No file at all gives the defaults, unless it `must_exist`.
    ///
    /// # Errors
    /// All mistakes of all files.
    pub(crate) fn load(path: &Path, must_exist: bool) -> Result<Self, Mistakes> {
        let mut settings = Settings::default();
        if must_exist || path.exists() {
            settings.read(path);
        }
        settings.read_dir(&path.with_file_name("conf.d"));
        Self::from_settings(settings)
    }

    fn from_settings(mut from: Settings) -> Result<Self, Mistakes> {
        let state = from.path("state", "/run/podwright");
        let root = from.path("root", "/var/lib/podwright");
        let config = Self {
            import_dir: from
                .optional_path("image.import_dir")
                .unwrap_or_else(|| root.join("import")),
            root,
            socket: from.optional_path("socket").unwrap_or_else(|| state.join("podwright.sock")),
            state,
            log_level: from.one_of("log_level", &["info", "error", "warn", "debug", "trace"]),
            slow_operation: Duration::from_secs(from.integer(
                "slow_operation_seconds",
                10,
                1..=3600,
            )),
            default_runtime: from.text("default_runtime", ""),
            runtimes: from.paths_under("runtimes"),
            handlers: handlers::handlers(&mut from),
            shim: from.optional_path("shim").unwrap_or_default(),
            cgroup_parent: from.text("cgroup.parent", ""),
            cgroup_driver: match from
                .one_of("cgroup.driver", &["auto", "systemd", "cgroupfs"])
                .as_str()
            {
                "systemd" => Some(CgroupDriver::Systemd),
                "cgroupfs" => Some(CgroupDriver::Cgroupfs),
                _ => None,
            },
            snapshotter: match from.one_of("snapshotter", &["auto", "overlay", "native"]).as_str() {
                "overlay" => SnapshotterKind::Overlay,
                "native" => SnapshotterKind::Native,
                _ => SnapshotterKind::Auto,
            },
            network: NetworkConfig {
                conf_dir: from.path("network.conf_dir", "/etc/cni/net.d"),
                bin_dirs: from.paths("network.bin_dirs", &["/opt/cni/bin", "/usr/lib/cni"]),
                cache_dir: from.path("network.cache_dir", "/var/lib/cni"),
                native: from.boolean("network.native", true),
                timeout: Duration::from_secs(from.integer("network.timeout_seconds", 60, 1..=600)),
            },
            registry_hosts: from.path("registry.hosts_dir", "/etc/podwright/certs.d"),
            registry_docker_config: from.optional_path("registry.docker_config"),
            registry_stall: Duration::from_secs(from.integer(
                "registry.stall_seconds",
                60,
                1..=3600,
            )),
            keep_blobs: from.boolean("image.keep_blobs", false),
            pinned_images: from.texts("image.pinned"),
            image_policy: from.optional_path("image.policy"),
            verifiers: verifiers(&mut from),
            max_concurrent_downloads: usize::try_from(from.integer(
                "image.max_concurrent_downloads",
                6,
                1..=64,
            ))
            .unwrap_or(6),
            shm_size: from.integer("shm_size", 64 << 20, (64 << 10)..=(1 << 40)),
            exec_drain: Duration::from_secs(from.integer("exec.drain_seconds", 1, 0..=3600)),
            streaming: streaming(&mut from),
            cdi_spec_dirs: from.paths("devices.cdi_spec_dirs", &["/etc/cdi", "/var/run/cdi"]),
            blockio_file: from.optional_path("devices.blockio_file"),
            device_ownership_from_security_context: from
                .boolean("devices.ownership_from_security_context", false),
            metrics: from.parsed("metrics.address"),
            tracing: tracing::tracing(&mut from),
        };
        from.finish().map(|()| config)
    }
}

fn verifiers(from: &mut Settings) -> Option<VerifierConfig> {
    let dir = from.optional_path("image.verifier_dir");
    let max = from.integer("image.max_verifiers", 10, 0..=100);
    let timeout = from.integer("image.verifier_timeout_seconds", 10, 1..=600);
    let (max, timeout) = (usize::try_from(max).unwrap_or(10), Duration::from_secs(timeout));
    dir.map(|dir| VerifierConfig { dir, max, timeout })
}

fn streaming(from: &mut Settings) -> StreamingConfig {
    let mut file = |key| from.optional_path(key);
    let (certificate, key) = (file("streaming.tls_certificate"), file("streaming.tls_key"));
    let client_ca = file("streaming.tls_client_ca");
    let tls_files = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca }),
        (None, None) if client_ca.is_none() => None,
        _ => {
            from.mistake(
                "streaming: tls_certificate and tls_key go together, and tls_client_ca needs both",
            );
            None
        }
    };
    let idle_timeout = Duration::from_secs(from.integer(
        "streaming.idle_timeout_seconds",
        4 * 3600,
        1..=7 * 24 * 3600,
    ));
    let creation_timeout =
        Duration::from_secs(from.integer("streaming.creation_timeout_seconds", 30, 1..=3600));
    let max_connections =
        usize::try_from(from.integer("streaming.max_connections", 2048, 1..=65535)).unwrap_or(2048);
    StreamingConfig {
        address: from.address("streaming.address", Ipv4Addr::LOCALHOST.into()),
        port: u16::try_from(from.integer("streaming.port", 0, 0..=65535)).unwrap_or(0),
        tls: from.boolean("streaming.tls", false) || tls_files.is_some(),
        tls_files,
        idle_timeout,
        creation_timeout,
        max_connections,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let at = dir.path().to_str().unwrap().to_owned() + "/";
        Config::load(&dir.path().join("config.toml"), false)
            .map_err(|m| m.to_string().replace(&at, ""))
    }

    #[test]
    fn no_file_gives_the_defaults() {
        let config = load(&[]).unwrap();
        assert_eq!(config.socket, Path::new("/run/podwright/podwright.sock"));
        assert_eq!(config.cgroup_driver, None);
    }

    #[test]
    fn the_shipped_file_holds_every_setting_at_its_default() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config.toml");
        if !shipped.exists() {
            return;
        }
        let config = Config::load(&shipped, true).unwrap();
        assert_eq!(config, load(&[]).unwrap());
    }

    #[test]
    fn drop_ins_override_single_keys_in_the_order_of_their_names() {
        let config = load(&[
            ("config.toml", "log_level = 'warn'\n[network]\nconf_dir = '/a'\ncache_dir = '/b'\n"),
            ("conf.d/20.toml", "network.conf_dir = '/d'\n"),
            ("conf.d/10.toml", "network.conf_dir = '/c'\n"),
        ])
        .unwrap();
        assert_eq!(config.network.conf_dir, Path::new("/d"));
        assert_eq!(config.network.cache_dir, Path::new("/b"));
        assert_eq!(config.log_level, "warn");
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_place() {
        let told = load(&[
            ("config.toml", "log_level = 'loud'\nroot = 7\n\n[network]\ntimeout_seconds = 0\n"),
            ("conf.d/a.toml", "[network]\nconf_dri = '/x'\n"),
        ])
        .unwrap_err();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "conf.d/a.toml:2: network.conf_dri: no such setting; did you mean network.conf_dir?",
                "config.toml:1: log_level: \"loud\" is none of info, error, warn, debug, trace",
                "config.toml:2: root: needs an absolute path as text",
                "config.toml:5: network.timeout_seconds: 0 is not within 1 to 600",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let told = load(&[("config.toml", "root = '/a'\nroot = = 3\n")]).unwrap_err();
        assert!(told.starts_with("config.toml:2: "), "{told}");
    }
}
