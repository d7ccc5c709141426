//! OCI runtimes: which there are, what they say they are, and what they can do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::node::{Node, Runtime, Settings};
use super::{Finding, fix, ok, warning};

const ABOUT: &str = "runtime";
/// Those that a daemon finds by itself, and those that a configuration may name.
const KNOWN: [&str; 5] = ["crun", "runc", "youki", "runsc", "kata-runtime"];
/// How long one may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn findings(node: &Node, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.runtimes.is_empty() {
        for path in KNOWN.iter().filter_map(|name| node.program(name)) {
            findings.push(asked(&path, "").await);
        }
    }
    for (name, runtime) in &settings.runtimes {
        let is_default = *name == settings.default_runtime;
        findings.push(asked(&runtime.path, &about(runtime, is_default)).await);
    }
    if findings.is_empty() {
        findings.push(fix(ABOUT, "there is none", "install crun or runc"));
    }
    let hybrid = node.has("/sys/fs/cgroup/unified/cgroup.controllers");
    if hybrid && settings.default_runtime == "crun" {
        let text = "crun refuses cgroups of both versions beside each other";
        findings.push(warning(ABOUT, text, "set default_runtime to runc"));
    }
    findings
}

fn about(runtime: &Runtime, is_default: bool) -> String {
    let mut all = Vec::new();
    if is_default {
        all.push("the default");
    }
    all.push(if runtime.user_namespaces { "user namespaces" } else { "no user namespaces" });
    all.push(match runtime.recursive_read_only {
        true => "recursive read-only mounts",
        false => "no recursive read-only mounts",
    });
    format!(", {}", all.join(", "))
}

async fn asked(path: &Path, more: &str) -> Finding {
    let at = path.display();
    match version(path).await {
        Ok(Some(version)) => ok(ABOUT, format!("{version} ({at}){more}")),
        Ok(None) => {
            let text = format!("{at} does not say its version within {} s", PATIENCE.as_secs());
            warning(ABOUT, text, "")
        }
        Err(why) => fix(ABOUT, format!("{at} does not run: {why}"), "install it again"),
    }
}

/// The first line of its version; `None`: it hangs, and was ended.
async fn version(program: &Path) -> Result<Option<String>, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|err| err.to_string())?;
    let start = Instant::now();
    while child.try_wait().map_err(|err| err.to_string())?.is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).map_err(|err| err.to_string())?;
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let output = child.wait_with_output().map_err(|err| err.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::super::node::fake::Fake;
    use super::*;

    #[tokio::test]
    async fn a_runtime_says_its_version_or_why_not() {
        let none = findings(&Fake::new(&[]).node, &Settings::default()).await;
        assert_eq!((none.len(), none[0].verdict), (1, Verdict::Fix));
        let mut settings = Settings { default_runtime: "echo".into(), ..Settings::default() };
        let mut know = |name: &str, path: &str| {
            let runtime =
                Runtime { path: path.into(), user_namespaces: true, ..Runtime::default() };
            settings.runtimes.insert(name.into(), runtime);
        };
        know("echo", "/bin/echo");
        know("false", "/bin/false");
        know("none", "/no/such");
        let found = findings(&Fake::new(&[]).node, &settings).await;
        let verdicts: Vec<Verdict> = found.iter().map(|one| one.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Fix, Verdict::Fix], "{found:#?}");
        let told = "(/bin/echo), the default, user namespaces, no recursive read-only mounts";
        assert!(found[0].text.ends_with(told), "{found:#?}");
    }
}
