//! AppArmor on this node: which profiles are loaded, and one of ours that RuntimeDefault stands for.
//!
//! Profiles of others come and go while we run, so nothing is remembered of them. Ours may be taken away too, by a
//! restart of the service that manages all others: it is looked for each time it is wanted, and loaded again. Its
//! text is kept among what ends with the boot, as loaded profiles do; a new version of it replaces the old.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{find_on_path, process};

/// The name of our profile.
pub(crate) const DEFAULT_PROFILE: &str = "podwright-default";
const ENABLED: &str = "sys/module/apparmor/parameters/enabled";
const LOADED: &str = "sys/kernel/security/apparmor/profiles";
/// Under which profile a process runs; the second is from before other security modules could be beside this one.
const LABELS: [&str; 2] = ["proc/self/attr/apparmor/current", "proc/self/attr/current"];
/// Where the system keeps what profiles are made of.
const LIBRARY: &str = "etc/apparmor.d";
/// Reads a profile's text, and hands it to the kernel.
const PARSER: &str = "apparmor_parser";
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kernel that has AppArmor.
#[derive(Debug)]
pub(crate) struct AppArmor {
    root: PathBuf,
    /// The text of our profile, once it is loaded.
    text: PathBuf,
    parser: Option<PathBuf>,
    loading: Mutex<()>,
}

impl AppArmor {
    /// `None` where it is not enabled, or nobody tells which profiles are loaded: in a container of somebody else's it is
    /// not ours to use. `root` is the directory that everything of the system is looked for in.
    pub(crate) fn probe(root: &Path, state: &Path) -> Option<Self> {
        let enabled = std::fs::read_to_string(root.join(ENABLED)).ok()?;
        let told = root.join(LOADED).exists();
        (told && enabled.trim() == "Y").then(|| Self {
            root: root.to_owned(),
            text: state.join("apparmor"),
            parser: find_on_path(PARSER),
            loading: Mutex::default(),
        })
    }

    /// Whether a profile of that name is loaded. Blocks.
    ///
    /// # Errors
    /// A text, when the kernel does not tell.
    pub(crate) fn is_loaded(&self, name: &str) -> Result<bool, String> {
        let path = self.root.join(LOADED);
        let all = std::fs::read_to_string(&path)
            .map_err(|err| format!("read {}: {err}", path.display()))?;
        // Lines of the form `name (mode)`.
        Ok(all.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name)))
    }

    /// Sees to it that our own profile is loaded. Blocks.
    ///
    /// # Errors
    /// A text, when it is not and cannot be.
    pub(crate) fn load_default(&self) -> Result<(), String> {
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.is_loaded(DEFAULT_PROFILE)?;
        let text = profile(&self.root);
        if loaded && std::fs::read_to_string(&self.text).is_ok_and(|old| old == text) {
            return Ok(());
        }
        match self.load(&text) {
            // Somebody else's under our name, or that of an earlier version: it confines too.
            Err(err) if loaded => {
                tracing::warn!(%err, "AppArmor profile {DEFAULT_PROFILE} is not replaced");
                Ok(())
            }
            done => done,
        }
    }

    fn load(&self, text: &str) -> Result<(), String> {
        let parser = self.parser.as_ref().ok_or_else(|| format!("there is no {PARSER} on PATH"))?;
        let fresh = self.text.with_extension("new");
        let io = |err: std::io::Error| format!("{}: {err}", fresh.display());
        std::fs::write(&fresh, text).map_err(io)?;
        let mut command = Command::new(parser);
        let output =
            process::run(command.args(["--replace", "--skip-cache"]).arg(&fresh), PATIENCE)
                .map_err(|err| format!("{}: {err}", parser.display()))?;
        if !output.success {
            return Err(format!("{}: {}", parser.display(), output.stderr));
        }
        std::fs::rename(&fresh, &self.text).map_err(io)
    }
}

