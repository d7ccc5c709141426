//! The plugin `tuning`: kernel parameters of the pod's network, and properties of its interface.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Job, keys, sysctl};
use crate::attachment::Attachment;
use crate::config::Fields;
use crate::error::Result;
use crate::link::{self, IFF_ALLMULTI, IFF_PROMISC, Link, Mac};
use crate::netlink::{Message, Socket};
use crate::netns;
use crate::result::CniResult;

/// Everything that is understood. Not so `args`: here an address in there is stronger than the capability's, and an
/// empty one takes that away, unlike with who makes interfaces ([`keys::wishes`]).
const KEYS: [&str; 6] = ["allmulti", "dataDir", "mac", "mtu", "promisc", "sysctl"];
/// Where newer executables look up which parameters are allowed, as regular expressions: theirs to understand.
const ALLOW_LIST: &str = "/etc/cni/tuning/allowlist.conf";
/// Where it is kept how the interface was.
const DEFAULT_DIR: &str = "/run/cni/tuning";
/// Stands for the interface's name.
const IFNAME: &str = "IFNAME";
/// No such file is larger.
const MAX_BACKUP: u64 = 4096;

/// The configuration.
#[derive(Debug)]
pub(crate) struct Conf {
    /// By the names below `/proc/sys`.
    sysctls: BTreeMap<String, String>,
    data_dir: PathBuf,
    mac: Option<String>,
    promiscuous: bool,
    mtu: Option<u32>,
    all_multicast: Option<bool>,
}

/// How the interface was. JSON names, order and layout are the executable's.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Backup {
    #[serde(skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    /// Of newer executables.
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    queue: Option<u32>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(crate) fn parse(fields: &Fields, attachment: &Attachment) -> Option<Conf> {
    keys::only(fields, &KEYS)?;
    if Path::new(ALLOW_LIST).exists() {
        return None;
    }
    let wishes = keys::wishes(fields, attachment)?;
    let written: BTreeMap<String, String> = keys::get(fields, "sysctl")?.unwrap_or_default();
    let sysctls = parameters(&written, &attachment.ifname)?;
    let data_dir: String = keys::get(fields, "dataDir")?.unwrap_or_default();
    let own: String = keys::get(fields, "mac")?.unwrap_or_default();
    let mac = wishes.mac.or(Some(own)).filter(|mac| !mac.is_empty());
    if mac.as_ref().is_some_and(|mac| Mac::parse(mac).is_none()) {
        return None;
    }
    let default = data_dir.is_empty();
    let data_dir = if default { DEFAULT_DIR.into() } else { PathBuf::from(data_dir) };
    Some(Conf {
        sysctls,
        data_dir: Some(data_dir).filter(|dir| dir.is_absolute())?,
        mac,
        promiscuous: keys::flag(fields, "promisc")?,
        mtu: keys::mtu(fields)?,
        all_multicast: keys::get(fields, "allmulti")?,
    })
}

/// What is written where. A parameter that is spelled in two ways gets either value from the executable: whichever it
/// comes to last, in no order.
fn parameters(
    written: &BTreeMap<String, String>,
    ifname: &str,
) -> Option<BTreeMap<String, String>> {
    let named = |(key, value): (&String, &String)| Some((parameter(key, ifname)?, value.clone()));
    let named: BTreeMap<_, _> = written.iter().map(named).collect::<Option<_>>()?;
    (named.len() == written.len()).then_some(named)
}

/// The parameter's name with slashes, if it is one of the network's and looks like one.
fn parameter(key: &str, ifname: &str) -> Option<String> {
    let plain = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        !part.is_empty() && part.bytes().all(known)
    };
    let parts: Vec<&str> = key.split(['.', '/']).collect();
    let fine = parts.len() > 1 && parts[0] == "net" && parts.iter().all(|part| plain(part));
    // Versions differ in whether a dot in the interface's name is a slash too.
    let fine = fine && !(key.contains(IFNAME) && ifname.contains('.'));
    fine.then(|| parts.join("/").replacen(IFNAME, ifname, 1))
}

impl Conf {
    fn backup_path(&self, job: &Job<'_>) -> PathBuf {
        self.data_dir.join(format!("{}_{}.json", job.container_id(), job.ifname()))
    }

