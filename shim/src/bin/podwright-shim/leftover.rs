//! What a shim notes down so that its work can be undone without it.
//!
//! `<shim>/tasks/<id>.json` says how to call the runtime for each container (with a copy in the
//! container's bundle), `<shim>/init.json` which process is the init of the pod's shared pid
//! namespace. The `delete` command reads them after a shim has died.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shim::record::RUNTIME_NOTE;

use crate::runtime::Runtime;

const TASKS: &str = "tasks";
const INIT: &str = "init.json";
const MAX_SIZE: u64 = 64 * 1024;

/// A container that a shim had.
pub(crate) struct Leftover {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runtime: Runtime,
}

/// Notes a container down, before its runtime is called.
pub(crate) fn record(shim: &Path, bundle: &Path, id: &str, runtime: &Runtime) -> io::Result<()> {
    let note = json!({
        "id": id,
        "bundle": bundle,
        "runtime": runtime.binary,
        "root": runtime.root,
        "systemd_cgroup": runtime.systemd_cgroup,
        "arguments": runtime.arguments,
    })
    .to_string();
    fs::write(bundle.join(RUNTIME_NOTE), &note)?;
    fs::create_dir_all(shim.join(TASKS))?;
    fs::write(task(shim, id), note)
}

/// The container is gone, and nothing of it is left.
pub(crate) fn forget(shim: &Path, bundle: &Path, id: &str) {
    let _ = fs::remove_file(bundle.join(RUNTIME_NOTE));
    let _ = fs::remove_file(task(shim, id));
}

/// Notes down the init of the pid namespace.
pub(crate) fn record_init(shim: &Path, pid: u32) -> io::Result<()> {
    let started = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
    fs::write(shim.join(INIT), json!({ "pid": pid, "started": started }).to_string())
}

/// It is gone.
pub(crate) fn forget_init(shim: &Path) {
    let _ = fs::remove_file(shim.join(INIT));
}

/// All containers noted down in a bundle, be it a shim's or a container's own.
pub(crate) fn containers(bundle: &Path) -> Vec<Leftover> {
    let mut notes = vec![bundle.join(RUNTIME_NOTE)];
    if let Ok(entries) = fs::read_dir(bundle.join(TASKS)) {
        notes.extend(entries.flatten().map(|entry| entry.path()));
    }
    notes.iter().filter_map(|path| parse(&read(path)?)).collect()
}

/// The init noted down, if that very process still lives.
pub(crate) fn init(bundle: &Path) -> Option<u32> {
    let note = read(&bundle.join(INIT))?;
    let pid = u32::try_from(note["pid"].as_u64()?).ok()?;
    (start_time(pid) == note["started"].as_u64()).then_some(pid)
}

fn task(shim: &Path, id: &str) -> PathBuf {
    shim.join(TASKS).join(format!("{id}.json"))
}

fn read(path: &Path) -> Option<Value> {
    if fs::metadata(path).ok()?.len() > MAX_SIZE {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn parse(note: &Value) -> Option<Leftover> {
    let path = |key: &str| note[key].as_str().map(PathBuf::from);
    let arguments = note["arguments"].as_array()?;
    Some(Leftover {
        id: note["id"].as_str()?.to_owned(),
        bundle: path("bundle")?,
        runtime: Runtime {
            binary: path("runtime")?,
            root: path("root"),
            systemd_cgroup: note["systemd_cgroup"].as_bool()?,
            arguments: arguments.iter().filter_map(|word| Some(word.as_str()?.into())).collect(),
        },
    })
}

/// When a process was started, in the kernel's ticks: with the pid, its identity.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything; what follows the last parenthesis does not.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let bundle = dir.path().join("bundle");
        fs::create_dir(&bundle).expect("a directory");
        let runtime = Runtime {
            binary: "/bin/runc".into(),
            root: Some("/run/r".into()),
            systemd_cgroup: true,
            arguments: vec!["--debug".into()],
        };
        record(dir.path(), &bundle, "c1", &runtime).expect("written");
        for place in [dir.path(), &bundle] {
            let [found] = &containers(place)[..] else { panic!("one note in {place:?}") };
            assert_eq!((found.id.as_str(), &found.bundle), ("c1", &bundle));
            assert_eq!(found.runtime.root, runtime.root);
            assert_eq!(found.runtime.arguments, runtime.arguments);
        }
        forget(dir.path(), &bundle, "c1");
        assert!(containers(dir.path()).is_empty() && containers(&bundle).is_empty());
    }

    #[test]
    fn an_init_is_believed_only_with_its_start_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let ours = std::process::id();
        record_init(dir.path(), ours).expect("written");
        assert_eq!(init(dir.path()), Some(ours));
        fs::write(dir.path().join(INIT), json!({ "pid": ours, "started": 1 }).to_string())
            .expect("written");
        assert_eq!(init(dir.path()), None);
    }
}