/// Who may send signals to containers: unconfined processes, OCI runtimes that have profiles of their own, and we.
fn signallers(root: &Path) -> Vec<String> {
    let label = LABELS.iter().find_map(|path| std::fs::read_to_string(root.join(path)).ok());
    // `name (mode)`.
    let own =
        label.as_deref().and_then(|label| label.split_whitespace().next()).unwrap_or_default();
    let mut all = vec!["unconfined".to_owned()];
    all.extend(["crun", "runc", "youki"].map(str::to_owned));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-".contains(c);
    if !all.iter().any(|known| known == own) && !own.is_empty() && own.chars().all(plain) {
        all.push(own.to_owned());
    }
    all
}

/// Our profile: everything that capabilities, mounts and seccomp leave possible, but for the host's side of /proc and
/// /sys, mounting, and signalling or tracing what is no container.
fn profile(root: &Path) -> String {
    let library = |file: &str| root.join(LIBRARY).join(file).exists();
    let mut text = String::new();
    if library("abi/3.0") {
        text.push_str("abi <abi/3.0>,\n");
    }
    text.push_str(match library("tunables/global") {
        true => "include <tunables/global>\n",
        false => "@{PROC}=/proc/\n",
    });
    writeln!(text, "profile {DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {{").ok();
    if library("abstractions/base") {
        text.push_str("  include <abstractions/base>\n");
    }
    text.push_str("  capability,\n  file,\n  network,\n  umount,\n  deny mount,\n");
    for peer in signallers(root) {
        writeln!(text, "  signal (receive) peer={peer},").ok();
    }
    writeln!(text, "  signal (send,receive) peer={DEFAULT_PROFILE},").ok();
    writeln!(text, "  ptrace (trace,tracedby,read,readby) peer={DEFAULT_PROFILE},").ok();
    for rule in denials() {
        writeln!(text, "  deny {rule},").ok();
    }
    text.push_str("}\n");
    text
}

/// Of /proc, only what processes own and shm's parameters can be written; of /sys, only cgroups.
fn denials() -> Vec<String> {
    let mut all = vec!["@{PROC}/* w".to_owned(), "@{PROC}/[^1-9s]*/** w".to_owned()];
    all.extend(other_than("@{PROC}", "sys", "/** w"));
    all.extend(other_than("@{PROC}/sys", "kernel", "** w"));
    all.extend(other_than("@{PROC}/sys/kernel", "shm", "** w"));
    all.extend(["sysrq-trigger", "kcore"].map(|file| format!("@{{PROC}}/{file} rwklx")));
    all.extend(other_than("/sys", "fs", "/** wklx"));
    all.extend(other_than("/sys/fs", "cgroup", "/** wklx"));
    let hidden = ["firmware", "devices/virtual/powercap", "kernel/security"];
    all.extend(hidden.map(|dir| format!("/sys/{dir}/** rwklx")));
    all
}

