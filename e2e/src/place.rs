//! Where the binaries under test and the programs that they drive lie.

use std::path::{Path, PathBuf};

/// Runtimes, plugins and the registry, unpacked by `e2e/tools`.
#[derive(Debug, Clone)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    pub fn find() -> Self {
        let dir = std::env::var_os("PODWRIGHT_TOOLS").map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
                let cache = std::env::var_os("XDG_CACHE_HOME")
                    .map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from);
                cache.join("podwright/tools")
            },
            PathBuf::from,
        );
        assert!(dir.join("bin/runc").exists(), "no tools in {}: run ./dev test", dir.display());
        Self { dir }
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    pub fn cni(&self) -> PathBuf {
        self.dir.join("cni")
    }

    /// containerd's client, unpacked by `e2e/ctr`.
    pub fn ctr(&self) -> Option<PathBuf> {
        Some(self.dir.join("ctr/ctr")).filter(|path| path.is_file())
    }

    /// What `e2e/kubectls` could get.
    pub fn kubectls(&self) -> Vec<PathBuf> {
        let suites = std::fs::read_dir(self.dir.join("kubectl")).into_iter().flatten().flatten();
        let mut found: Vec<_> = suites.map(|suite| suite.path().join("kubectl")).collect();
        found.retain(|path| path.is_file());
        found.sort();
        found
    }
}

/// The target directory's profile directory, from the running executable.
fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a process knows its executable");
    let dir = exe.parent().expect("an executable lies in a directory");
    if dir.ends_with("deps") {
        dir.parent().expect("deps lies below the profile").into()
    } else {
        dir.into()
    }
}

/// The target directory.
pub fn target() -> PathBuf {
    profile_dir().parent().expect("a profile lies in the target directory").into()
}

/// A binary of this workspace.
pub fn binary(name: &str) -> PathBuf {
    let path = profile_dir().join(name);
    assert!(path.exists(), "{} is not built: run ./dev build", path.display());
    path
}

/// The shim, which is built statically for its own target; the dynamic one serves where that is not built.
pub fn shim() -> PathBuf {
    let profile = profile_dir();
    let name = profile.file_name().expect("a profile has a name").to_owned();
    let built = profile.parent().and_then(|target| {
        let entries = std::fs::read_dir(target).ok()?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path().join(&name).join("podwright-shim")))
            .find(|path| path.exists() && path.to_string_lossy().contains("-linux-"))
    });
    built.unwrap_or_else(|| binary("podwright-shim"))
}

/// Where `e2e/prometheus` puts its programs, if it could get them.
pub fn prometheus() -> PathBuf {
    let tools = Tools::find().dir;
    tools.parent().expect("tools lie in the cache").join("prometheus")
}

/// Where worlds keep their directories: a disk, since overlays and databases belong on one.
pub fn scratch() -> PathBuf {
    let dir = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    dir.join("podwright-e2e")
}
