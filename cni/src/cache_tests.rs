//! The cache against what libcni writes.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::os::unix::fs::PermissionsExt;

const LIST: &[u8] = br#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"x"}]}"#;

fn sample() -> (Network, Attachment, CniResult) {
    let mut attachment = Attachment::for_pod("abc123", "ns", "pod", "uid");
    attachment.netns = Some("/run/netns/x".into());
    attachment.args.truncate(2);
    attachment.capabilities.mac = Some("02:00:00:00:00:01".into());
    let result = CniResult::parse(br#"{"ips":[{"address":"10.0.0.2/24"}]}"#, "1.0.0").unwrap();
    (Network::parse(LIST).unwrap(), attachment, result)
}

#[test]
fn an_entry_is_as_libcni_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (network, attachment, result) = sample();
    write(dir.path(), &network, &attachment, &result).unwrap();
    let file = dir.path().join("results/net-abc123-eth0");
    let json = fs::read_to_string(&file).unwrap();
    let config = BASE64.encode(LIST);
    let expected = format!(
        r#"{{"kind":"cniCacheV1","containerId":"abc123","config":"{config}","ifName":"eth0","networkName":"net","netns":"/run/netns/x","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","ns"]],"capabilityArgs":{{"mac":"02:00:00:00:00:01"}},"result":{{"cniVersion":"1.0.0","ips":[{{"address":"10.0.0.2/24"}}]}}}}"#
    );
    assert_eq!(json, expected);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(dir.path().join("results")).unwrap().permissions().mode() & 0o777,
        0o700
    );

    let entry = read(dir.path(), &network, &attachment).unwrap();
    let again = entry.attachment();
    assert_eq!(again.capabilities.by_name(), attachment.capabilities.by_name());
    let again = Attachment { capabilities: attachment.capabilities.clone(), ..again };
    assert_eq!((again, entry.config.as_slice()), (attachment.clone(), LIST));
    assert_eq!(list(dir.path()).unwrap(), [entry]);
    remove(dir.path(), &network, &attachment).unwrap();
    remove(dir.path(), &network, &attachment).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("results")).unwrap().count(), 0);
}

#[test]
fn bad_entries_are_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let (network, attachment, _) = sample();
    assert!(
        read(dir.path(), &network, &attachment).is_none() && list(dir.path()).unwrap().is_empty()
    );
    fs::create_dir(dir.path().join("results")).unwrap();
    let file = dir.path().join("results/net-abc123-eth0");
    for json in ["", "{", "[]", r#"{"kind":"other"}"#, r#"{"kind":"cniCacheV1","containerId":"x"}"#]
    {
        fs::write(&file, json).unwrap();
        assert!(read(dir.path(), &network, &attachment).is_none(), "{json}");
        assert!(list(dir.path()).unwrap().is_empty(), "{json}");
    }
    fs::write(&file, r#"{"cniVersion":"0.4.0","ips":[]}"#).unwrap();
    assert_eq!(read(dir.path(), &network, &attachment).unwrap().result["cniVersion"], "0.4.0");
}

#[test]
fn what_another_runtime_recorded_is_passed_on_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (network, attachment, _) = sample();
    fs::create_dir(dir.path().join("results")).unwrap();
    let ports =
        serde_json::json!([{"HostPort": 80, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]);
    let entry = serde_json::json!({
        "kind": KIND, "containerId": "abc123", "config": null, "ifName": "eth0", "networkName": "net",
        "cniArgs": null, "capabilityArgs": {"portMappings": ports, "bandwidth": null}, "later": 1,
    });
    fs::write(dir.path().join("results/net-abc123-eth0"), entry.to_string()).unwrap();
    let again = read(dir.path(), &network, &attachment).unwrap().attachment();
    assert_eq!(again.capabilities.by_name()["portMappings"], ports);
    assert_eq!((again.netns, again.args.len()), (None, 0));
}

#[test]
fn who_needs_all_entries_gets_all_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(list_all(dir.path()).unwrap().is_empty(), "no cache at all");
    let (network, attachment, result) = sample();
    write(dir.path(), &network, &attachment, &result).unwrap();
    fs::write(dir.path().join("results/.other-eth0"), "half").unwrap();
    assert_eq!(list_all(dir.path()).unwrap().len(), 1);
    fs::write(dir.path().join("results/net-other-eth0"), "half").unwrap();
    let err = list_all(dir.path()).unwrap_err().to_string();
    assert!(err.contains("net-other-eth0"), "{err}");
    assert_eq!(list(dir.path()).unwrap().len(), 1);
}

#[test]
fn what_a_killed_add_left_goes_with_the_del() {
    let dir = tempfile::tempdir().unwrap();
    let (network, attachment, result) = sample();
    let results = dir.path().join("results");
    fs::create_dir(&results).unwrap();
    let half = results.join(format!(".{}-{}", attachment.container_id, attachment.ifname));
    fs::write(&half, "half").unwrap();
    assert!(read(dir.path(), &network, &attachment).is_none());
    remove(dir.path(), &network, &attachment).unwrap();
    assert_eq!(fs::read_dir(&results).unwrap().count(), 0);

    // An ADD that comes again goes through it, and leaves the entry alone.
    fs::write(&half, "half").unwrap();
    write(dir.path(), &network, &attachment, &result).unwrap();
    assert_eq!(fs::read_dir(&results).unwrap().count(), 1);
    assert!(read(dir.path(), &network, &attachment).is_some());
}
