//! UpdateContainerResources: all of it or nothing.

use std::path::Path;

use serde_json::Value;

use super::config::Resources;
use super::exec::PROCESS_FILE;
use super::node::Node;
use super::shim::Shim;
use super::spec;
use super::state::State;
use super::{Changing, Container, TABLE};
use crate::config::CgroupDriver;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::cgroup::Saved;
use crate::operation::Operation;
use crate::telemetry::blocking;

/// Changes the limits of a created or running container; values that are not set stay as they are.
///
/// # Errors
/// `WrongState` for one that has exited; whatever the OCI runtime refuses. Then nothing has changed.
pub(crate) async fn update(
    node: &Node,
    container: &Container,
    shim: Option<&Shim>,
    wanted: &Resources,
    operation: &Operation,
) -> Result<()> {
    let _verb = container.verb.lock().await;
    let old = container.now().resources;
    let merged = spec::resources::merge(&old, wanted);
    let json = told(node, &merged)?;
    let undo = match node.host.cgroup_driver {
        CgroupDriver::Systemd => Some(told(node, &spec::resources::undo(&old, wanted))?),
        CgroupDriver::Cgroupfs => None,
    };
    let running = match container.state() {
        state if container.is_removing() => return Err(wrong(container, &state)),
        State::Created => None,
        State::Running(_) => {
            Some(shim.ok_or_else(|| Error::Unavailable("the pod's shim is gone".into()))?)
        }
        state @ State::Exited(_) => return Err(wrong(container, &state)),
    };
    operation.enter("recording the new limits")?;
    let bundle = container.fixed.bundle.clone();
    let floor = node.facts.oom_score_adj_floor.map_or(i64::MIN, i64::from);
    let oom_score_adj = (wanted.oom_score_adj != 0).then(|| wanted.oom_score_adj.max(floor));
    let (at, limits) = (bundle.clone(), json.clone());
    let before = blocking(move || rewrite(&at, &limits, oom_score_adj)).await?;
    let changing = Changing { resources: merged.clone(), ..container.now() };
    let record = container.record(changing);
    let changed = async {
        node.store.put(TABLE, container.id().as_str(), &record).await?;
        let Some(shim) = running else { return Ok(()) };
        operation.enter("changing the limits of the running container")?;
        change(container, shim, Limits { json, undo }, &merged, oom_score_adj).await
    };
    let keep = |record: &_| node.keep_later(record, container);
    if let Err(err) = changed.await {
        container.set_resources(container.now().resources, keep);
        if let Err(err) = blocking(move || before.restore(&bundle)).await {
            tracing::error!(container = %container.id(), %err, "its bundle has limits that are not in force");
        }
        return Err(err);
    }
    container.set_resources(merged, keep);
    Ok(())
}

/// What the OCI runtime is told, and what where that fails: systemd would write what it has been told again, whatever
/// the cgroup's files say by then.
struct Limits {
    json: Vec<u8>,
    undo: Option<Vec<u8>>,
}

/// Limits, as the OCI runtime reads them.
fn told(node: &Node, resources: &Resources) -> Result<Vec<u8>> {
    let linux = match node.host.cgroup_driver {
        CgroupDriver::Systemd => {
            spec::resources::limits(&spec::resources::for_systemd(resources), &node.facts)
        }
        CgroupDriver::Cgroupfs => spec::resources::limits(resources, &node.facts),
    };
    serde_json::to_vec(&linux?).map_err(internal)
}

/// Changes what runs: all of it, or what the kernel had is put back.
async fn change(
    container: &Container,
    shim: &Shim,
    limits: Limits,
    wanted: &Resources,
    oom_score_adj: Option<i64>,
) -> Result<()> {
    let cgroup = container.fixed.cgroups_path.clone();
    let files: Vec<String> = wanted.unified.keys().cloned().collect();
    let before = {
        let cgroup = cgroup.clone();
        blocking(move || Ok(Saved::limits(&cgroup, files.iter().map(String::as_str)))).await?
    };
    let changed = match shim.update(container, limits.json).await {
        Ok(()) => blocking(move || set_oom_scores(&cgroup, oom_score_adj)).await,
        Err(err) => Err(err),
    };
    if changed.is_err() {
        if let Some(undo) = limits.undo
            && let Err(err) = shim.update(container, undo).await
        {
            tracing::warn!(container = %container.id(), %err, "systemd may keep limits that were refused");
        }
        let left = blocking(move || Ok(before.restore())).await?;
        if !left.is_empty() {
            tracing::error!(container = %container.id(), ?left, "limits that are not as they were");
        }
    }
    changed
}

