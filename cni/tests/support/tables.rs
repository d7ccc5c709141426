//! Which `iptables` the node has: a test that changes it runs in a process of its own, since that is found along the
//! process's `PATH`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use cni::Engine;

/// Tells the process that it is the test's own, and where its programs are.
const DIR: &str = "PODWRIGHT_TEST_TABLES";
/// Below there, where no `PATH` leads: all of them, whatever the node has.
const KEPT: &str = "kept";
/// Where else it finds programs, and no `iptables`.
const REST: &str = "/usr/bin:/bin";
const ENGINES: [(Engine, &str); 2] = [(Engine::NfTables, "nft"), (Engine::Legacy, "legacy")];

fn suffix(engine: Engine) -> &'static str {
    ENGINES.into_iter().find(|(one, _)| *one == engine).unwrap().1
}

/// Where the machine has a program.
fn located(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed"))
}

/// Have the kernel and the machine that engine? Newer kernels may be without the older one.
fn has(engine: Engine) -> bool {
    ["iptables", "ip6tables"].into_iter().all(|name| {
        let program = format!("{name}-{}", suffix(engine));
        let look = Command::new("unshare").args(["-n", &program, "-t", "nat", "-S"]).output();
        look.unwrap().status.success()
    })
}

fn programs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = ["", "-save", "-restore"];
    ["iptables", "ip6tables"].into_iter().flat_map(move |name| kinds.map(|kind| (name, kind)))
}

/// The node's programs.
pub(crate) struct Tables(PathBuf);

impl Tables {
    /// Those of the test `name` alone, of nf_tables at first. None in the process that has run the test elsewhere,
    /// and where there are not both engines.
    pub(crate) fn of_test(name: &str) -> Option<Self> {
        if let Some(dir) = env::var_os(DIR) {
            return Some(Self(dir.into()));
        }
        run(Engine::NfTables, &["--exact", name]);
        None
    }

    /// The node's `iptables` is another from now on.
    pub(crate) fn become_those_of(&self, engine: Engine) {
        for (name, kind) in programs() {
            let own = self.0.join(format!("{name}{kind}"));
            let _ = fs::remove_file(&own);
            // It need not be there under its full name any more.
            let full = format!("{name}-{}{kind}", suffix(engine));
            symlink(fs::read_link(self.0.join(KEPT).join(full)).unwrap(), own).unwrap();
        }
    }

    /// The node's `iptables` is a script that executes those of the engine.
    pub(crate) fn become_a_script_for(&self, engine: Engine) {
        let script = self.0.join("script");
        let kept = self.0.join(KEPT);
        let text = format!(
            "#!/bin/sh\nname=${{0##*/}}\nexec {}/${{name%%tables*}}tables-{}${{name#*tables}} \"$@\"\n",
            kept.display(),
            suffix(engine)
        );
        let fresh = script.with_extension("new");
        fs::write(&fresh, text).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(fresh, &script).unwrap();
        for (name, kind) in programs() {
            let own = self.0.join(format!("{name}{kind}"));
            let _ = fs::remove_file(&own);
            symlink(&script, own).unwrap();
        }
    }

    /// Both kinds, under their own names.
    fn unpack(&self) {
        fs::create_dir(self.0.join(KEPT)).unwrap();
        for ((name, kind), (_, suffix)) in
            programs().flat_map(|program| ENGINES.map(|engine| (program, engine)))
        {
            let full = format!("{name}-{suffix}{kind}");
            for dir in [self.0.clone(), self.0.join(KEPT)] {
                symlink(located(&full), dir.join(&full)).unwrap();
            }
        }
    }

    /// An engine's programs are no longer installed, unless the node's `iptables` is of it.
    pub(crate) fn take_away(&self, engine: Engine) {
        for (name, kind) in programs() {
            fs::remove_file(self.0.join(format!("{name}-{}{kind}", suffix(engine)))).unwrap();
        }
    }
}

/// Every test of this file but `me`, on a node whose `iptables` is of that engine.
pub(crate) fn all_on(engine: Engine, me: &str) {
    if env::var_os(DIR).is_none() {
        run(engine, &["--skip", me]);
    }
}

/// An engine's program as the machine has it.
pub(crate) fn kept(program: &str) -> PathBuf {
    Path::new(&env::var_os(DIR).unwrap()).join(KEPT).join(program)
}

/// In a test of those: is the node's `iptables` of the older kind?
pub(crate) fn is_older() -> bool {
    let dir = env::var_os(DIR).map(PathBuf::from);
    let target = dir.and_then(|dir| fs::read_link(dir.join("iptables")).ok());
    target.is_some_and(|target| target.ends_with("iptables-legacy"))
}

fn run(engine: Engine, which: &[&str]) {
    if !ENGINES.into_iter().all(|(engine, _)| has(engine)) {
        eprintln!("not tried: this machine has not both kinds of tables");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tables = Tables(dir.path().to_owned());
    tables.unpack();
    tables.become_those_of(engine);
    let status = Command::new(env::current_exe().unwrap())
        .args(which)
        .arg("--nocapture")
        .env(DIR, dir.path())
        .env("PATH", format!("{}:{REST}", dir.path().display()))
        .status();
    assert!(status.unwrap().success(), "{which:?} in a process of its own");
}
