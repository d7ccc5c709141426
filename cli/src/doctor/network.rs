//! Pods' networks: a configuration of CNI's, and the plugins that it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::node::{Node, Settings};
use super::{Finding, fix, ok, warning};

const ABOUT: &str = "network";
/// The plugins that write rules of the firewall, and what they do it with.
const FIREWALL: [&str; 2] = ["portmap", "firewall"];
const FIREWALLS: [&str; 2] = ["iptables", "nft"];

pub(super) fn findings(node: &Node, settings: &Settings) -> Vec<Finding> {
    let dir = settings.cni_conf_dir.display();
    let Some(file) = first(node, &settings.cni_conf_dir) else {
        let text = format!("no configuration in {dir}: pods without the host's network cannot run");
        return vec![fix(
            ABOUT,
            text,
            "install a network, or copy deploy/cni/10-podwright.conflist there",
        )];
    };
    let at = file.display();
    let parsed = node.read(&file).and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let Some(config) = parsed else {
        return vec![fix(ABOUT, format!("{at} is no JSON"), "correct it")];
    };
    let plugins = plugins(&config, &[]);
    let find = |name: &String| {
        let dirs = &settings.cni_bin_dirs;
        dirs.iter().any(|dir| node.is_program(&dir.join(name)))
    };
    let executed = self::plugins(&config, &settings.cni_in_process);
    let missing: Vec<&str> =
        executed.iter().filter(|name| !find(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let dirs: Vec<String> =
            settings.cni_bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let text = format!("{at}: no plugin {} in {}", missing.join(", "), dirs.join(", "));
        return vec![fix(ABOUT, text, "install it (Debian: containernetworking-plugins)")];
    }
    let name = config["name"].as_str().unwrap_or_default();
    let all: Vec<&str> = plugins.iter().map(String::as_str).collect();
    let how = match settings.cni_in_process.as_slice() {
        [] => String::new(),
        these => format!("; in-process: {}", these.join(", ")),
    };
    let mut findings = vec![ok(ABOUT, format!("{name} ({}) of {at}{how}", all.join(", ")))];
    findings.extend(firewall(node, &config));
    findings
}

/// The file that counts: the first by name.
fn first(node: &Node, dir: &Path) -> Option<PathBuf> {
    let is_config = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    let entries = std::fs::read_dir(node.at(dir)).ok()?.flatten();
    entries.map(|entry| dir.join(entry.file_name())).filter(is_config).min()
}

/// The types of a list's plugins, or of the one, with those that give addresses; but for those of `without`.
fn plugins(config: &Value, without: &[String]) -> BTreeSet<String> {
    let one = std::slice::from_ref(config);
    let all = config["plugins"].as_array().map_or(one, Vec::as_slice);
    let is_of = |plugin: &&Value| !without.iter().any(|name| plugin["type"] == **name);
    let kinds =
        all.iter().filter(is_of).flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]);
    // An address range may be given by none.
    kinds.filter_map(Value::as_str).filter(|kind| !kind.is_empty()).map(str::to_owned).collect()
}

fn firewall(node: &Node, config: &Value) -> Option<Finding> {
    let text = config.to_string();
    let masquerades = text.contains(r#""ipMasq":true"#);
    let wanted =
        masquerades || plugins(config, &[]).iter().any(|name| FIREWALL.contains(&name.as_str()));
    let there = FIREWALLS.iter().any(|program| node.program(program).is_some());
    (wanted && !there).then(|| {
        let text = "its plugins write rules of the firewall, and there is neither iptables nor nft";
        warning(ABOUT, text, "install iptables")
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    const LIST: &str = r#"{"name":"pods","plugins":[
        {"type":"bridge","ipMasq":true,"ipam":{"type":"host-local"}},{"type":"portmap"}]}"#;

    fn told(fake: &Fake) -> Vec<(Verdict, String)> {
        told_with(fake, &Settings::default())
    }

    fn told_with(fake: &Fake, settings: &Settings) -> Vec<(Verdict, String)> {
        let found = findings(&fake.node, settings);
        found.into_iter().map(|one| (one.verdict, one.text)).collect()
    }

    #[test]
    fn what_the_daemon_does_itself_need_not_be_there() {
        let fake = Fake::new(&[("/etc/cni/net.d/10-pods.conflist", LIST)]);
        fake.program("/usr/bin/iptables");
        let told = |names: &[&str]| {
            let cni_in_process = names.iter().map(|name| (*name).to_owned()).collect();
            told_with(&fake, &Settings { cni_in_process, ..Settings::default() }).remove(0)
        };
        let (verdict, text) = told(&["bridge"]);
        assert!(verdict == Verdict::Fix && text.contains("no plugin portmap in"), "{text}");
        let (verdict, text) = told(&["bridge", "portmap"]);
        assert!(
            verdict == Verdict::Ok && text.ends_with("; in-process: bridge, portmap"),
            "{text}"
        );
    }

    #[test]
    fn the_first_file_counts_and_every_plugin_that_it_names() {
        let fake = Fake::new(&[("/etc/cni/net.d/README", "")]);
        assert!(
            matches!(&told(&fake)[..], [(Verdict::Fix, text)] if text.contains("no configuration"))
        );
        fake.put("/etc/cni/net.d/20-later.conflist", "{");
        fake.put("/etc/cni/net.d/10-pods.conflist", LIST);
        fake.program("/opt/cni/bin/bridge");
        assert!(
            matches!(&told(&fake)[..], [(Verdict::Fix, text)] if text.contains("no plugin host-local, portmap in"))
        );
        fake.program("/opt/cni/bin/host-local");
        fake.program("/usr/lib/cni/portmap");
        let found = told(&fake);
        assert_eq!(
            found[0],
            (
                Verdict::Ok,
                "pods (bridge, host-local, portmap) of /etc/cni/net.d/10-pods.conflist".into()
            )
        );
        assert_eq!(found[1].0, Verdict::Warning);
        fake.program("/usr/bin/iptables");
        assert_eq!(told(&fake).len(), 1);
        fake.put("/etc/cni/net.d/05-first.conf", "{");
        assert!(
            matches!(&told(&fake)[..], [(Verdict::Fix, text)] if text.contains("05-first.conf is no JSON"))
        );
    }
}
