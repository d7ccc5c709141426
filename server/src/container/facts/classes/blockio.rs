//! The node's file of block I/O classes, in the form that containerd and CRI-O read:
//!
//! ```yaml
//! Classes:
//!   slow:
//!   - Devices: ["/dev/sd[a-f]"]
//!     ThrottleReadBps: 60M
//!     ThrottleWriteIOPS: 400
//!   - Weight: 50
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};
use serde::Deserialize;

/// Longest file that is read.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(alias = "Classes", default)]
    classes: BTreeMap<String, Vec<Parameters>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    #[serde(alias = "Devices")]
    devices: Vec<String>,
    #[serde(rename = "ThrottleReadBps", alias = "throttleReadBps")]
    read_bps: Option<Quantity>,
    #[serde(rename = "ThrottleWriteBps", alias = "throttleWriteBps")]
    write_bps: Option<Quantity>,
    #[serde(rename = "ThrottleReadIOPS", alias = "throttleReadIOPS")]
    read_iops: Option<Quantity>,
    #[serde(rename = "ThrottleWriteIOPS", alias = "throttleWriteIOPS")]
    write_iops: Option<Quantity>,
    #[serde(alias = "Weight")]
    weight: Option<Quantity>,
}

/// `60M`, `4Ki`, or a plain number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(String),
}

impl Quantity {
    fn value(&self) -> Result<u64, String> {
        let text = match self {
            Self::Number(number) => return Ok(*number),
            Self::Text(text) => text.trim(),
        };
        let units = [
            ("Ki", 1 << 10),
            ("Mi", 1 << 20),
            ("Gi", 1 << 30),
            ("k", 1000),
            ("M", 1_000_000),
            ("G", 1_000_000_000),
        ];
        let (digits, unit) = units
            .iter()
            .find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)))
            .unwrap_or((text, 1_u64));
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| number.checked_mul(unit))
            .ok_or_else(|| format!("{text:?} is no quantity such as 60M"))
    }
}

/// What the file says of a class; `None` if it has none of that name.
pub(super) fn class(file: &Path, name: &str) -> Result<Option<LinuxBlockIo>, String> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|err| err.to_string())?;
    opened.take(MAX_FILE).read_to_string(&mut text).map_err(|err| err.to_string())?;
    let mut file: File = serde_saphyr::from_str(&text).map_err(|err| err.to_string())?;
    file.classes.remove(name).map(|all| to_oci(&all)).transpose()
}

fn to_oci(all: &[Parameters]) -> Result<LinuxBlockIo, String> {
    let mut io = LinuxBlockIo::default();
    let mut weights = Vec::new();
    // Read and write, bytes and operations.
    let mut throttles: [Vec<LinuxThrottleDevice>; 4] = Default::default();
    for parameters in all {
        let weight = parameters.weight.as_ref().map(weight).transpose()?;
        if parameters.devices.is_empty() {
            io.set_weight(weight.or(io.weight()));
            continue;
        }
        let rates = [
            &parameters.read_bps,
            &parameters.write_bps,
            &parameters.read_iops,
            &parameters.write_iops,
        ];
        for (major, minor) in devices(&parameters.devices)? {
            if let Some(weight) = weight {
                let device = LinuxWeightDeviceBuilder::default().major(major).minor(minor);
                weights.push(device.weight(weight).build().map_err(|err| err.to_string())?);
            }
            for (rate, of) in rates.iter().zip(&mut throttles) {
                let Some(rate) = rate else { continue };
                let device = LinuxThrottleDeviceBuilder::default().major(major).minor(minor);
                of.push(device.rate(rate.value()?).build().map_err(|err| err.to_string())?);
            }
        }
    }
    let some = |list: Vec<LinuxThrottleDevice>| (!list.is_empty()).then_some(list);
    let [read_bps, write_bps, read_iops, write_iops] = throttles.map(some);
    io.set_weight_device((!weights.is_empty()).then_some(weights))
        .set_throttle_read_bps_device(read_bps)
        .set_throttle_write_bps_device(write_bps)
        .set_throttle_read_iops_device(read_iops)
        .set_throttle_write_iops_device(write_iops);
    Ok(io)
}

fn weight(weight: &Quantity) -> Result<u16, String> {
    let value = weight.value()?;
    let fits = u16::try_from(value).ok().filter(|weight| (10..=1000).contains(weight));
    fits.ok_or_else(|| format!("the weight {value} is not within 10 to 1000"))
}