    fn touches_link(&self) -> bool {
        let numbers = self.mac.is_some() || self.mtu.is_some();
        numbers || self.promiscuous || self.all_multicast.is_some()
    }

    fn backup(&self, link: &Link) -> Backup {
        let has = |flag| link.flags & flag != 0;
        Backup {
            mac: self.mac.as_ref().map_or(String::new(), |_| link.mac.to_string()),
            promisc: self.promiscuous.then(|| has(IFF_PROMISC)),
            mtu: self.mtu.map_or(0, |_| link.mtu),
            allmulti: self.all_multicast.map(|_| has(IFF_ALLMULTI)),
            queue: None,
        }
    }

    fn changes(&self, index: u32) -> Vec<Message> {
        let mac = self.mac.as_deref().and_then(Mac::parse).map(|mac| link::set_mac(index, mac));
        let promiscuous = self.promiscuous.then_some(true);
        let mtu = self.mtu.map(|mtu| link::set_mtu(index, mtu));
        let flags = flags(index, promiscuous, self.all_multicast);
        mac.into_iter().chain(mtu).chain(flags).collect()
    }
}

fn flags(index: u32, promiscuous: Option<bool>, all_multicast: Option<bool>) -> Vec<Message> {
    let flags = [(promiscuous, IFF_PROMISC), (all_multicast, IFF_ALLMULTI)];
    let given = flags.into_iter().filter_map(|(on, flag)| Some((on?, flag)));
    given.map(|(on, flag)| link::set_flags(index, if on { flag } else { 0 }, flag)).collect()
}

pub(crate) fn add(conf: &Conf, job: &Job<'_>, previous: Option<&CniResult>) -> Result<CniResult> {
    let mut result = previous.ok_or_else(|| job.refused("there is no previous result"))?.clone();
    let path = job.netns().ok_or_else(|| job.refused("no network namespace"))?;
    netns::run_in(path, || {
        for (name, value) in &conf.sysctls {
            let failed = |e| job.refused(format_args!("{name}: {e}"));
            sysctl::write(name, value).map_err(failed)?;
        }
        if conf.touches_link() { change(conf, job) } else { Ok(()) }
    })??;
    if let Some(mac) = &conf.mac {
        rename(&mut result, job.ifname(), mac);
    }
    Ok(result)
}

fn change(conf: &Conf, job: &Job<'_>) -> Result<()> {
    let failed = |e: io::Error| job.refused(format_args!("{:?}: {e}", job.ifname()));
    let socket = Socket::route().map_err(failed)?;
    let link = Link::find(&socket, job.ifname()).map_err(failed)?;
    save(&conf.backup_path(job), &conf.backup(&link)).map_err(failed)?;
    job.check()?;
    socket.all(&conf.changes(link.index)).map_err(|(_, e)| failed(e))
}

/// The result says the address that the interface has now.
fn rename(result: &mut CniResult, ifname: &str, mac: &str) {
    for interface in result.interfaces.iter_mut().filter(|interface| interface.name == ifname) {
        interface.mac = mac.to_owned();
    }
    if let Some(Value::Array(interfaces)) = result.raw.get_mut("interfaces") {
        for interface in interfaces.iter_mut().filter(|interface| interface["name"] == ifname) {
            interface["mac"] = mac.into();
        }
    }
}

fn save(path: &Path, backup: &Backup) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o600).create(dir)?;
    }
    let mut json = Vec::new();
    backup.serialize(&mut Serializer::with_formatter(
        &mut json,
        PrettyFormatter::with_indent(b" "),
    ))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file?.write_all(&json)
}