/// Of all processes that are there; later ones inherit it. Blocks.
fn set_oom_scores(cgroups_path: &str, score: Option<i64>) -> Result<()> {
    let Some(score) = score else { return Ok(()) };
    let before = Saved::oom_scores(cgroups_path);
    before.write(&score.to_string()).map_err(|(path, err)| {
        before.restore();
        Error::io("write", &path)(err)
    })
}

fn wrong(container: &Container, state: &State) -> Error {
    let what = if container.is_removing() { "being removed" } else { state.name() };
    Error::WrongState(format!("container {} is {what}", container.id()))
}

#[allow(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn internal(err: serde_json::Error) -> Error {
    Error::Internal(err.to_string())
}

/// The name of a bundle's spec.
const SPEC: &str = "config.json";

/// A bundle's files as they were.
struct Bundle {
    spec: Vec<u8>,
    /// `None`: it was not changed.
    process: Option<Vec<u8>>,
}

impl Bundle {
    /// Blocks.
    fn restore(&self, bundle: &Path) -> Result<()> {
        if let Some(process) = &self.process {
            replace(&bundle.join(PROCESS_FILE), process)?;
        }
        replace(&bundle.join(SPEC), &self.spec)
    }
}

/// Puts new limits into a bundle; what it was before. Device rules are not part of an update: what there is of them
/// stays. Blocks.
fn rewrite(bundle: &Path, limits: &[u8], oom_score_adj: Option<i64>) -> Result<Bundle> {
    let path = bundle.join(SPEC);
    let spec = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let mut json: Value = serde_json::from_slice(&spec).map_err(internal)?;
    let fresh: Value = serde_json::from_slice(limits).map_err(internal)?;
    let old = json.pointer_mut("/linux/resources").and_then(Value::as_object_mut);
    if let (Some(old), Value::Object(fresh)) = (old, fresh) {
        old.extend(fresh.into_iter().filter(|(_, value)| !value.is_null()));
    }
    // For a container that is not started yet, and for the commands of one that is.
    let mut before = Bundle { spec, process: None };
    if let Some(wanted) = oom_score_adj {
        if let Some(score) = json.pointer_mut("/process/oomScoreAdj") {
            *score = wanted.into();
        }
        before.process = Some(rescore(&bundle.join(PROCESS_FILE), wanted)?);
    }
    if let Err(err) = replace(&path, &serde_json::to_vec(&json).map_err(internal)?) {
        before.restore(bundle).ok();
        return Err(err);
    }
    Ok(before)
}

/// The file as it was.
fn rescore(path: &Path, wanted: i64) -> Result<Vec<u8>> {
    let before = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut process: Value = serde_json::from_slice(&before).map_err(internal)?;
    process["oomScoreAdj"] = wanted.into();
    replace(path, &serde_json::to_vec(&process).map_err(internal)?)?;
    Ok(before)
}

/// The file is the old one or the new one, never a part.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let whole = path.with_extension("new");
    failpoint::step("update/write", || {
        std::fs::write(&whole, bytes).map_err(Error::io("write", &whole))
    })?;
    failpoint::step("update/replace", || {
        std::fs::rename(&whole, path).map_err(Error::io("replace", path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_merged_into_the_bundle_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let spec = r#"{"process":{"oomScoreAdj":0},
            "linux":{"resources":{"devices":[{"allow":false}],"pids":{"limit":7}}}}"#;
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        std::fs::write(dir.path().join(SPEC), spec).unwrap();
        std::fs::write(dir.path().join(PROCESS_FILE), r#"{"cwd":"/"}"#).unwrap();
        let limits = br#"{"cpu":{"shares":5},"pids":null}"#;
        let before = rewrite(dir.path(), limits, Some(9)).unwrap();
        let after: Value = serde_json::from_str(&read(SPEC)).unwrap();
        let resources = &after["linux"]["resources"];
        assert_eq!(resources["cpu"]["shares"], 5);
        assert_eq!(after["process"]["oomScoreAdj"], 9);
        assert_eq!(resources["pids"]["limit"], 7);
        assert_eq!(resources["devices"][0]["allow"], false);
        let process: Value = serde_json::from_str(&read(PROCESS_FILE)).unwrap();
        assert_eq!((&process["oomScoreAdj"], &process["cwd"]), (&9.into(), &"/".into()));
        before.restore(dir.path()).unwrap();
        assert_eq!((read(SPEC).as_str(), read(PROCESS_FILE).as_str()), (spec, r#"{"cwd":"/"}"#));
        // Without a score of its own a change leaves that of commands alone.
        rewrite(dir.path(), limits, None).unwrap();
        assert_eq!(read(PROCESS_FILE), r#"{"cwd":"/"}"#);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
