//! What a node and its pods look like from outside, without what is by chance: indexes, random names and addresses.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use cni::{Attachment, CniResult, netns};
use serde_json::{Map, Value, json};

use super::Node;

/// What the bridge is called in all cases.
const BRIDGE: &str = "br0";
/// What of a link counts.
const OF_LINK: [&str; 9] = [
    "ifname",
    "flags",
    "mtu",
    "operstate",
    "master",
    "promiscuity",
    "allmulti",
    "link_type",
    "qdisc",
];
const OF_ADDRESS: [&str; 10] = [
    "family",
    "local",
    "prefixlen",
    "broadcast",
    "scope",
    "label",
    "dynamic",
    "tentative",
    "nodad",
    "valid_life_time",
];
const OF_ROUTE: [&str; 10] =
    ["type", "dst", "gateway", "dev", "protocol", "scope", "prefsrc", "metric", "flags", "table"];
const OF_NODE: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
const OF_POD: [&str; 1] = ["net/core/somaxconn"];
const OF_INTERFACE: [&str; 6] = [
    "net/ipv6/conf/IFNAME/accept_ra",
    "net/ipv6/conf/IFNAME/accept_dad",
    "net/ipv6/conf/IFNAME/enhanced_dad",
    "net/ipv6/conf/IFNAME/disable_ipv6",
    "net/ipv4/conf/IFNAME/arp_notify",
    "net/ipv4/conf/IFNAME/arp_filter",
];

/// Who is looked at.
pub(crate) struct Look<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pods: &'a [&'a Attachment],
    pub(crate) results: &'a [&'a CniResult],
}

impl Look<'_> {
    pub(crate) fn all(&self) -> Value {
        // Hardware addresses and random names, and what is said instead.
        let mut said = BTreeMap::new();
        let mut spaces = Map::new();
        let host = self.node.run(|| space(&OF_NODE, "host", &mut said));
        spaces.insert("host".to_owned(), host);
        for pod in self.pods {
            let look = || space(&OF_POD, &pod.container_id, &mut said);
            let look = netns::run_in(pod.netns.as_ref().unwrap(), look).unwrap();
            spaces.insert(pod.container_id.clone(), look);
        }
        let results: Vec<_> = self.results.iter().map(|result| result.raw.clone()).collect();
        let dir = self.node.path("");
        said.insert(dir.to_str().unwrap().to_owned(), "DIR/".to_owned());
        let cached = self.node.runtime.cached().unwrap();
        let cached: Vec<_> = cached
            .iter()
            .map(|entry| {
                let mut entry = serde_json::to_value(entry).unwrap();
                entry["config"] = Value::Null;
                entry
            })
            .collect();
        let all = json!({
            "spaces": spaces, "results": results, "cache": cached,
            "leases": files(&self.node.path("leases/net")), "tuning": files(&self.node.path("tuning")),
        });
        let mut all = all;
        blur_bridge(&mut all);
        let mut text = all.to_string();
        for (what, instead) in said {
            text = text.replace(&what, &instead);
        }
        let mut all: Value = serde_json::from_str(&text).unwrap();
        for space in all["spaces"].as_object_mut().unwrap().values_mut() {
            space["routes"].as_array_mut().unwrap().sort_by_key(Value::to_string);
        }
        all
    }
}

/// A bridge without an address of its own has the lowest of its ports', which is by chance; only whether the newest
/// result says what is so is not.
fn blur_bridge(all: &mut Value) {
    let so = all["spaces"]["host"]["links"][BRIDGE]["mac"].clone();
    let results = all["results"].as_array().unwrap();
    let interfaces = results.last().and_then(|last| last["interfaces"].as_array());
    let said = interfaces.and_then(|all| all.iter().find(|i| i["name"] == BRIDGE).cloned());
    all["result says the bridge's address"] = said.map(|said| said["mac"] == so).into();
    if !so.is_null() {
        all["spaces"]["host"]["links"][BRIDGE]["mac"] = Value::Null;
    }
    let results = all["results"].as_array().unwrap().len();
    let cached = all["cache"].as_array().unwrap().len();
    for (key, count) in [("results", results), ("cache", cached)] {
        for at in 0..count {
            let entry = &mut all[key][at];
            let result = if key == "cache" { &mut entry["result"] } else { entry };
            let interfaces = result["interfaces"].as_array_mut().into_iter().flatten();
            for interface in interfaces.filter(|interface| interface["name"] == BRIDGE) {
                interface["mac"] = Value::Null;
            }
        }
    }
}

fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let mut text = fs::read_to_string(entry.path()).unwrap();
        // The hardware address that an interface had, which was by chance.
        if let Some(at) = text.find("\"mac\": \"").map(|at| at + 8) {
            text.replace_range(at..at + 17, "X");
        }
        (entry.file_name().into_string().unwrap(), text)
    };
    entries.map(read).collect()
}

/// The calling thread's network.
fn space(sysctls: &[&str], name: &str, said: &mut BTreeMap<String, String>) -> Value {
    let links = ip("-d address");
    let mut looks = Map::new();
    let mut veths = 0;
    let mut parameters: Map<String, Value> = sysctls.iter().map(|name| parameter(name)).collect();
    for link in links.as_array().unwrap() {
        let ifname = link["ifname"].as_str().unwrap().to_owned();
        let called = if ifname.starts_with("veth") {
            veths += 1;
            said.insert(ifname.clone(), format!("VETH{veths}"));
            format!("VETH{veths}")
        } else {
            ifname.clone()
        };
        let mac = link["address"].as_str().unwrap_or_default();
        // One that somebody chose says itself; a bridge may have that of a port of its.
        let is_bridge = link["linkinfo"]["info_kind"] == "bridge" && ifname == BRIDGE;
        if !is_bridge && !mac.starts_with("02:00:00") && !mac.starts_with("00:00:00") {
            said.entry(mac.to_owned()).or_insert_with(|| format!("MAC of {called} in {name}"));
        }
        let mut look = only(link, &OF_LINK);
        look["mac"] = mac.into();
        look["kind"] = link["linkinfo"]["info_kind"].clone();
        look["port"] =
            only(&link["linkinfo"]["info_slave_data"], &["state", "hairpin", "isolated"]);
        let addresses = link["addr_info"].as_array().unwrap().iter();
        look["addresses"] = addresses.map(|a| local(only(a, &OF_ADDRESS))).collect();
        parameters.extend(OF_INTERFACE.iter().map(|p| parameter(&p.replace("IFNAME", &ifname))));
        looks.insert(called, look);
    }
    let mut routes: Vec<Value> = Vec::new();
    for family in ["-4 route show table all", "-6 route show table all"] {
        routes.extend(ip(family).as_array().unwrap().iter().map(|r| local(only(r, &OF_ROUTE))));
    }
    json!({"links": looks, "routes": routes, "sysctls": parameters})
}

fn parameter(name: &str) -> (String, Value) {
    let value = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    (name.to_owned(), value.trim().into())
}

/// Local addresses of IPv6 are made of the hardware's.
fn local(mut value: Value) -> Value {
    for key in ["local", "dst", "prefsrc"] {
        let text = value[key].as_str().unwrap_or_default();
        let local = matches!(text.parse(), Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local());
        if local && text != "fe80::" {
            value[key] = "fe80::X".into();
        }
    }
    value
}

fn only(value: &Value, keys: &[&str]) -> Value {
    keys.iter().map(|key| ((*key).to_owned(), value[*key].clone())).collect()
}

fn ip(args: &str) -> Value {
    let output = Command::new("ip").arg("-j").args(args.split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if text.trim().is_empty() { json!([]) } else { serde_json::from_str(&text).unwrap() }
}

/// What of two looks is not alike, a line for each.
pub(crate) fn differences(one: &Value, two: &Value) -> String {
    let mut lines = Vec::new();
    walk("", one, two, &mut lines);
    lines.join("\n")
}

fn walk(at: &str, one: &Value, two: &Value, lines: &mut Vec<String>) {
    match (one, two) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                walk(&format!("{at}.{key}"), &one[key], &two[key], lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (one, two)) in a.iter().zip(b).enumerate() {
                walk(&format!("{at}[{i}]"), one, two, lines);
            }
        }
        _ if one != two => lines.push(format!("{at}: {one} | {two}")),
        _ => {}
    }
}
