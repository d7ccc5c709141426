//! Which `iptables` the node has: a test that changes it runs in a process of its own, since that is found along the
//! process's `PATH`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use cni::Engine;

/// Tells the process that it is the test's own, and where its programs are.
const DIR: &str = "PODWRIGHT_TEST_TABLES";
/// Where else it finds programs, and no `iptables`.
const REST: &str = "/usr/bin:/bin";
const SBIN: &str = "/usr/sbin";
const ENGINES: [(Engine, &str); 2] = [(Engine::NfTables, "nft"), (Engine::Legacy, "legacy")];

fn programs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kinds = ["", "-save", "-restore"];
    ["iptables", "ip6tables"].into_iter().flat_map(move |name| kinds.map(|kind| (name, kind)))
}

/// The node's programs.
pub(crate) struct Tables(PathBuf);

impl Tables {
    /// Those of the test `name` alone, of nf_tables at first. None in the process that has run the test elsewhere.
    pub(crate) fn of_test(name: &str) -> Option<Self> {
        if let Some(dir) = env::var_os(DIR) {
            return Some(Self(dir.into()));
        }
        run(Engine::NfTables, &["--exact", name]);
        None
    }

    /// The node's `iptables` is another from now on.
    pub(crate) fn become_those_of(&self, engine: Engine) {
        let (_, suffix) = ENGINES.into_iter().find(|(one, _)| *one == engine).unwrap();
        for (name, kind) in programs() {
            let own = self.0.join(format!("{name}{kind}"));
            let _ = fs::remove_file(&own);
            let target = Path::new(SBIN).join(format!("{name}-{suffix}{kind}"));
            assert!(target.exists(), "{} is not installed", target.display());
            symlink(target, own).unwrap();
        }
    }

    /// Both kinds, under their own names.
    fn unpack(&self) {
        for ((name, kind), (_, suffix)) in
            programs().flat_map(|program| ENGINES.map(|engine| (program, engine)))
        {
            let full = format!("{name}-{suffix}{kind}");
            symlink(Path::new(SBIN).join(&full), self.0.join(&full)).unwrap();
        }
    }

    /// An engine's programs are no longer installed, unless the node's `iptables` is of it.
    pub(crate) fn take_away(&self, engine: Engine) {
        let (_, suffix) = ENGINES.into_iter().find(|(one, _)| *one == engine).unwrap();
        for (name, kind) in programs() {
            fs::remove_file(self.0.join(format!("{name}-{suffix}{kind}"))).unwrap();
        }
    }
}

/// Every test of this file but `me`, on a node whose `iptables` is of that engine.
pub(crate) fn all_on(engine: Engine, me: &str) {
    if env::var_os(DIR).is_none() {
        run(engine, &["--skip", me]);
    }
}

/// In a test of those: is the node's `iptables` of the older kind?
pub(crate) fn is_older() -> bool {
    let dir = env::var_os(DIR).map(PathBuf::from);
    let target = dir.and_then(|dir| fs::read_link(dir.join("iptables")).ok());
    target.is_some_and(|target| target.ends_with("iptables-legacy"))
}

fn run(engine: Engine, which: &[&str]) {
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
