use std::path::Path;

use serde_json::json;

use super::Registry;
use super::name::Name;
use crate::container::config::ContainerConfig;
use crate::container::spec::{DeviceKind, Edits};

const YAML: &str = "
cdiVersion: 0.6.0
kind: vendor.com/net
devices:
- name: eth0
  containerEdits:
    deviceNodes:
    - path: /dev/net0
      hostPath: /dev/null
      permissions: rw
    additionalGids: [7, 0]
  annotations: {a: b}
containerEdits:
  env: [NET=on]
";

fn asking(devices: &[&str], annotation: &str) -> ContainerConfig {
    let mut config = crate::container::spec::fixture::config();
    config.cdi_devices = devices.iter().map(ToString::to_string).collect();
    if !annotation.is_empty() {
        config.annotations.insert("cdi.k8s.io/plugin".into(), annotation.into());
    }
    config
}

fn gpu(env: &str) -> String {
    json!({
        "cdiVersion": "0.5.0",
        "kind": "vendor.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": [env]}},
                    {"name": "1", "containerEdits": {"env": ["GPU1=x"]}}],
        "containerEdits": {"mounts": [{"hostPath": "/opt/v", "containerPath": "/usr/v"}]},
    })
    .to_string()
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn names_are_checked_whole() {
    for good in ["vendor.com/gpu=0", "v/c=a.b-c_d:e", "nvidia.com/gpu=all", "v/c=0"] {
        assert_eq!(Name::parse(good).unwrap().to_string(), good);
    }
    for bad in
        ["", "gpu", "v/c", "v/c=", "/c=x", "v/=x", "1v/c=x", "v/c=-x", "v/c=x y", "v/c=../x", "v=x"]
    {
        Name::parse(bad).unwrap_err();
    }
}

#[test]
fn both_ways_to_ask_give_each_device_once() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "gpu.json", &gpu("GPU0=x"));
    write(dir.path(), "net.yaml", YAML);
    write(dir.path(), "other.txt", "not looked at");
    let registry = Registry::new(vec!["/no/such/dir".into(), dir.path().to_owned()]);
    let config =
        asking(&["vendor.com/gpu=1", "vendor.com/net=eth0"], "vendor.com/gpu=1,vendor.com/gpu=0");
    let edits = registry.edits(&config).unwrap();
    assert_eq!(edits.env, ["GPU1=x", "NET=on", "GPU0=x"]);
    assert_eq!(edits.gids, [7], "root is never added");
    let [device] = &edits.devices[..] else { panic!("{:?}", edits.devices) };
    assert_eq!((device.node.path.as_str(), device.node.access.as_str()), ("/dev/net0", "rw"));
    assert_eq!((device.node.major, device.node.minor), (1, 3));
    assert_eq!(device.node.kind, DeviceKind::Char);
    assert_eq!(registry.edits(&asking(&[], "")).unwrap(), Edits::default());
}

#[test]
fn what_changes_is_read_again_and_later_directories_win() {
    let dir = tempfile::tempdir().unwrap();
    let (low, high) = (dir.path().join("low"), dir.path().join("high"));
    let registry = Registry::new(vec![low.clone(), high.clone()]);
    let config = asking(&["vendor.com/gpu=0"], "");
    let env = || registry.edits(&config).map(|edits| edits.env).map_err(|err| err.to_string());
    let err = env().unwrap_err();
    assert_eq!(err, "CDI_devices: there is no device vendor.com/gpu=0");
    write(&low, "a.json", &gpu("FROM=low"));
    assert_eq!(env().unwrap(), ["FROM=low"]);
    write(&low, "a.json", &gpu("FROM=low, longer"));
    assert_eq!(env().unwrap(), ["FROM=low, longer"]);
    write(&high, "b.json", &gpu("FROM=high"));
    assert_eq!(env().unwrap(), ["FROM=high"]);
    write(&high, "c.json", &gpu("FROM=another"));
    assert!(env().unwrap_err().contains("is in several files: "));
    std::fs::remove_dir_all(&high).unwrap();
    assert_eq!(env().unwrap(), ["FROM=low, longer"]);
    write(&low, "a.json", "{");
    let err = env().unwrap_err();
    assert!(err.contains("there is no device") && err.contains("a.json is not read: "), "{err}");
}

#[test]
fn a_file_that_is_not_understood_whole_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(vec![dir.path().to_owned()]);
    let good = gpu("A=b");
    for (from, to) in [
        ("0.5.0", "9.0.0"),
        ("vendor.com/gpu", "vendor"),
        ("\"env\"", "\"environment\""),
        ("A=b", "A"),
        ("\"name\":\"1\"", "\"name\":\"0\""),
        ("\"name\":\"1\"", "\"name\":\"a b\""),
        ("/usr/v", "usr/v"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        write(dir.path(), "a.json", &text);
        let err = registry.edits(&asking(&["vendor.com/gpu=0"], "")).unwrap_err().to_string();
        assert!(err.contains("a.json is not read: "), "{to}: {err}");
    }
    write(dir.path(), "a.json", &good);
    registry.edits(&asking(&["vendor.com/gpu=0"], "")).unwrap();
    let err = registry.edits(&asking(&["gpu0"], "")).unwrap_err().to_string();
    assert!(err.starts_with("CDI_devices[0].name: \"gpu0\""), "{err}");
    let err = registry.edits(&asking(&[], "x")).unwrap_err().to_string();
    assert!(err.starts_with("annotations[\"cdi.k8s.io/plugin\"]: "), "{err}");
}
