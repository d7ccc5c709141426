//! From a runtime's name to its shim.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Error;

/// The program's name: `io.containerd.kata.v2` is served by `containerd-shim-kata-v2`.
pub fn binary_name(runtime: &str) -> Result<String, Error> {
    let invalid = || Error::InvalidName(runtime.to_owned());
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    let parts: Vec<&str> = runtime.split('.').collect();
    match &parts[..] {
        [first @ .., name, version]
            if !first.is_empty() && parts.iter().all(|part| plain(part)) =>
        {
            Ok(format!("containerd-shim-{name}-{version}"))
        }
        _ => Err(invalid()),
    }
}

/// Finds the program: an absolute path is itself, a name is looked for beside the daemon and
/// then on PATH.
pub fn resolve(runtime: &str) -> Result<PathBuf, Error> {
    let direct = Path::new(runtime);
    if direct.is_absolute() {
        let wanted = runtime.to_owned();
        return executable(direct)
            .ok_or_else(|| Error::Unresolved { name: runtime.to_owned(), wanted });
    }
    let wanted = binary_name(runtime)?;
    let beside = env::current_exe().ok().and_then(|daemon| Some(daemon.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside
        .into_iter()
        .chain(env::split_paths(&path).filter(|dir| dir.is_absolute()))
        .find_map(|dir| executable(&dir.join(&wanted)));
    found.ok_or_else(|| Error::Unresolved { name: runtime.to_owned(), wanted })
}

fn executable(path: &Path) -> Option<PathBuf> {
    let metadata = path.metadata().ok()?;
    let yes = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    yes.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_programs() {
        let name = |runtime| binary_name(runtime).ok();
        assert_eq!(name("io.containerd.runc.v2").as_deref(), Some("containerd-shim-runc-v2"));
        assert_eq!(
            name("io.containerd.kata-qemu.v2").as_deref(),
            Some("containerd-shim-kata-qemu-v2")
        );
        for bad in ["", "runc", "runc.v2", "io.containerd./etc.v2", "io..v2", "a/b.c.d"] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_absolute_path_is_itself() {
        assert_eq!(resolve("/bin/sh").ok(), Some("/bin/sh".into()));
        assert!(matches!(resolve("/etc/passwd"), Err(Error::Unresolved { .. })));
        assert!(matches!(resolve("io.containerd.no-such.v9"), Err(Error::Unresolved { .. })));
    }
}