/// The numbers of the block devices that the patterns match, each once.
fn devices(patterns: &[String]) -> Result<Vec<(i64, i64)>, String> {
    let mut found = std::collections::BTreeSet::new();
    for pattern in patterns {
        let paths = expand(pattern);
        if paths.is_empty() {
            return Err(format!("{pattern:?} matches nothing"));
        }
        for path in paths {
            let meta =
                std::fs::metadata(&path).map_err(|err| format!("{}: {err}", path.display()))?;
            if !meta.file_type().is_block_device() {
                return Err(format!("{} is no block device", path.display()));
            }
            let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            found.insert((i64::from(major), i64::from(minor)));
        }
    }
    Ok(found.into_iter().collect())
}

/// Paths that match, part by part.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let below = |dir: PathBuf| -> Vec<PathBuf> {
            if !part.contains(['*', '?', '[']) {
                return Some(dir.join(part)).filter(|path| path.exists()).into_iter().collect();
            }
            let entries = std::fs::read_dir(&dir).into_iter().flatten();
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let fits = names.filter(|name| {
                name.starts_with('.') == part.starts_with('.')
                    && matches(part.as_bytes(), name.as_bytes())
            });
            fits.map(|name| dir.join(name)).collect()
        };
        paths = paths.into_iter().flat_map(below).collect();
    }
    paths
}

/// `*`, `?` and `[a-c]`, as a shell has them.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || !name.is_empty() && matches(pattern, &name[1..])
        }
        (Some((b'?', rest)), Some((_, more))) => matches(rest, more),
        (Some((b'[', rest)), Some((first, more))) => {
            let Some(end) = rest.iter().skip(1).position(|b| *b == b']') else { return false };
            let (set, rest) = (&rest[..=end], &rest[end + 2..]);
            in_set(set, *first) && matches(rest, more)
        }
        (Some((byte, rest)), Some((first, more))) => byte == first && matches(rest, more),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (set, wanted) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (rest, false),
        _ => (set, true),
    };
    let mut rest = set;
    let mut has = false;
    while let Some((from, more)) = rest.split_first() {
        rest = match more {
            [b'-', to, tail @ ..] => {
                has |= (*from..=*to).contains(&byte);
                tail
            }
            _ => {
                has |= *from == byte;
                more
            }
        };
    }
    has == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, name: &str) -> Result<Option<LinuxBlockIo>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.yaml");
        std::fs::write(&path, text).unwrap();
        class(&path, name)
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("sd[a-f]", "sdc", true),
            ("sd[a-f]", "sdg", false),
            ("sd[!a-f]", "sdg", true),
            ("sd[abc]", "sdb", true),
            ("*", "anything", true),
            ("vd?", "vda", true),
            ("vd?", "vd", false),
            ("n*e*1", "nvme0n1", true),
            ("[", "x", false),
            ("sd[]x]", "sd]", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn classes_in_words_of_the_field() {
        let text = "Classes:\n  slow:\n  - Weight: 50\n  none: []\n  bad:\n  - Weight: 5\n";
        let slow = read(text, "slow").unwrap().unwrap();
        assert_eq!((slow.weight(), slow.throttle_read_bps_device()), (Some(50), &None));
        assert_eq!(read(text, "none").unwrap(), Some(LinuxBlockIo::default()));
        assert_eq!(read(text, "other").unwrap(), None);
        for (text, says) in [
            (text, "the weight 5"),
            ("Classes:\n  bad:\n  - Devices: [/dev/null]\n", "is no block device"),
            ("Classes:\n  bad:\n  - Devices: ['/dev/no-such-*']\n", "matches nothing"),
            ("Classes:\n  bad:\n  - Wait: 5\n", "Wait"),
            ("Kinds: {}\n", "Kinds"),
        ] {
            let err = read(text, "bad").unwrap_err();
            assert!(err.contains(says), "{err}");
        }
        for (text, value) in [("60M", 60_000_000), ("4Ki", 4096), ("7", 7), (" 1k ", 1000)] {
            assert_eq!(Quantity::Text(text.into()).value().unwrap(), value);
        }
        for text in ["", "M", "-1", "1.5M", "99999999999999999999G"] {
            Quantity::Text(text.into()).value().unwrap_err();
        }
    }
}