/// Makes the interface as it was, if it is still there; a failure to do so is nobody's.
pub(crate) fn del(conf: &Conf, job: &Job<'_>, _previous: Option<&CniResult>) -> Result<()> {
    let path = conf.backup_path(job);
    let Ok(file) = fs::File::open(&path) else { return Ok(()) };
    let mut json = String::new();
    let read = io::Read::read_to_string(&mut io::Read::take(file, MAX_BACKUP), &mut json);
    let backup = read.ok().and_then(|_| serde_json::from_str::<Backup>(&json).ok());
    if let (Some(backup), Some(netns)) = (backup, job.netns()) {
        let restored = netns::run_in(netns, || restore(&backup, job.ifname()));
        if let Ok(Err(e)) | Err(e) = restored.map_err(io::Error::other) {
            tracing::debug!(error = %e, container = job.container_id(), "not as it was");
        }
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(job.refused(format_args!("remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

fn restore(backup: &Backup, ifname: &str) -> io::Result<()> {
    let socket = Socket::route()?;
    let index = Link::find(&socket, ifname)?.index;
    let mtu = Some(backup.mtu).filter(|mtu| *mtu > 0).map(|mtu| link::set_mtu(index, mtu));
    let mac = Mac::parse(&backup.mac).map(|mac| link::set_mac(index, mac));
    let queue = backup.queue.map(|queue| link::set_queue(index, queue));
    let flags = flags(index, backup.promisc, backup.allmulti);
    let all: Vec<_> = mtu.into_iter().chain(mac).chain(queue).chain(flags).collect();
    socket.all(&all).map_err(|(_, e)| e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_network_are_written() {
        let named = |key| parameter(key, "eth0");
        assert_eq!(named("net.core.somaxconn").as_deref(), Some("net/core/somaxconn"));
        let one = Some("net/ipv4/conf/eth0/arp_filter");
        assert_eq!(named("net.ipv4.conf.IFNAME.arp_filter").as_deref(), one);
        assert_eq!(named("net/ipv4/conf/IFNAME/arp_filter").as_deref(), one);
        for key in ["", "net", "kernel.hostname", "net/../kernel/x", "net..x", "net.x y", "net.x\0"]
        {
            assert_eq!(named(key), None, "{key}");
        }
        assert_eq!(parameter("net.ipv4.conf.IFNAME.x", "eth0.1"), None);
    }

    fn conf(json: &str, args: &[(&str, &str)]) -> Option<Conf> {
        let args = args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let pod =
            Attachment { ifname: "eth0".into(), args: args.collect(), ..Attachment::default() };
        parse(&serde_json::from_str(json).unwrap(), &pod)
    }

    #[test]
    fn a_parameter_that_is_spelled_twice_is_the_executables() {
        let sysctls = |json: &str| Some(conf(json, &[])?.sysctls.len());
        let two = r#"{"sysctl": {"net.core.somaxconn": "1", "net/ipv4/ip_forward": "1"}}"#;
        assert_eq!(sysctls(two), Some(2));
        for twice in [
            r#"{"sysctl": {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}}"#,
            r#"{"sysctl": {"net.core/somaxconn": "1", "net/core.somaxconn": "2"}}"#,
            r#"{"sysctl": {"net.ipv4.conf.IFNAME.x": "1", "net.ipv4.conf.eth0.x": "2"}}"#,
        ] {
            assert_eq!(sysctls(twice), None, "{twice}");
        }
    }

    #[test]
    fn the_stronger_address_is_the_executables_one() {
        let (own, arg, given) = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03");
        let both = format!(r#"{{"mac": "{own}", "runtimeConfig": {{"mac": "{given}"}}}}"#);
        let one = format!(r#"{{"mac": "{own}", "runtimeConfig": {{"mac": ""}}}}"#);
        let mac = |json: &str, args: &[(&str, &str)]| conf(json, args).unwrap().mac;
        assert_eq!(mac(&both, &[("MAC", arg)]).as_deref(), Some(given));
        assert_eq!(mac(&one, &[("MAC", arg)]).as_deref(), Some(arg));
        assert_eq!(mac(&one, &[("MAC", arg), ("MAC", "")]).as_deref(), Some(own));
        for args in [r#"{"cni": {"mac": ""}}"#, r#"{"cni": {"mac": "02:00:00:00:00:04"}}"#, "{}"] {
            let json = format!(r#"{{"runtimeConfig": {{"mac": "{given}"}}, "args": {args}}}"#);
            assert!(conf(&json, &[]).is_none(), "{json}");
        }
    }

    #[test]
    fn a_backup_is_written_as_the_executable_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        let backup = Backup { mac: "m".into(), promisc: Some(false), ..Backup::default() };
        save(&path, &backup).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\n \"mac\": \"m\",\n \"promisc\": false\n}");
    }
}
