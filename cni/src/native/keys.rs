//! Reads configurations strictly: a key or a value that could mean something else to the executable is not
//! understood, and the executable gets it.
//!
//! Executables match names without regard to case and take `null` for what is absent; whoever writes so gets them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rules::BACKEND;
use crate::attachment::Attachment;
use crate::config::Fields;
use crate::link::Mac;
use crate::result::IpNet;

/// What every plugin may have, and does not look at or gets from us.
const COMMON: [&str; 6] =
    ["type", "name", "cniVersion", "capabilities", "prevResult", "runtimeConfig"];
/// Capability arguments that mean nothing to who makes interfaces.
const FOR_OTHERS: [&str; 5] =
    ["portMappings", "bandwidth", "dns", "cgroupPath", "io.kubernetes.cri.pod-annotations"];
/// Arguments that Kubernetes has for other plugins; they begin so.
const KUBERNETES: &str = "K8S_";
/// The largest MTU of any interface that can be made here.
const MAX_MTU: u32 = 65535;

/// Nothing else may be there.
pub(crate) fn only(fields: &Fields, known: &[&str]) -> Option<()> {
    let is_known = |key: &String| COMMON.contains(&key.as_str()) || known.contains(&key.as_str());
    fields.keys().all(is_known).then_some(())
}

/// The value of `key`; `Some(None)` if it is not there, `None` if it is not understood.
#[allow(clippy::option_option, reason = "not understood, and not there, are two things")]
pub(crate) fn get<T: DeserializeOwned>(fields: &Fields, key: &str) -> Option<Option<T>> {
    let Some(value) = fields.get(key) else { return Some(None) };
    let value = value.get();
    if value == "null" {
        return None;
    }
    serde_json::from_str(value).ok().map(Some)
}

/// A switch that is off where it is not there.
pub(crate) fn flag(fields: &Fields, key: &str) -> Option<bool> {
    Some(get(fields, key)?.unwrap_or(false))
}

/// A switch that has to be off, for what is not done here.
pub(crate) fn off(fields: &Fields, key: &str) -> Option<()> {
    (!flag(fields, key)?).then_some(())
}

/// `key` names the backend for rules that we have, or none: the executable's default is that one.
pub(crate) fn backend(fields: &Fields, key: &str) -> Option<()> {
    let backend: Option<String> = get(fields, key)?;
    backend.is_none_or(|backend| backend == BACKEND).then_some(())
}

/// The MTU; `Some(None)`: the kernel's own.
#[allow(clippy::option_option, reason = "not understood, and not wanted, are two things")]
pub(crate) fn mtu(fields: &Fields) -> Option<Option<u32>> {
    let mtu: u32 = get(fields, "mtu")?.unwrap_or(0);
    (mtu <= MAX_MTU).then_some(Some(mtu).filter(|mtu| *mtu > 0))
}

/// What a pod is to have, whoever asks for it.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) mac: Option<String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ranges: Option<Value>,
}

