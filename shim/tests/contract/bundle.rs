//! OCI bundles from Debian's static busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The layer that all test containers share.
pub(crate) fn rootfs() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = PathBuf::from(format!("/tmp/podwright-shim-rootfs-{}", std::process::id()));
        for dir in ["bin", "proc", "dev", "etc", "tmp", "sys"] {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
        for applet in [
            "sh", "cat", "echo", "sleep", "true", "false", "head", "yes", "seq", "id", "ps",
            "kill", "hostname", "readlink", "ls", "dd", "tail", "printf", "stty", "awk", "setsid",
        ] {
            let _ = symlink("busybox", root.join("bin").join(applet));
        }
        root
    });
    &ROOT
}

/// What a test container is to be.
#[derive(Clone, Default)]
pub(crate) struct Spec {
    args: Vec<String>,
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) memory: Option<u64>,
    /// `(type, path)`; pid and mount are always there unless replaced.
    pub(crate) namespaces: Vec<(&'static str, Option<PathBuf>)>,
    /// Without a pid namespace of its own.
    pub(crate) host_pid: bool,
    pub(crate) binds: Vec<PathBuf>,
}

impl Spec {
    pub(crate) fn new(args: &[&str]) -> Self {
        Self { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Self::default() }
    }

    pub(crate) fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    pub(crate) fn process(&self) -> Value {
        let capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"];
        json!({
            "terminal": self.terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": self.args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": true,
        })
    }

    pub(crate) fn json(&self, id: &str) -> String {
        let mut namespaces = vec![json!({ "type": "mount" })];
        if !self.host_pid && !self.namespaces.iter().any(|(kind, _)| *kind == "pid") {
            namespaces.push(json!({ "type": "pid" }));
        }
        for (kind, path) in &self.namespaces {
            namespaces.push(match path {
                Some(path) => json!({ "type": kind, "path": path }),
                None => json!({ "type": kind }),
            });
        }
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=64k"] }),
            json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }),
        ];
        for bind in &self.binds {
            mounts.push(json!({ "destination": bind, "type": "bind", "source": bind,
                "options": ["rbind", "rw"] }));
        }
        let memory = self.memory.map_or(json!({}), |limit| json!({ "limit": limit }));
        json!({
            "ociVersion": "1.0.2",
            "process": self.process(),
            "root": { "path": "rootfs" },
            "mounts": mounts,
            "linux": {
                "cgroupsPath": format!("/{id}"),
                "namespaces": namespaces,
                "resources": { "memory": memory },
            },
        })
        .to_string()
    }
}

impl Spec {
    pub(crate) fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }
}
