//! Equal in effect with containerd's: every call of its profile, on every architecture, for any set of capabilities.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSeccompArg};
use proptest::prelude::*;

use super::super::caps;
use super::{default_profile, is_call};

const ARCHITECTURES: [&str; 8] =
    ["aarch64", "arm", "loongarch64", "powerpc64", "riscv64", "s390x", "x86", "x86_64"];
const EVERY_CAPABILITY: u64 = (1 << 41) - 1;

/// The words of each section.
fn facts() -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut sections = BTreeMap::new();
    let mut section = "";
    for line in include_str!("parity.txt").lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(words) => {
                let words = words.split(' ').map(str::to_owned);
                sections.entry(section).or_insert_with(BTreeSet::new).extend(words);
            }
            None => section = line,
        }
    }
    sections
}

/// What containerd's profile would come to.
fn theirs(capabilities: u64, arch: &str) -> BTreeSet<String> {
    let facts = facts();
    let mut all = BTreeSet::new();
    let mut add = |section: &str| match facts.get(section) {
        Some(words) => {
            all.extend(words.iter().cloned());
            true
        }
        None => false,
    };
    add("always");
    add("if");
    add(&format!("arch {arch}"));
    for section in facts.keys() {
        match section.split_once(' ') {
            Some(("with", capability)) if caps::has(capabilities, capability) => {
                add(section);
            }
            Some(("without", capability))
                if !capability.contains(" on ") && !caps::has(capabilities, capability) =>
            {
                let _ = add(&format!("{section} on {arch}")) || add(section);
            }
            _ => {}
        }
    }
    all
}

/// What ours comes to, in the same words.
fn ours(capabilities: u64, arch: &str) -> BTreeSet<String> {
    let profile = default_profile(capabilities, arch);
    assert_eq!(
        (profile.default_action(), profile.default_errno_ret()),
        (Action::ScmpActErrno, None)
    );
    let rules = profile.syscalls().clone().unwrap();
    let words = |rule: &oci_spec::runtime::LinuxSyscall| {
        let suffix = match (rule.action(), rule.errno_ret(), rule.args().as_deref()) {
            (Action::ScmpActAllow, None, None) => String::new(),
            (Action::ScmpActAllow, None, Some([argument])) => condition(argument),
            (Action::ScmpActErrno, Some(errno), None) => format!(":ERRNO:{errno}"),
            other => panic!("{other:?}"),
        };
        rule.names().iter().map(|name| format!("{name}{suffix}")).collect::<Vec<_>>()
    };
    rules.iter().flat_map(words).collect()
}

fn condition(argument: &LinuxSeccompArg) -> String {
    let operator = argument.op().to_string();
    let operator = operator.trim_start_matches("SCMP_CMP_");
    let second = argument.value_two().map_or(String::new(), |value| format!(":{value:#x}"));
    format!(":{}:{operator}:{:#x}{second}", argument.index(), argument.value())
}

#[test]
fn each_capability_by_itself() {
    for arch in ARCHITECTURES {
        for mask in (0..41).map(|number| 1 << number).chain([0, EVERY_CAPABILITY]) {
            assert_eq!(ours(mask, arch), theirs(mask, arch), "{arch} {mask:#x}");
        }
    }
}

#[test]
fn the_architectures_that_it_covers() {
    for arch in ARCHITECTURES {
        let ours: BTreeSet<String> = default_profile(0, arch)
            .architectures()
            .iter()
            .flatten()
            .map(|arch| serde_json::to_value(arch).unwrap().as_str().unwrap().to_owned())
            .collect();
        let theirs = facts().remove(&*format!("runs {arch}")).unwrap_or_default();
        assert_eq!(ours, theirs, "{arch}");
    }
}

#[test]
fn all_are_calls() {
    for arch in ARCHITECTURES {
        for word in ours(EVERY_CAPABILITY, arch) {
            let name = word.split(':').next().unwrap();
            assert!(is_call(name), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_set_of_capabilities(mask in any::<u64>(), arch in prop::sample::select(&ARCHITECTURES)) {
        let mask = mask & EVERY_CAPABILITY;
        prop_assert_eq!(ours(mask, arch), theirs(mask, arch));
    }
}
