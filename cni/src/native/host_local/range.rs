//! Ranges of addresses, and the order in which they are given away.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

use crate::native::keys;
use crate::result::IpNet;

/// A range: part of a subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) subnet: IpNet,
    pub(crate) start: IpAddr,
    pub(crate) end: IpAddr,
    pub(crate) gateway: IpAddr,
}

/// A range as a configuration describes it.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Described {
    pub(crate) subnet: String,
    pub(crate) range_start: Option<String>,
    pub(crate) range_end: Option<String>,
    pub(crate) gateway: Option<String>,
}

impl Described {
    /// With what it leaves out: the gateway is the first address, and the ends are the first and the last. `None` if
    /// the executable would refuse it, or might read it otherwise.
    pub(crate) fn complete(&self) -> Option<Range> {
        let subnet = keys::network(&self.subnet)?;
        let bits = if subnet.addr.is_ipv4() { 32 } else { 128 };
        // Addresses that begin with a zero were written shorter once.
        let odd = number(subnet.addr) >> (bits - 8) == 0;
        if odd || subnet.prefix > bits - 2 {
            return None;
        }
        let given = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => keys::address(text).filter(|a| subnet.is_like(*a)).map(Some),
        };
        let first = next(subnet.addr)?;
        let last = number(subnet.addr) | (u128::MAX >> (128 - bits + subnet.prefix));
        let last = address(if bits == 32 { last - 1 } else { last }, first);
        let range = Range {
            subnet,
            start: given(&self.range_start)?.unwrap_or(first),
            end: given(&self.range_end)?.unwrap_or(last),
            gateway: given(&self.gateway)?.unwrap_or(first),
        };
        let inside = |addr| subnet.contains(addr);
        (inside(range.start) && inside(range.end) && range.start <= range.end).then_some(range)
    }
}

impl IpNet {
    fn is_like(&self, addr: IpAddr) -> bool {
        self.addr.is_ipv4() == addr.is_ipv4()
    }
}

impl Range {
    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        self.subnet.contains(addr) && self.start <= addr && addr <= self.end
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start)
            || self.contains(other.end)
            || other.contains(self.start)
            || other.contains(self.end)
    }

    pub(crate) fn net(&self, addr: IpAddr) -> IpNet {
        IpNet { addr, ..self.subnet }
    }
}

/// Ranges of one family of which the pod gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

impl RangeSet {
    /// `None` if the executable would refuse it, or might read it otherwise.
    pub(crate) fn complete(described: &[Described]) -> Option<Self> {
        let ranges: Vec<Range> =
            described.iter().map(Described::complete).collect::<Option<_>>()?;
        let alike = |range: &Range| ranges[0].subnet.is_like(range.start);
        let apart =
            |(at, range): (usize, &Range)| !ranges[at + 1..].iter().any(|r| range.overlaps(r));
        let fine =
            !ranges.is_empty() && ranges.iter().all(alike) && ranges.iter().enumerate().all(apart);
        fine.then_some(Self(ranges))
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|one| other.0.iter().any(|two| one.overlaps(two)))
    }

    pub(crate) fn range_of(&self, addr: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(addr))
    }

    /// The addresses that can be given away, once around from the one after `last`, so that an address rests as long
    /// as can be before it is somebody else's.
    pub(crate) fn candidates(
        &self,
        last: Option<IpAddr>,
    ) -> impl Iterator<Item = (&Range, IpAddr)> {
        let begin = last.and_then(|last| {
            let at = self.0.iter().position(|range| range.contains(last))?;
            Some(self.after(at, last))
        });
        let begin = begin.unwrap_or((0, self.0[0].start));
        let mut now = Some(begin);
        let around = std::iter::from_fn(move || {
            let (at, addr) = now?;
            let after = self.after(at, addr);
            now = (after != begin).then_some(after);
            Some((&self.0[at], addr))
        });
        around.filter(|(range, addr)| range.gateway != *addr)
    }

    fn after(&self, at: usize, addr: IpAddr) -> (usize, IpAddr) {
        match next(addr) {
            Some(next) if addr != self.0[at].end => (at, next),
            _ => {
                let at = (at + 1) % self.0.len();
                (at, self.0[at].start)
            }
        }
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
        f.write_str(&all.join(","))
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// Of the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // The upper bits are zero there.
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

fn next(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(|n| Ipv4Addr::from_bits(n).into()),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(|n| Ipv6Addr::from_bits(n).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(json: &str) -> Described {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let range = described(r#"{"subnet": "10.1.2.0/24"}"#).complete().unwrap();
        let text = |r: &Range| format!("{} {} {}", r.start, r.end, r.gateway);
        assert_eq!(text(&range), "10.1.2.1 10.1.2.254 10.1.2.1");
        let range =
            described(r#"{"subnet": "fd00::/120", "gateway": "fd00::9"}"#).complete().unwrap();
        assert_eq!(text(&range), "fd00::1 fd00::ff fd00::9");
        for wrong in [
            r#"{"subnet": ""}"#,
            r#"{"subnet": "10.1.2.1/24"}"#,
            r#"{"subnet": "10.1.2.0/31"}"#,
            r#"{"subnet": "0.0.0.0/8"}"#,
            r#"{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}"#,
            r#"{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}"#,
            r#"{"subnet": "10.1.2.0/24", "gateway": "fd00::1"}"#,
        ] {
            assert_eq!(described(wrong).complete(), None, "{wrong}");
        }
        assert!(serde_json::from_str::<Described>(r#"{"subnet": "10.1.2.0/24", "x": 1}"#).is_err());
    }

    #[test]
    fn addresses_come_around() {
        let set = |json: &[&str]| {
            RangeSet::complete(&json.iter().map(|j| described(j)).collect::<Vec<_>>())
        };
        let two = set(&[
            r#"{"subnet": "10.0.0.0/29", "rangeStart": "10.0.0.4", "rangeEnd": "10.0.0.5"}"#,
            r#"{"subnet": "10.0.1.0/30"}"#,
        ])
        .unwrap();
        let from = |last: Option<&str>| {
            let last = last.map(|text| text.parse().unwrap());
            let all: Vec<_> = two.candidates(last).map(|(_, addr)| addr.to_string()).collect();
            all.join(" ")
        };
        // 10.0.1.1 is the gateway of its range.
        assert_eq!(from(None), "10.0.0.4 10.0.0.5 10.0.1.2");
        assert_eq!(from(Some("10.0.0.4")), "10.0.0.5 10.0.1.2 10.0.0.4");
        assert_eq!(from(Some("10.0.1.2")), "10.0.0.4 10.0.0.5 10.0.1.2");
        assert_eq!(from(Some("10.9.9.9")), from(None), "of a range that is no more");
        assert_eq!(two.to_string(), "10.0.0.4-10.0.0.5,10.0.1.1-10.0.1.2");
        let twice = r#"{"subnet": "10.0.0.0/24"}"#;
        assert_eq!(set(&[twice, twice]), None);
        assert_eq!(set(&[twice, r#"{"subnet": "fd00::/64"}"#]), None);
        assert_eq!(set(&[]), None);
    }
}
