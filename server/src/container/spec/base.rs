//! A handler's base spec: what holds where the CRI has no word for it.
//!
//! Hooks, limits of processes and devices' weights, kernel parameters, mounts at other places, annotations. What the
//! CRI decides, confinement above all, is never taken from it, also where a container's own spec leaves it out:
//! no seccomp profile there means that none was asked for.

use oci_spec::runtime::Spec;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What the CRI decides, whatever it says.
const OF_CRI: [&str; 28] = [
    "/ociVersion",
    "/root",
    "/hostname",
    "/domainname",
    "/process/args",
    "/process/commandLine",
    "/process/env",
    "/process/cwd",
    "/process/user",
    "/process/terminal",
    "/process/consoleSize",
    "/process/capabilities",
    "/process/noNewPrivileges",
    "/process/apparmorProfile",
    "/process/selinuxLabel",
    "/process/oomScoreAdj",
    "/linux/namespaces",
    "/linux/uidMappings",
    "/linux/gidMappings",
    "/linux/cgroupsPath",
    "/linux/seccomp",
    "/linux/maskedPaths",
    "/linux/readonlyPaths",
    "/linux/rootfsPropagation",
    "/linux/mountLabel",
    "/linux/devices",
    "/linux/netDevices",
    "/linux/resources/devices",
];

/// `spec` on top of `base`.
///
/// # Errors
/// When what comes of it is no spec.
pub(super) fn under(spec: &Spec, base: &Value) -> Result<Spec> {
    let wrong = |err: serde_json::Error| Error::Internal(format!("the handler's base spec: {err}"));
    let mut merged = base.clone();
    for path in OF_CRI {
        let (parent, name) = path.rsplit_once('/').unwrap_or_default();
        if let Some(Value::Object(parent)) = merged.pointer_mut(parent) {
            parent.remove(name);
        }
    }
    let own = serde_json::to_value(spec).map_err(wrong)?;
    let mounts = together(&merged, &own, "/mounts", "destination");
    let rlimits = together(&merged, &own, "/process/rlimits", "type");
    overlay(&mut merged, own);
    merged["mounts"] = by_depth(mounts).into();
    if !rlimits.is_empty() {
        merged["process"]["rlimits"] = rlimits.into();
    }
    serde_json::from_value(merged).map_err(wrong)
}

/// Objects are merged, anything else is replaced.
fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert_with(|| Value::Object(Map::new())), value);
            }
        }
        (below, above) => *below = above,
    }
}

/// Both lists, without what the lower has under a name that the upper has too.
fn together(below: &Value, above: &Value, path: &str, name: &str) -> Vec<Value> {
    let list = |of: &Value| of.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let above = list(above);
    let mut all = list(below);
    all.retain(|item| above.iter().all(|other| other[name] != item[name]));
    all.extend(above);
    all
}

/// What lies deeper is mounted later.
fn by_depth(mut mounts: Vec<Value>) -> Vec<Value> {
    let depth = |mount: &Value| {
        let path = mount["destination"].as_str().unwrap_or_default();
        path.split('/').filter(|part| !part.is_empty()).count()
    };
    mounts.sort_by_key(depth);
    mounts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::plain;
    use super::*;

    #[test]
    fn the_base_holds_where_the_cri_says_nothing() {
        let mut fixture = plain();
        fixture.mount("/vol", "/data/own");
        fixture.handler.base_spec = Some(json!({
            "ociVersion": "1.0.0",
            "hooks": {"createRuntime": [{"path": "/usr/bin/hook"}]},
            "annotations": {"base": "yes", "io.kubernetes.cri.container-name": "other"},
            "mounts": [
                {"destination": "/data", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/proc", "type": "bind", "source": "/"},
            ],
            "process": {
                "cwd": "/base", "env": ["X=Y"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
                "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
                "capabilities": {"ambient": ["CAP_SYS_ADMIN"], "bounding": ["CAP_SYS_ADMIN"]},
            },
            "linux": {
                "sysctl": {"net.core.somaxconn": "1024"},
                "resources": {"pids": {"limit": 100}, "memory": {"limit": 1}, "devices": [{"allow": true}]},
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
                "cgroupsPath": "/", "maskedPaths": [], "namespaces": [],
                "devices": [{"path": "/dev/mem", "type": "c", "major": 1, "minor": 1}],
            },
        }));
        let with = fixture.json();
        assert_eq!(with["hooks"]["createRuntime"][0]["path"], "/usr/bin/hook");
        assert_eq!(with["annotations"]["base"], "yes");
        assert_eq!(with["linux"]["sysctl"]["net.core.somaxconn"], "1024");
        assert_eq!(with["linux"]["resources"]["pids"]["limit"], 100);
        assert_eq!(with["process"]["rlimits"][0]["type"], "RLIMIT_CORE");
        let targets: Vec<&str> = with["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap())
            .collect();
        let at = |target: &str| targets.iter().position(|other| *other == target).unwrap();
        assert!(at("/data") < at("/data/own"));
        // All else is as without.
        fixture.handler.base_spec = None;
        let without = fixture.json();
        let bounding = with["process"]["capabilities"]["bounding"].as_array().unwrap();
        assert!(!bounding.contains(&json!("CAP_SYS_ADMIN")) && bounding.len() == 14);
        for path in OF_CRI
            .iter()
            .chain(&["/linux/resources/memory", "/annotations/io.kubernetes.cri.container-name"])
        {
            // A set, in whatever order.
            if *path != "/process/capabilities" {
                assert_eq!(with.pointer(path), without.pointer(path), "{path}");
            }
        }
        let proc = |spec: &Value| {
            spec["mounts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|mount| mount["destination"] == "/proc")
                .cloned()
        };
        assert_eq!(proc(&with), proc(&without));
    }
}
