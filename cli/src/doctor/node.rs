//! A node as its files tell it, and the settings that decide which of them matter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where files are looked for.
#[derive(Debug)]
pub(super) struct Node {
    root: PathBuf,
    /// Directories of programs.
    path: Vec<PathBuf>,
}

/// A service's PATH, which a user's may be shorter than.
const SYSTEM_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

impl Node {
    /// This one.
    pub(super) fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&path).chain(SYSTEM_PATH.map(PathBuf::from)).collect();
        Self { root: "/".into(), path }
    }

    /// Another's path as it is reached from here.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text without the line break at its end.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.at(path)).ok()?;
        Some(text.trim_end().to_owned())
    }

    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// The program of that name that a service would start.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(name)).find(|path| self.is_program(path))
    }

    pub(super) fn is_program(&self, path: &Path) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(self.at(path));
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    }

    /// The type of the file system that a path is on.
    pub(super) fn file_system(&self, path: &Path) -> Option<String> {
        let mounts = self.read("/proc/self/mountinfo")?;
        let of = |line: &str| {
            let point = line.split(' ').nth(4)?.replace("\\040", " ");
            let (_, kind) = line.split_once(" - ")?;
            let kind = kind.split(' ').next()?.to_owned();
            path.starts_with(&point).then_some((point.len(), kind))
        };
        // Of several at one place the last is on top.
        mounts.lines().filter_map(of).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
    }
}

/// A daemon's, or the defaults where none runs.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) root: PathBuf,
    pub(super) state: PathBuf,
    pub(super) cni_conf_dir: PathBuf,
    pub(super) cni_bin_dirs: Vec<PathBuf>,
    /// Plugins whose work the daemon does itself.
    pub(super) cni_in_process: Vec<String>,
    /// `None`: nobody has decided it.
    pub(super) cgroup_driver: Option<String>,
    pub(super) default_runtime: String,
    /// Where the daemon found them, and what they can do.
    pub(super) runtimes: BTreeMap<String, Runtime>,
}

/// A runtime that a daemon knows.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    pub(super) path: PathBuf,
    pub(super) recursive_read_only: bool,
    pub(super) user_namespaces: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/var/lib/podwright".into(),
            state: "/run/podwright".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dirs: ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from).into(),
            cni_in_process: Vec::new(),
            cgroup_driver: None,
            default_runtime: String::new(),
            runtimes: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Takes over what Status tells of the configuration in force; what it leaves out stays.
    pub(super) fn adopt(&mut self, config: &Value) {
        let path = |value: &Value| value.as_str().map(PathBuf::from);
        let set = |setting: &mut PathBuf, value: &Value| {
            if let Some(path) = path(value) {
                *setting = path;
            }
        };
        set(&mut self.root, &config["rootDir"]);
        set(&mut self.state, &config["stateDir"]);
        set(&mut self.cni_conf_dir, &config["cni"]["confDir"]);
        if let Some(dirs) = config["cni"]["binDirs"].as_array() {
            self.cni_bin_dirs = dirs.iter().filter_map(path).collect();
        }
        if let Some(names) = config["cni"]["inProcess"].as_array() {
            self.cni_in_process = names.iter().filter_map(|n| n.as_str().map(Into::into)).collect();
        }
        self.cgroup_driver = config["cgroupDriver"].as_str().map(str::to_owned);
        let runtimes = &config["containerd"];
        self.default_runtime = runtimes["defaultRuntimeName"].as_str().unwrap_or_default().into();
        for (name, told) in runtimes["runtimes"].as_object().into_iter().flatten() {
            let path = path(&told["path"]).unwrap_or_default();
            self.runtimes.insert(name.clone(), Runtime { path, ..Runtime::default() });
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    use super::*;

    /// A node of files in a directory of its own.
    #[derive(Debug)]
    pub(in super::super) struct Fake {
        dir: tempfile::TempDir,
        pub(in super::super) node: Node,
    }

    impl Fake {
        pub(in super::super) fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let node = Node { root: dir.path().into(), path: vec!["/usr/bin".into()] };
            let fake = Self { dir, node };
            files.iter().for_each(|(path, text)| fake.put(path, text));
            fake
        }

        pub(in super::super) fn put(&self, path: &str, text: &str) {
            let path = self.node.at(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        pub(in super::super) fn program(&self, path: &str) {
            use std::os::unix::fs::PermissionsExt;
            self.put(path, "#!/bin/sh\n");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(self.dir.path().join(&path[1..]), mode).unwrap();
        }
    }

    #[test]
    fn the_file_system_of_the_longest_mount_point() {
        let mounts = "1 0 0:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:2 / /var rw shared:1 - xfs /dev/b rw\n\
            3 1 0:3 / /var rw - btrfs /dev/c rw\n\
            4 1 0:4 / /mnt/a\\040b rw - nfs4 x:/ rw\n";
        let fake = Fake::new(&[("/proc/self/mountinfo", mounts)]);
        for (path, kind) in
            [("/var/lib/podwright", "btrfs"), ("/various", "ext4"), ("/mnt/a b/c", "nfs4")]
        {
            assert_eq!(fake.node.file_system(Path::new(path)).as_deref(), Some(kind), "{path}");
        }
    }

    #[test]
    fn what_a_daemon_tells_is_taken_over() {
        let mut settings = Settings::default();
        settings.adopt(&serde_json::json!({
            "rootDir": "/r",
            "cni": {"binDirs": ["/a", "/b"], "inProcess": ["bridge"]},
            "cgroupDriver": "cgroupfs",
            "containerd": {"defaultRuntimeName": "crun", "runtimes": {"crun": {"path": "/x/crun"}}},
        }));
        assert_eq!((settings.root, settings.state), ("/r".into(), "/run/podwright".into()));
        assert_eq!(settings.cni_bin_dirs, ["/a", "/b"].map(PathBuf::from));
        assert_eq!(settings.cni_in_process, ["bridge"]);
        assert_eq!(settings.cni_conf_dir, Path::new("/etc/cni/net.d"));
        assert_eq!(settings.runtimes["crun"].path, Path::new("/x/crun"));
        assert_eq!(
            (settings.cgroup_driver.as_deref(), &*settings.default_runtime),
            (Some("cgroupfs"), "crun")
        );
    }
}