/// One rule for each letter in which a name in `dir` may differ from `name` first. Digits are names of processes.
fn other_than<'a>(dir: &'a str, name: &'a str, rest: &'a str) -> impl Iterator<Item = String> + 'a {
    name.char_indices().filter_map(move |(at, letter)| {
        let star = if rest.starts_with('/') { "*" } else { "" };
        let first_of_proc = at == 0 && dir == "@{PROC}";
        (!first_of_proc).then(|| format!("{dir}/{}[^{letter}]{star}{rest}", &name[..at]))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A system with AppArmor, whose parser notes what it loads.
    fn system() -> (tempfile::TempDir, AppArmor) {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        put(ENABLED, "Y\n");
        let loaded = put(LOADED, "docker-default (enforce)\n/usr/bin/man (complain)\n");
        let parser = put(
            "parser",
            &format!(
                "#!/bin/sh\ntest -e {0}/broken && {{ echo no policy >&2; exit 1; }}\n\
                 sed -n 's/^profile \\([^ ]*\\) .*/\\1 (enforce)/p' \"$3\" >>{1}\necho x >>{0}/runs\n",
                dir.path().display(),
                loaded.display()
            ),
        );
        std::fs::set_permissions(&parser, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut apparmor = AppArmor::probe(dir.path(), dir.path()).unwrap();
        apparmor.parser = Some(parser);
        (dir, apparmor)
    }

    fn runs(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("runs")).map_or(0, |runs| runs.lines().count())
    }

    #[test]
    fn a_kernel_without_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AppArmor::probe(dir.path(), dir.path()).is_none());
        let enabled = dir.path().join(ENABLED);
        std::fs::create_dir_all(enabled.parent().unwrap()).unwrap();
        for said in ["N\n", "Y\n"] {
            std::fs::write(&enabled, said).unwrap();
            assert!(AppArmor::probe(dir.path(), dir.path()).is_none(), "{said}");
        }
    }

    #[test]
    fn profiles_are_known_by_their_whole_name() {
        let (_dir, apparmor) = system();
        for (name, loaded) in [
            ("docker-default", true),
            ("/usr/bin/man", true),
            ("docker", false),
            ("", false),
            ("docker-default (enforce)", false),
        ] {
            assert_eq!(apparmor.is_loaded(name), Ok(loaded), "{name:?}");
        }
    }

    #[test]
    fn ours_is_loaded_once_and_again_when_it_is_gone_or_old() {
        let (dir, apparmor) = system();
        for _ in 0..2 {
            apparmor.load_default().unwrap();
            assert_eq!(runs(dir.path()), 1);
        }
        let loaded = dir.path().join(LOADED);
        std::fs::write(&loaded, "").unwrap();
        apparmor.load_default().unwrap();
        assert_eq!((runs(dir.path()), apparmor.is_loaded(DEFAULT_PROFILE)), (2, Ok(true)));
        std::fs::write(&apparmor.text, "profile of an older version").unwrap();
        apparmor.load_default().unwrap();
        assert_eq!(runs(dir.path()), 3);
    }

    #[test]
    fn what_keeps_it_from_being_loaded_is_told() {
        let (dir, mut apparmor) = system();
        std::fs::write(dir.path().join("broken"), "").unwrap();
        let err = apparmor.load_default().unwrap_err();
        assert!(err.ends_with("no policy"), "{err}");
        apparmor.parser = None;
        assert_eq!(apparmor.load_default(), Err("there is no apparmor_parser on PATH".into()));
        // One that is there, from wherever, is taken.
        std::fs::write(dir.path().join(LOADED), format!("{DEFAULT_PROFILE} (enforce)\n")).unwrap();
        assert_eq!(apparmor.load_default(), Ok(()));
    }

    #[test]
    fn the_profile_has_what_the_system_has() {
        let dir = tempfile::tempdir().unwrap();
        let bare = profile(dir.path());
        assert!(bare.starts_with("@{PROC}=/proc/\nprofile podwright-default "), "{bare}");
        assert!(!bare.contains("include") && !bare.contains("abi <"));
        for (path, text) in [
            ("etc/apparmor.d/abi/3.0", ""),
            ("etc/apparmor.d/tunables/global", ""),
            (LABELS[1], "/usr/bin/podwrightd (enforce)"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let whole = profile(dir.path());
        for part in [
            "abi <abi/3.0>,\ninclude <tunables/global>\n",
            "signal (receive) peer=/usr/bin/podwrightd,",
            "signal (send,receive) peer=podwright-default,",
            "deny mount,",
            "deny @{PROC}/sy[^s]*/** w,",
            "deny @{PROC}/sys/[^k]** w,",
            "deny @{PROC}/sys/kernel/sh[^m]** w,",
            "deny /sys/fs/cgrou[^p]*/** wklx,",
            "deny /sys/devices/virtual/powercap/** rwklx,",
        ] {
            assert!(whole.contains(part), "{part} is not in\n{whole}");
        }
        // Own processes, and what starts like /proc/sys without being it.
        assert!(!whole.contains("@{PROC}/[^s]"));
        assert_eq!(whole.matches('{').count(), whole.matches('}').count());
    }
}
