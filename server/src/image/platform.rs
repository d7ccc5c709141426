//! Which entry of an index runs on this machine.

use super::manifest::{Descriptor, Platform};

/// "v1" and no variant are the same; 32-bit programs run on the same kernel.
const X86_64: [(&str, &str); 5] =
    [("amd64", "v4"), ("amd64", "v3"), ("amd64", "v2"), ("amd64", ""), ("386", "")];

/// What runs here, best first.
#[derive(Debug, Clone)]
pub(super) struct Supported(Vec<(&'static str, &'static str)>);

impl Supported {
    /// Of the machine that this runs on.
    pub(super) fn host() -> Self {
        Self::of(std::env::consts::ARCH, x86_level())
    }

    fn of(arch: &str, x86_level: usize) -> Self {
        let list: &[(&str, &str)] = match arch {
            "x86_64" => &X86_64[4 - x86_level.clamp(1, 4)..],
            "aarch64" => {
                &[("arm64", ""), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")]
            }
            "arm" => &[("arm", "v7"), ("arm", "v6"), ("arm", "v5")],
            "riscv64" => &[("riscv64", "")],
            "powerpc64" => &[("ppc64le", "")],
            "s390x" => &[("s390x", "")],
            "x86" => &[("386", "")],
            "loongarch64" => &[("loong64", "")],
            _ => &[],
        };
        Self(list.to_vec())
    }

    /// Lower is better; `None`: does not run here.
    pub(super) fn rank(&self, platform: &Platform) -> Option<usize> {
        if platform.os != "linux" {
            return None;
        }
        let architecture = match platform.architecture.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let variant = match (architecture, platform.variant.as_str()) {
            ("amd64", "v1") | ("arm64", "v8" | "8") => "",
            ("arm", "" | "7") => "v7",
            ("arm", "8") => "v8",
            ("arm", "6") => "v6",
            ("arm", "5") => "v5",
            (_, variant) => variant,
        };
        self.0.iter().position(|have| *have == (architecture, variant))
    }

    /// The best entry of an index; an entry that names no platform is the last resort.
    pub(super) fn choose<'a>(&self, entries: &'a [Descriptor]) -> Option<&'a Descriptor> {
        entries
            .iter()
            .filter_map(|entry| match &entry.platform {
                Some(platform) => self.rank(platform).map(|rank| (rank, entry)),
                None => Some((usize::MAX, entry)),
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
    }

    /// The platform that is looked for, for messages.
    pub(super) fn name(&self) -> String {
        let architecture =
            self.0.iter().find(|(_, variant)| variant.is_empty() || *variant == "v7");
        format!("linux/{}", architecture.map_or(std::env::consts::ARCH, |(name, _)| name))
    }
}

/// `os/architecture[/variant]`.
pub(super) fn display(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text.push('/');
        text.push_str(&platform.variant);
    }
    text
}

/// The x86-64 micro-architecture level, 1 to 4.
#[cfg(target_arch = "x86_64")]
fn x86_level() -> usize {
    macro_rules! all { ($($f:tt),*) => { true $(&& std::is_x86_feature_detected!($f))* } }
    let v2 = all!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
    let v3 = v2 && all!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let v4 = v3 && all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    1 + usize::from(v2) + usize::from(v3) + usize::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_level() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Digest;

    fn entry(n: u64, platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: next() }
        });
        Descriptor { media_type: String::new(), digest: Digest::sha256(b""), size: n, platform }
    }

    #[test]
    fn the_best_entry_that_runs_here_is_chosen() {
        for (arch, level, entries, want) in [
            ("x86_64", 3, vec!["linux/arm64", "linux/amd64"], Some(1)),
            ("x86_64", 1, vec!["linux/amd64/v2", "linux/amd64/v1"], Some(1)),
            ("x86_64", 3, vec!["linux/amd64", "linux/amd64/v4", "linux/amd64/v3"], Some(2)),
            ("x86_64", 3, vec!["windows/amd64", "linux/386"], Some(1)),
            ("x86_64", 3, vec!["unknown/unknown", "linux/s390x"], None),
            ("x86_64", 3, vec!["linux/x86_64"], Some(0)),
            ("aarch64", 1, vec!["linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"], Some(2)),
            ("aarch64", 1, vec!["linux/arm/v6", "linux/arm"], Some(1)),
            ("arm", 1, vec!["linux/arm64", "linux/arm/v5"], Some(1)),
            ("x86_64", 1, vec!["", "linux/amd64"], Some(1)),
            ("x86_64", 1, vec!["linux/arm64", ""], Some(1)),
        ] {
            let entries: Vec<_> = entries
                .iter()
                .enumerate()
                .map(|(n, text)| entry(n as u64, Some(*text).filter(|text| !text.is_empty())))
                .collect();
            let chosen = Supported::of(arch, level).choose(&entries).map(|entry| entry.size);
            assert_eq!(chosen, want, "{arch} {entries:?}");
        }
    }

    #[test]
    fn the_host_is_supported_and_has_a_name() {
        assert!(Supported::host().name().starts_with("linux/"));
        assert!(!Supported::host().0.is_empty());
    }
}
