//! Parsing and converting results.

use super::*;

const V1: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/n"}],
    "ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1","interface":1},{"address":"fd00::5/64","interface":1},
           {"address":"10.1.0.1/16","interface":0}],
    "routes":[{"dst":"0.0.0.0/0","gw":""}],"dns":{"nameservers":["10.0.0.10"]},"vendor":{"x":1}}"#;

fn parse(json: &str) -> Result<CniResult, String> {
    CniResult::parse(json.as_bytes(), "1.0.0")
}

#[test]
fn a_result_tells_the_addresses_of_an_interface() {
    let result = parse(V1).unwrap();
    let expected: Vec<IpAddr> = vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
    assert_eq!(result.addresses("eth0"), expected);
    assert_eq!(result.routes[0].gw, None);
    assert_eq!(result.dns.nameservers, ["10.0.0.10"]);
    assert_eq!(result.raw["vendor"]["x"], 1);
    let bare =
        parse(r#"{"ips":[{"address":"10.0.0.2/24"}],"interfaces":null,"dns":{"search":null}}"#)
            .unwrap();
    assert_eq!((bare.addresses("eth0").len(), bare.cni_version.as_str()), (1, "1.0.0"));
}

#[test]
fn versions_differ_in_the_family_of_an_address() {
    let result = parse(V1).unwrap();
    let old = result.in_version("0.4.0", SpecVersion::V0_4);
    assert_eq!((&old["cniVersion"], &old["ips"][0]["version"]), (&"0.4.0".into(), &"4".into()));
    assert_eq!(old["ips"][1]["version"], "6");
    assert_eq!(old["vendor"]["x"], 1);
    let back = CniResult::from_value(old, "0.4.0").unwrap().in_version("1.1.0", SpecVersion::V1_1);
    assert_eq!(back["cniVersion"], "1.1.0");
    assert!(back["ips"][0].get("version").is_none());
    assert_eq!(result.in_version("1.0.0", SpecVersion::V1_0), result.raw);
}

#[test]
fn nonsense_is_refused() {
    for json in [
        "",
        "[]",
        "\"ok\"",
        "null",
        r#"{"ips":[{"address":"10.0.0.1"}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/33"}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/24","interface":0}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/24","interface":-1}],"interfaces":[{"name":"a"}]}"#,
        r#"{"ips":[{"address":"10.0.0.1/24","gateway":"x"}]}"#,
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/24"}}"#,
        r#"{"cniVersion":7}"#,
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
}

#[test]
fn networks_print_as_they_are_read() {
    for text in ["10.0.0.1/24", "0.0.0.0/0", "fd00::1/128"] {
        assert_eq!(text.parse::<IpNet>().unwrap().to_string(), text);
    }
    for text in ["10.0.0.1", "10.0.0/8", "fd00::/129", "/8", "10.0.0.1/x"] {
        assert!(text.parse::<IpNet>().is_err(), "{text}");
    }
}
