//! What an OCI runtime can do, in its own words: the output of `<runtime> features`.
//!
//! Asked once, when the handlers are found. A runtime that does not know the command, or hangs in it, can do none
//! of what is asked for here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::process;

/// How long a runtime may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer that is read; those of today's runtimes have some ten thousand bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// What crun says of itself; all that know the command `features` leave read-only mounts as they are.
const CRUN: &str = "run.oci.crun.version";
/// The mount option for "this mount and all below it read-only".
const RECURSIVE_READ_ONLY: &str = "rro";
/// The first kernel with mount_setattr(2), on which both mount features rest.
const MOUNT_SETATTR: (u32, u32) = (5, 12);

/// What of it matters to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Features {
    pub recursive_read_only: bool,
    /// Pods with users of their own, volumes with mapped ids included.
    pub user_namespaces: bool,
    /// Classes of cache and memory bandwidth.
    pub rdt: bool,
    /// Keeps containers from writing to its program at some cost, unless that is executed from a read-only mount.
    pub guards_itself: bool,
}

/// The parts that are read of the runtime specification's features structure.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    mount_options: Vec<String>,
    linux: Linux,
    annotations: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<String>,
    mount_extensions: MountExtensions,
    intel_rdt: Switch,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MountExtensions {
    idmap: Switch,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Switch {
    enabled: bool,
}

/// Asks the runtime. Blocks.
pub(super) fn of(runtime: &Path, kernel: &str) -> Features {
    let asked = process::output(Command::new(runtime).arg("features"), LIMIT, MAX_ANSWER);
    match asked {
        Ok((output, answer)) if output.success => parse(&answer, kernel),
        Ok((output, _)) => {
            tracing::debug!(runtime = %runtime.display(), output.stderr, "tells no features");
            Features::default()
        }
        Err(err) => {
            tracing::warn!(runtime = %runtime.display(), err, "tells no features");
            Features::default()
        }
    }
}

fn parse(answer: &[u8], kernel: &str) -> Features {
    let Ok(Answer { mount_options, linux, annotations }) = serde_json::from_slice(answer) else {
        return Features::default();
    };
    let kernel = version(kernel).is_some_and(|version| version >= MOUNT_SETATTR);
    let users = linux.namespaces.iter().any(|kind| kind == "user") && has_user_namespaces();
    Features {
        recursive_read_only: kernel && mount_options.iter().any(|o| o == RECURSIVE_READ_ONLY),
        user_namespaces: kernel && users && linux.mount_extensions.idmap.enabled,
        rdt: linux.intel_rdt.enabled,
        guards_itself: kernel && annotations.contains_key(CRUN),
    }
}

/// Some distributions build kernels with them and set the limit to none.
fn has_user_namespaces() -> bool {
    std::fs::read_to_string("/proc/sys/user/max_user_namespaces")
        .is_ok_and(|limit| limit.trim() != "0")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_runtimes() {
        let whole = br#"{"ociVersionMin": "1.0.0", "mountOptions": ["ro", "rro"], "linux": {
            "namespaces": ["mount", "user"], "mountExtensions": {"idmap": {"enabled": true}},
            "intelRdt": {"enabled": true}, "cgroup": {"v2": true}}}"#;
        let all = Features {
            recursive_read_only: true,
            user_namespaces: has_user_namespaces(),
            rdt: true,
            guards_itself: false,
        };
        assert_eq!(parse(whole, "6.18.44-fc"), all);
        let old = Features { rdt: true, ..Features::default() };
        assert_eq!(parse(whole, "5.4.0-150-generic"), old, "the kernel lacks mount_setattr");
        for text in ["", "{}", "[]", r#"{"mountOptions": null}"#, r#"{"linux": {}}"#] {
            assert_eq!(parse(text.as_bytes(), "6.1.0"), Features::default(), "{text}");
        }
        let crun = br#"{"annotations": {"run.oci.crun.version": "1.28"}}"#;
        assert!(parse(crun, "6.1.0").guards_itself && !parse(crun, "5.4.0").guards_itself);
        let no_idmap = br#"{"mountOptions": ["rro"], "linux": {"namespaces": ["user"]}}"#;
        assert!(!parse(no_idmap, "6.1.0").user_namespaces);
        assert!(parse(no_idmap, "6.1.0").recursive_read_only);
    }

    #[test]
    fn a_runtime_that_knows_no_features_has_none() {
        assert_eq!(of(Path::new("/bin/false"), "6.1.0"), Features::default());
        assert_eq!(of(Path::new("/no/such/runtime"), "6.1.0"), Features::default());
    }
}
