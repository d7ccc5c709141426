//! cgroups: which version, with which controllers, by which driver.

use super::node::{Node, Settings};
use super::{Finding, fix, ok, warning};

const ABOUT: &str = "cgroup";
/// Pods cannot be limited without these.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// What some pods and all statistics want.
const WANTED: [&str; 2] = ["cpuset", "io"];

pub(super) fn findings(node: &Node, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    match node.read("/sys/fs/cgroup/cgroup.controllers") {
        Some(controllers) => {
            findings.push(ok(ABOUT, format!("version 2, {}", driver(node, settings, true))));
            let there: Vec<&str> = controllers.split_whitespace().collect();
            findings.extend(missing(|name| there.contains(&name)));
        }
        None if node.has("/sys/fs/cgroup") => {
            let kind = match node.has("/sys/fs/cgroup/unified/cgroup.controllers") {
                true => "version 1 beside version 2 (hybrid)",
                false => "version 1",
            };
            let text = format!("{kind}, {}", driver(node, settings, false));
            findings.push(warning(
                ABOUT,
                text,
                "kubelets refuse it since 1.35 unless failCgroupV1 is false, and no pressure is measured; \
                 boot with systemd.unified_cgroup_hierarchy=1",
            ));
            findings.extend(missing(|name| {
                let v1 = if name == "io" { "blkio" } else { name };
                node.has(format!("/sys/fs/cgroup/{v1}"))
            }));
        }
        None => {
            findings.push(fix(
                ABOUT,
                "nothing is mounted at /sys/fs/cgroup",
                "mount cgroup2 there",
            ));
        }
    }
    let systemd = node.has("/run/systemd/system");
    if settings.cgroup_driver.as_deref() == Some("systemd") && !systemd {
        findings.push(fix(
            ABOUT,
            "the driver is systemd, which does not run",
            "set cgroup.driver to \"auto\"",
        ));
    }
    findings
}

fn driver(node: &Node, settings: &Settings, v2: bool) -> String {
    let detected = if v2 && node.has("/run/systemd/system") { "systemd" } else { "cgroupfs" };
    format!("driver {}", settings.cgroup_driver.as_deref().unwrap_or(detected))
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<Finding> {
    let absent = |names: &[&str]| -> String {
        let absent: Vec<&str> = names.iter().copied().filter(|name| !is_there(name)).collect();
        absent.join(", ")
    };
    let mut findings = Vec::new();
    let needed = absent(&NEEDED);
    if !needed.is_empty() {
        let text = format!("without controllers that every pod needs: {needed}");
        let first = needed.split(", ").next().unwrap_or_default();
        findings.push(fix(ABOUT, text, format!("boot with cgroup_enable={first}")));
    }
    let wanted = absent(&WANTED);
    if !wanted.is_empty() {
        findings.push(warning(
            ABOUT,
            format!("without controllers that some pods want: {wanted}"),
            "",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    fn told(files: &[(&str, &str)], driver: Option<&str>) -> Vec<(Verdict, String)> {
        let settings = Settings { cgroup_driver: driver.map(str::to_owned), ..Settings::default() };
        let findings = findings(&Fake::new(files).node, &settings);
        findings.into_iter().map(|finding| (finding.verdict, finding.text)).collect()
    }

    #[test]
    fn each_version_and_what_it_lacks() {
        let v2 = "/sys/fs/cgroup/cgroup.controllers";
        let all = "cpuset cpu io memory hugetlb pids\n";
        let systemd = ("/run/systemd/system/x", "");
        assert_eq!(
            told(&[(v2, all), systemd], None),
            [(Verdict::Ok, "version 2, driver systemd".to_owned())]
        );
        assert_eq!(
            told(&[(v2, "cpuset cpu io pids")], None),
            [
                (Verdict::Ok, "version 2, driver cgroupfs".to_owned()),
                (Verdict::Fix, "without controllers that every pod needs: memory".to_owned()),
            ]
        );
        let hybrid = told(
            &[
                ("/sys/fs/cgroup/unified/cgroup.controllers", ""),
                ("/sys/fs/cgroup/cpu/x", ""),
                ("/sys/fs/cgroup/memory/x", ""),
                ("/sys/fs/cgroup/pids/x", ""),
                ("/sys/fs/cgroup/blkio/x", ""),
            ],
            None,
        );
        assert_eq!(
            hybrid,
            [
                (
                    Verdict::Warning,
                    "version 1 beside version 2 (hybrid), driver cgroupfs".to_owned()
                ),
                (Verdict::Warning, "without controllers that some pods want: cpuset".to_owned()),
            ]
        );
        assert_eq!(told(&[], None)[0].0, Verdict::Fix);
        let wrong = told(&[(v2, all)], Some("systemd"));
        assert!(
            wrong
                .iter()
                .any(|(verdict, text)| *verdict == Verdict::Fix && text.contains("does not run"))
        );
    }
}
