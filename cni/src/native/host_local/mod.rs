//! The plugin `host-local`: which addresses a pod gets.
//!
//! Whatever makes the interfaces calls this; it is no plugin of a chain by itself.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use self::range::{Described, RangeSet};
use self::store::Store;
use super::Job;
use super::answer::plain_route;
use super::keys::{self, Wishes};
use crate::config::Fields;
use crate::error::{Error, Result};
use crate::lease::DEFAULT_DIR;
use crate::result::{Ip, IpNet, Route};

mod lock;
mod range;
mod store;

pub(crate) use lock::Lock;

/// No resolver configuration is larger.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// What is to be given away.
#[derive(Debug)]
pub(crate) struct Conf {
    data_dir: PathBuf,
    sets: Vec<RangeSet>,
    routes: Vec<Route>,
    resolv_conf: Option<PathBuf>,
    wished: Vec<IpAddr>,
}

/// What was given away.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ipam {
    r#type: String,
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
    #[serde(default)]
    ranges: Vec<Vec<Described>>,
    #[serde(default)]
    routes: Vec<DescribedRoute>,
    #[serde(default)]
    data_dir: String,
    #[serde(default)]
    resolv_conf: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescribedRoute {
    dst: String,
    gw: Option<String>,
}

/// The key `ipam`; `Some(None)` if there is none, `None` if it is not understood.
#[allow(clippy::option_option, reason = "not understood, and not wanted, are two things")]
pub(crate) fn parse(fields: &Fields, wishes: &Wishes) -> Option<Option<Conf>> {
    if fields.get("ipam").is_none_or(|value| value.get() == "{}") {
        return Some(None);
    }
    let ipam: Ipam = keys::get(fields, "ipam")??;
    // An absolute path, so that it means the same in every process.
    let absolute = |path: &str| path.is_empty() || Path::new(path).is_absolute();
    if ipam.r#type != "host-local" || !absolute(&ipam.data_dir) || !absolute(&ipam.resolv_conf) {
        return None;
    }
    let mut described: Vec<Vec<Described>> = match &wishes.ranges {
        Some(ranges) => Vec::deserialize(ranges).ok()?,
        None => Vec::new(),
    };
    let (range_start, range_end, gateway) = (ipam.range_start, ipam.range_end, ipam.gateway);
    match ipam.subnet {
        Some(subnet) => {
            described.push(vec![Described { subnet, range_start, range_end, gateway }]);
        }
        None if range_start.is_none() && range_end.is_none() && gateway.is_none() => {}
        None => return None,
    }
    described.extend(ipam.ranges);
    let sets: Vec<_> =
        described.iter().map(|set| RangeSet::complete(set)).collect::<Option<_>>()?;
    let apart = |(at, set): (usize, &RangeSet)| !sets[at + 1..].iter().any(|s| set.overlaps(s));
    if sets.is_empty() || !sets.iter().enumerate().all(apart) {
        return None;
    }
    let mut wished = wishes.ips.clone();
    wished.sort_unstable();
    wished.dedup();
    let given = |path: String| Some(PathBuf::from(path)).filter(|p| !p.as_os_str().is_empty());
    Some(Some(Conf {
        data_dir: given(ipam.data_dir).unwrap_or_else(|| DEFAULT_DIR.into()),
        sets,
        routes: ipam.routes.iter().map(DescribedRoute::complete).collect::<Option<_>>()?,
        resolv_conf: given(ipam.resolv_conf),
        wished,
    }))
}

impl DescribedRoute {
    fn complete(&self) -> Option<Route> {
        let dst = keys::network(&self.dst)?;
        let gw = match self.gw.as_deref() {
            None | Some("") => None,
            Some(text) => Some(keys::address(text)?),
        };
        let alike = gw.is_none_or(|gw| gw.is_ipv4() == dst.addr.is_ipv4());
        alike.then(|| plain_route(dst, gw))
    }
}

impl Conf {
    fn open(&self, job: &Job<'_>) -> Result<Store> {
        Store::open(&self.data_dir.join(job.network), job)
    }

