//! The kernel: what it has of what containers are made of, and what we may do with it.

use super::node::Node;
use super::{Finding, fix, ok, warning};

const ABOUT: &str = "kernel";
/// Without openat2(2) no path in an image can be looked up safely.
const OLDEST: (u32, u32) = (5, 6);
/// What later kernels brought. Distributions carry some of it back to older ones.
const SINCE: [((u32, u32), &str); 3] = [
    ((5, 12), "mounts with mapped ids and recursive read-only mounts"),
    ((5, 14), "cgroups that are killed at once"),
    ((6, 7), "overlays of any number of layers"),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

pub(super) fn findings(node: &Node) -> Vec<Finding> {
    let release = node.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = vec![version(&release)];
    findings.push(overlay(node, &release));
    findings.push(namespaces(node));
    if !node.has("/proc/sys/kernel/seccomp/actions_avail") {
        let text = "without seccomp: containers that are not privileged cannot be confined";
        findings.push(fix(ABOUT, text, "use a kernel with CONFIG_SECCOMP_FILTER"));
    }
    if !node.has("/proc/pressure/cpu") {
        let text = "pressure is not measured";
        findings.push(warning(ABOUT, text, "boot with psi=1 on a kernel with CONFIG_PSI"));
    }
    findings.push(confinement(node));
    findings.extend(privileges(node));
    findings
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn version(release: &str) -> Finding {
    let Some(version) = number(release) else {
        return warning(ABOUT, format!("its version {release:?} says nothing"), "");
    };
    if version < OLDEST {
        let (major, minor) = OLDEST;
        return fix(
            ABOUT,
            format!("{release} is too old"),
            format!("{major}.{minor} is the oldest"),
        );
    }
    let lacks: Vec<String> = SINCE
        .iter()
        .filter(|(since, _)| version < *since)
        .map(|((major, minor), what)| format!("{what} ({major}.{minor})"))
        .collect();
    match lacks.is_empty() {
        true => ok(ABOUT, release),
        false => warning(ABOUT, format!("{release} may lack {}", lacks.join(", ")), ""),
    }
}

/// A module is loaded when it is first used.
fn overlay(node: &Node, release: &str) -> Finding {
    let about = "overlay";
    let known = node.read("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return ok(about, "the kernel has it");
    }
    let module = ["modules.builtin", "modules.dep"].iter().any(|list| {
        let path = format!("/lib/modules/{release}/{list}");
        node.read(path).is_some_and(|list| list.contains("/overlay.ko"))
    });
    match module {
        true => ok(about, "the kernel has it as a module"),
        false => warning(
            about,
            "the kernel has none: every container gets a copy of its whole image",
            "use a kernel with CONFIG_OVERLAY_FS",
        ),
    }
}

fn namespaces(node: &Node) -> Finding {
    let about = "users";
    match node.number("/proc/sys/user/max_user_namespaces") {
        Some(1..) => ok(about, "pods may have user namespaces of their own"),
        Some(0) => warning(
            about,
            "user namespaces are forbidden: pods with hostUsers: false fail",
            "sysctl -w user.max_user_namespaces=15000",
        ),
        None => warning(
            about,
            "the kernel has no user namespaces: pods with hostUsers: false fail",
            "use a kernel with CONFIG_USER_NS",
        ),
    }
}

fn confinement(node: &Node) -> Finding {
    let about = "security";
    let enforces = node.read("/sys/fs/selinux/enforce");
    if let Some(enforces) = enforces {
        let how = if enforces == "1" { "enforces" } else { "only reports" };
        return ok(about, format!("SELinux {how}"));
    }
    if node.read("/sys/module/apparmor/parameters/enabled").as_deref() != Some("Y") {
        return ok(
            about,
            "no AppArmor and no SELinux: seccomp and capabilities confine containers",
        );
    }
    match node.program("apparmor_parser") {
        Some(_) => ok(about, "AppArmor is on"),
        None => warning(
            about,
            "AppArmor is on, and nothing can load its profiles",
            "install apparmor_parser (Debian: apparmor)",
        ),
    }
}

/// Ours: the daemon's are no more when it runs on the same node.
fn privileges(node: &Node) -> Vec<Finding> {
    let about = "privileges";
    let status = node.read("/proc/self/status").unwrap_or_default();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    if mask("CapEff:") & (1 << CAP_SYS_ADMIN) == 0 {
        let text =
            "this command has not the privileges of root: what it reads may be less than there is";
        return vec![warning(about, text, "run it with sudo")];
    }
    if mask("CapBnd:") & (1 << CAP_SYS_RESOURCE) == 0 {
        let text =
            "without CAP_SYS_RESOURCE: oom_score_adj is not lowered and hard limits are not raised";
        return vec![warning(about, text, "")];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    #[test]
    fn versions_tell_what_they_lack() {
        for (release, verdict, word) in [
            ("6.12.48+deb13-amd64", Verdict::Ok, "6.12.48"),
            ("5.10.0-9", Verdict::Warning, "mapped ids"),
            ("6.1.0-9", Verdict::Warning, "any number of layers (6.7)"),
            ("4.19.0", Verdict::Fix, "too old"),
            ("", Verdict::Warning, "says nothing"),
        ] {
            let found = version(release);
            assert_eq!(found.verdict, verdict, "{release}");
            assert!(found.text.contains(word), "{found:?}");
        }
    }

    #[test]
    fn overlay_may_be_a_module() {
        let has = |files: &[(&str, &str)]| overlay(&Fake::new(files).node, "6.1").verdict;
        assert_eq!(has(&[("/proc/filesystems", "nodev\tproc\nnodev\toverlay\n")]), Verdict::Ok);
        let dep = "kernel/fs/overlayfs/overlay.ko.xz:\n";
        assert_eq!(has(&[("/lib/modules/6.1/modules.dep", dep)]), Verdict::Ok);
        assert_eq!(has(&[("/proc/filesystems", "nodev\toverlayish\n")]), Verdict::Warning);
    }

    #[test]
    fn a_node_that_lacks_everything_and_one_that_lacks_nothing() {
        let bare = findings(&Fake::new(&[("/proc/sys/kernel/osrelease", "6.12.1\n")]).node);
        let fixes = bare.iter().filter(|finding| finding.verdict == Verdict::Fix);
        assert_eq!(fixes.count(), 1, "{bare:#?}");
        let fake = Fake::new(&[
            ("/proc/sys/kernel/osrelease", "6.12.1\n"),
            ("/proc/filesystems", "nodev\toverlay\n"),
            ("/proc/sys/user/max_user_namespaces", "1000\n"),
            ("/proc/sys/kernel/seccomp/actions_avail", "kill\n"),
            ("/proc/pressure/cpu", ""),
            ("/sys/module/apparmor/parameters/enabled", "Y\n"),
            ("/proc/self/status", "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n"),
        ]);
        fake.program("/usr/bin/apparmor_parser");
        let whole = findings(&fake.node);
        assert!(whole.iter().all(|finding| finding.verdict == Verdict::Ok), "{whole:#?}");
    }
}
