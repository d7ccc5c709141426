//! Where images, containers and state are kept: room, and whether an overlay can stand on it.

use std::path::Path;

use super::node::{Node, Settings};
use super::{Finding, fix, ok, warning};
use crate::human::size;

const ABOUT: &str = "disk";
/// Of what there is, in percent: the kubelet begins to evict pods at the first, and at the second they fail by
/// themselves.
const SCARCE: u64 = 15;
const NONE_LEFT: u64 = 3;
/// File systems that cannot carry an overlay's upper directory, or only by luck.
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"];
/// Those on which volumes of pods with users of their own can be mapped, since when they all can.
const MAPPED: [&str; 8] = ["ext4", "xfs", "btrfs", "f2fs", "tmpfs", "erofs", "vfat", "zfs"];

pub(super) fn findings(node: &Node, settings: &Settings) -> Vec<Finding> {
    let mut findings = room(node, &settings.root);
    let kind = node.file_system(&settings.root).unwrap_or_default();
    let at = settings.root.display();
    if REMOTE.contains(&kind.as_str()) || kind.starts_with("fuse") {
        let text = format!("{at} is on {kind}, which carries no overlay");
        findings.push(fix(ABOUT, text, "put `root` on a local disk"));
    } else if kind == "overlay" {
        let text = format!(
            "{at} is on an overlay, which carries none: every container gets a copy of its whole image"
        );
        findings.push(warning(ABOUT, text, "put `root` on a volume"));
    } else {
        findings.push(mapped(&kind));
    }
    let other = node.file_system(&settings.state);
    if other.is_some_and(|other| other != kind || kind.is_empty()) {
        findings.extend(room(node, &settings.state));
    }
    findings
}

fn mapped(kind: &str) -> Finding {
    match MAPPED.contains(&kind) {
        true => ok("idmap", format!("{kind} maps the owners of files")),
        false => warning(
            "idmap",
            format!("{kind} does not map the owners of files: pods with hostUsers: false may fail"),
            "",
        ),
    }
}

/// The directory need not be there yet.
fn room(node: &Node, path: &Path) -> Vec<Finding> {
    let there = path.ancestors().find(|path| node.has(path)).unwrap_or(Path::new("/"));
    let Ok(room) = rustix::fs::statvfs(node.at(there)) else {
        return vec![warning(ABOUT, format!("{} cannot be looked at", there.display()), "")];
    };
    let bytes = share(path, "bytes", room.f_bavail, room.f_blocks, room.f_frsize);
    let files = share(path, "files", room.f_favail, room.f_files, 1);
    [bytes, files].into_iter().flatten().collect()
}

/// `None` where the file system does not count them.
fn share(path: &Path, what: &str, free: u64, all: u64, unit: u64) -> Option<Finding> {
    let percent = free.checked_mul(100)?.checked_div(all)?;
    let amount = match what {
        "bytes" => size(free.saturating_mul(unit)),
        _ => format!("{free} files"),
    };
    let text = format!("{}: {amount} free, {percent} %", path.display());
    Some(match percent {
        ..NONE_LEFT => fix(ABOUT, text, "make room"),
        NONE_LEFT..SCARCE => {
            warning(ABOUT, text, "the kubelet evicts pods for want of room: make some")
        }
        _ => ok(ABOUT, text),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    #[test]
    fn room_is_judged_by_its_share() {
        let verdict =
            |free, all| share(Path::new("/x"), "bytes", free, all, 4096).map(|one| one.verdict);
        assert_eq!(verdict(50, 100), Some(Verdict::Ok));
        assert_eq!(verdict(15, 100), Some(Verdict::Ok));
        assert_eq!(verdict(14, 100), Some(Verdict::Warning));
        assert_eq!(verdict(2, 100), Some(Verdict::Fix));
        assert_eq!(verdict(0, 0), None, "btrfs counts no files");
        let told = share(Path::new("/x"), "files", 7, 10, 1).unwrap().text;
        assert_eq!(told, "/x: 7 files free, 70 %");
    }

    #[test]
    fn file_systems_that_carry_no_overlay() {
        let on = |kind: &str| {
            let mounts = format!("1 0 0:1 / / rw - {kind} x rw\n");
            let found = findings(
                &Fake::new(&[("/proc/self/mountinfo", &mounts)]).node,
                &Settings::default(),
            );
            let about = |one: &&Finding| one.about == "idmap" || one.text.contains(kind);
            found.iter().find(about).unwrap().verdict
        };
        assert_eq!(on("ext4"), Verdict::Ok);
        assert_eq!(on("nfs4"), Verdict::Fix);
        assert_eq!(on("fuse.s3fs"), Verdict::Fix);
        assert_eq!(on("overlay"), Verdict::Warning);
        assert_eq!(on("jfs"), Verdict::Warning);
    }
}