    /// Gives the attachment an address of each range set, or none of any.
    fn add(&self, job: &Job<'_>) -> Result<Given> {
        let dns = self.resolv_conf.as_deref().map(resolver).transpose()?;
        let store = self.open(job)?;
        let leases = store.leases()?;
        let mut wished = self.wished.clone();
        let mut ips = Vec::new();
        for (at, set) in self.sets.iter().enumerate() {
            let wish = wished.iter().position(|ip| set.range_of(*ip).is_some());
            let wish = wish.map(|at| wished.remove(at));
            let given = match wish {
                Some(wish) => wished_for(&store, (at, set), wish, job),
                None => next_free(&store, &leases, (at, set), job),
            };
            match given {
                Ok(ip) => ips.push(ip),
                Err(e) if at == 0 => return Err(e),
                Err(e) => {
                    store.release(job)?;
                    return Err(e);
                }
            }
        }
        if !wished.is_empty() {
            store.release(job)?;
            let all: Vec<_> = wished.iter().map(IpAddr::to_string).collect();
            return Err(job.refused(format_args!("in no range: {}", all.join(" "))));
        }
        Ok(Given { ips, routes: self.routes.clone(), dns })
    }

    /// Gives the attachment addresses for `work`, which takes them back where it fails.
    pub(crate) fn lend<T>(
        &self,
        job: &Job<'_>,
        work: impl FnOnce(Given) -> Result<T>,
    ) -> Result<T> {
        let given = self.add(job)?;
        work(given).inspect_err(|_| {
            // A failure that follows another is not told.
            let _ = self.del(job);
        })
    }

    /// Frees what the attachment has.
    pub(crate) fn del(&self, job: &Job<'_>) -> Result<()> {
        self.open(job)?.release(job)
    }
}

fn wished_for(store: &Store, set: (usize, &RangeSet), wish: IpAddr, job: &Job<'_>) -> Result<Ip> {
    let (at, set) = set;
    let range =
        set.range_of(wish).ok_or_else(|| job.refused(format_args!("{wish} not in {set}")))?;
    if wish == range.gateway {
        return Err(job.refused(format_args!("requested ip {wish} is subnet's gateway")));
    }
    if !store.reserve(wish, at, job)? {
        return Err(job.refused(format_args!("requested ip {wish} is not available in {set}")));
    }
    Ok(Ip { address: range.net(wish), gateway: Some(range.gateway), interface: None })
}

fn next_free(
    store: &Store,
    leases: &[store::Lease],
    set: (usize, &RangeSet),
    job: &Job<'_>,
) -> Result<Ip> {
    let (at, set) = set;
    let own = leases.iter().filter(|lease| lease.belongs_to(job));
    if let Some(own) = own.filter_map(store::Lease::address).find(|ip| set.range_of(*ip).is_some())
    {
        let id = job.container_id();
        let why = "duplicate allocation is not allowed";
        return Err(job.refused(format_args!("{own} has been allocated to {id}, {why}")));
    }
    let taken: std::collections::HashSet<_> =
        leases.iter().filter_map(store::Lease::address).collect();
    for (range, addr) in set.candidates(store.last_reserved(at)) {
        if !taken.contains(&addr) && store.reserve(addr, at, job)? {
            return Ok(Ip {
                address: range.net(addr),
                gateway: Some(range.gateway),
                interface: None,
            });
        }
    }
    Err(job.refused(format_args!("range {at}: no IP addresses available in range set: {set}")))
}

/// The resolver configuration in `path`, as results have it.
fn resolver(path: &Path) -> Result<Value> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_RESOLV_CONF).read_to_string(&mut text));
    read.map_err(|e| Error::io("read", path, e))?;
    let mut dns = json!({});
    let mut lists = [("nameservers", Vec::new()), ("search", Vec::new()), ("options", Vec::new())];
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let (Some(key), Some(first)) = (words.next(), words.next()) else { continue };
        match key {
            "nameserver" => lists[0].1.push(first),
            "domain" => dns["domain"] = first.into(),
            "search" => lists[1].1.extend(std::iter::once(first).chain(words)),
            "options" => lists[2].1.extend(std::iter::once(first).chain(words)),
            _ => {}
        }
    }
    for (key, list) in lists {
        if !list.is_empty() {
            dns[key] = list.into();
        }
    }
    Ok(dns)
}

/// A network's addresses and their networks.
pub(crate) fn nets(ips: &[Ip]) -> Vec<IpNet> {
    ips.iter().map(|ip| ip.address).collect()
}