/// The wishes in `CNI_ARGS`, in the configuration's `args` and in the capability arguments, the later stronger.
pub(crate) fn wishes(fields: &Fields, attachment: &Attachment) -> Option<Wishes> {
    let mut wishes = Wishes::default();
    let mut ignored = false;
    for (key, value) in &attachment.args {
        match key.as_str() {
            "IgnoreUnknown" => ignored = matches!(value.as_str(), "1" | "true").then_some(true)?,
            "MAC" => wishes.mac = Some(value.clone()).filter(|mac| !mac.is_empty()),
            "IP" => wishes.ips.push(address(value)?),
            key if key.starts_with(KUBERNETES) && !value.contains('=') => {}
            _ => return None,
        }
    }
    if !ignored && attachment.args.iter().any(|(key, _)| key.starts_with(KUBERNETES)) {
        return None;
    }
    let args: Option<Args> = get(fields, "args")?;
    let args = args.unwrap_or_default().cni;
    let runtime: RuntimeConfig = get(fields, "runtimeConfig")?.unwrap_or_default();
    if !runtime.other.keys().all(|key| FOR_OTHERS.contains(&key.as_str())) {
        return None;
    }
    for ip in args.ips.iter().chain(&runtime.ips) {
        wishes.ips.push(address(ip)?);
    }
    wishes.ranges = runtime.ip_ranges;
    let mac = [runtime.mac, args.mac].into_iter().find(|mac| !mac.is_empty());
    wishes.mac = mac.or(wishes.mac);
    Some(wishes)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Args {
    cni: CniArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CniArgs {
    mac: String,
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    mac: String,
    ips: Vec<String>,
    ip_ranges: Option<Value>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// The hardware address that is wished for.
#[allow(clippy::option_option, reason = "not understood, and not wished for, are two things")]
pub(crate) fn mac(wishes: &Wishes) -> Option<Option<Mac>> {
    match &wishes.mac {
        None => Some(None),
        Some(text) => Mac::parse(text).map(Some),
    }
}

/// An address in a form that everybody reads alike.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let addr: IpAddr = text.parse().ok()?;
    let mapped = matches!(addr, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(addr)
}

/// A network: an address whose bits behind the prefix are zero.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let (addr, prefix) = text.split_once('/')?;
    let plain = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.is_empty();
    let net = IpNet { addr: address(addr)?, prefix: prefix.parse().ok().filter(|_| plain)? };
    let longest = if net.addr.is_ipv4() { 32 } else { 128 };
    (net.prefix <= longest && net.network() == net).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn only_what_everybody_reads_alike_is_understood() {
        for text in ["10.0.0.1", "fd00::1", "FD00:0::1"] {
            assert!(address(text).is_some(), "{text}");
        }
        for text in ["", "010.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.1/24"] {
            assert_eq!(address(text), None, "{text}");
        }
        for text in ["10.0.0.0/24", "0.0.0.0/0", "fd00::/64"] {
            assert!(network(text).is_some(), "{text}");
        }
        for text in ["10.0.0.1/24", "10.0.0.0", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/33"] {
            assert_eq!(network(text), None, "{text}");
        }
        let some = fields(r#"{"type": "bridge", "mtu": 1400, "a": null, "b": "true"}"#);
        assert_eq!(only(&some, &["mtu", "a", "b"]), Some(()));
        assert_eq!(only(&some, &["MTU", "a", "b"]), None);
        assert_eq!(
            (mtu(&some), flag(&some, "a"), flag(&some, "b")),
            (Some(Some(1400)), None, None)
        );
        assert_eq!(flag(&some, "c"), Some(false));
        for wrong in [r#"{"mtu": -1}"#, r#"{"mtu": 1.5}"#, r#"{"mtu": "1"}"#, r#"{"mtu": 70000}"#] {
            assert_eq!(mtu(&fields(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn wishes_come_from_three_places() {
        let pod = Attachment::for_pod("id", "default", "web", "uid");
        let all = r#"{"args": {"cni": {"mac": "a", "ips": ["10.0.0.5"]}}, "runtimeConfig": {"mac": "b", "portMappings": []}}"#;
        let found = wishes(&fields(all), &pod).unwrap();
        assert_eq!((found.mac.as_deref(), found.ips.len()), (Some("b"), 1));
        let none = wishes(&fields("{}"), &pod).unwrap();
        assert!(none.mac.is_none() && none.ips.is_empty());
        for wrong in [
            r#"{"args": {"cni": {"labels": []}}}"#,
            r#"{"args": {"other": {}}}"#,
            r#"{"runtimeConfig": {"deviceID": "0000:01"}}"#,
            r#"{"args": {"cni": {"ips": ["10.0.0.5/24"]}}}"#,
        ] {
            assert!(wishes(&fields(wrong), &pod).is_none(), "{wrong}");
        }
        let with = |key: &str, value: &str| {
            let args = [pod.args.clone(), vec![(key.into(), value.into())]].concat();
            wishes(&fields("{}"), &Attachment { args, ..pod.clone() })
        };
        assert_eq!(with("MAC", "c").unwrap().mac.as_deref(), Some("c"));
        assert_eq!(with("IP", "10.0.0.9").unwrap().ips.len(), 1);
        assert!(with("GATEWAY", "10.0.0.1").is_none() && with("IP", "10.0.0.9/8").is_none());
        assert!(with("IgnoreUnknown", "0").is_none());
        let bare = Attachment { args: pod.args[1..].to_vec(), ..pod.clone() };
        assert!(wishes(&fields("{}"), &bare).is_none(), "executables refuse what they do not know");
    }
}
