//! Parsing of configurations.

use super::*;

const LIST: &str = r#"{ "cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "bridge", "unknown": {"big": 12345678901234567890123, "f": 1.10}, "ipam": {"type": "host-local"}},
    {"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": false}} ] }"#;

fn error(json: &str) -> String {
    Network::parse(json.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_list_keeps_what_it_does_not_know() {
    let network = Network::parse(LIST.as_bytes()).unwrap();
    assert_eq!((network.name(), network.cni_version()), ("pods", "1.0.0"));
    assert_eq!(network.plugins()[1].capabilities(), ["portMappings"]);
    assert!(network.has_capability("portMappings") && !network.has_capability("bandwidth"));
    let unknown = network.plugins()[0].fields["unknown"].get();
    assert_eq!(unknown, r#"{"big": 12345678901234567890123, "f": 1.10}"#);
    assert_eq!(network.bytes(), LIST.as_bytes());
}

#[test]
fn a_single_configuration_becomes_a_list() {
    let conf = br#"{"cniVersion":"0.3.1","name":"one","type":"macvlan","master":"eth0"}"#;
    let network = Network::parse_single(conf).unwrap();
    assert_eq!((network.name(), network.plugins().len()), ("one", 1));
    let again = Network::parse(network.bytes()).unwrap();
    assert_eq!(again.plugins()[0].fields["master"].get(), r#""eth0""#);
    let message = Network::parse_single(LIST.as_bytes()).unwrap_err().to_string();
    assert!(message.contains(".conflist"), "{message}");
}

#[test]
fn the_newest_version_that_we_know_is_chosen() {
    let chosen = |versions: &str| {
        let json = format!(r#"{{{versions}, "name":"n", "plugins":[{{"type":"t"}}]}}"#);
        Network::parse(json.as_bytes()).map(|n| n.cni_version).map_err(|e| e.to_string())
    };
    assert_eq!(chosen(r#""cniVersions":["0.4.0","1.1.0","1.0.0"]"#).unwrap(), "1.1.0");
    assert_eq!(chosen(r#""cniVersion":"0.3.1","cniVersions":["1.0.0","2.0.0"]"#).unwrap(), "1.0.0");
    assert_eq!(chosen(r#""cniVersion":"1.2.0""#).unwrap(), "1.2.0");
    assert!(chosen(r#""cniVersions":["2.0.0"]"#).unwrap_err().contains("2.0.0"));
    assert!(chosen(r#""cniVersion":"0.2.0""#).unwrap_err().contains("older"));
    assert!(chosen(r#""cniVersion":"x""#).unwrap_err().contains("\"x\""));
    assert!(chosen(r#""x":1"#).unwrap_err().contains("no cniVersion"));
}

#[test]
fn what_could_reach_another_path_is_refused() {
    for kind in ["../../../bin/sh", "/bin/sh", "a/b", "..", ".", ""] {
        let json =
            format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{"type":"{kind}"}}]}}"#);
        assert!(Network::parse(json.as_bytes()).is_err(), "{kind}");
    }
    for name in ["", "../x", "a/b", ".hidden", "a b", "é"] {
        let json =
            format!(r#"{{"cniVersion":"1.0.0","name":"{name}","plugins":[{{"type":"t"}}]}}"#);
        assert!(Network::parse(json.as_bytes()).is_err(), "{name}");
    }
}

#[test]
fn mistakes_are_named() {
    assert!(error("").contains("not a JSON object"));
    assert!(error("[]").contains("not a JSON object"));
    assert!(error(r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#).contains("no plugins"));
    assert!(error(r#"{"cniVersion":"1.0.0","name":"n"}"#).contains("no plugins"));
    assert!(error(r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#).contains("\"plugins\""));
    assert!(
        error(r#"{"cniVersion":1,"name":"n","plugins":[{"type":"t"}]}"#).contains("cniVersion")
    );
    let odd = r#"{"cniVersion":"1.0.0","name":"n","disableCheck":"si","plugins":[{"type":"t"}]}"#;
    assert!(error(odd).contains("disableCheck"));
}

#[test]
fn flags_may_be_strings() {
    let json = r#"{"cniVersion":"1.1.0","name":"n","disableCheck":"True","disableGC":true,
        "plugins":[{"type":"t"}]}"#;
    let network = Network::parse(json.as_bytes()).unwrap();
    assert!(network.disable_check() && network.disable_gc());
}

#[test]
fn plugins_from_files_become_part_of_the_recorded_list() {
    let list = br#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"a"}]}"#;
    let more = |name: &str| {
        assert_eq!(name, "n");
        Ok(vec![br#"{"type":"b","x":1.50}"#.to_vec()])
    };
    let network = Network::parse_with(list, more).unwrap();
    let kinds: Vec<_> = network.plugins().iter().map(Plugin::kind).collect();
    assert_eq!(kinds, ["a", "b"]);
    let again = Network::parse_with(network.bytes(), |_| panic!("asked for files")).unwrap();
    assert_eq!(again.plugins()[1].fields["x"].get(), "1.50");

    let alone = br#"{"cniVersion":"1.1.0","name":"n","loadOnlyInlinedPlugins":true}"#;
    assert!(Network::parse_with(alone, |_| Ok(vec![b"{}".to_vec()])).is_err());
}
