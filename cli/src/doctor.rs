//! `podwright doctor`: whether this node can run pods, and what to do where it cannot.
//!
//! Most of it is read from this node's own files and needs no daemon; what a daemon knows better, it is asked for.
//! Nothing is changed.

mod cgroup;
mod clock;
mod disk;
mod kernel;
mod network;
mod node;
mod running;
mod runtimes;
mod sysctl;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::human::visible;
use crate::tls::Tls;

use node::{Node, Settings};

/// Check whether this node can run pods, and say what to do where it cannot
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Images whose registries are asked; those of this node's images otherwise
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Something works less well than it could, or not at all for some pods.
    Warning,
    /// Pods cannot run.
    Fix,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fix => "fix",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    about: &'static str,
    text: String,
    /// What to do.
    advice: String,
}

fn ok(about: &'static str, text: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Ok, about, text: text.into(), advice: String::new() }
}

fn warning(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, about, text: text.into(), advice: advice.into() }
}

fn fix(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Fix, about, text: text.into(), advice: advice.into() }
}

/// Fails where something has to be fixed.
pub(crate) async fn run(args: Args, socket: &Path, tls: Tls) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    let mut settings = Settings::default();
    let mut registries = Vec::new();
    match Daemon::connect(socket, tls).await {
        Ok(mut daemon) => {
            findings.extend(running::daemon(&mut daemon, &mut settings).await);
            registries = running::registries(&mut daemon, &args.images).await;
        }
        Err(error) => findings.push(fix("daemon", format!("{error:#}"), "")),
    }
    let node = Node::here();
    findings.extend(cgroup::findings(&node, &settings));
    findings.extend(kernel::findings(&node));
    findings.extend(runtimes::findings(&node, &settings).await);
    findings.extend(network::findings(&node, &settings));
    findings.extend(sysctl::findings(&node));
    findings.extend(disk::findings(&node, &settings));
    findings.push(clock::finding(&node));
    findings.extend(registries);
    let text = if args.json { format!("{:#}\n", list(&findings)) } else { lines(&findings) };
    std::io::stdout().write_all(text.as_bytes())?;
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Fix);
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let Finding { verdict, about, text, advice } = finding;
        let advice = if advice.is_empty() { String::new() } else { format!(": {advice}") };
        // Others' texts may have several lines.
        let said = visible(&format!("{text}{advice}")).replace('\n', " ");
        format!("{:<8} {about:<10} {said}\n", verdict.name())
    };
    findings.iter().map(line).collect()
}

fn list(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        let Finding { verdict, about, text, advice } = finding;
        json!({ "verdict": verdict.name(), "about": about, "text": text, "advice": advice })
    };
    findings.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_verdict_and_what_to_do() {
        let findings = [
            ok("cgroup", "version 2"),
            warning("clock", "not\nkept \u{1b}[2J", "start it"),
            fix("network", "nothing in /etc/cni/net.d", "put one there"),
        ];
        let told = lines(&findings);
        let expected = [
            "ok       cgroup     version 2",
            "warning  clock      not kept \\u{1b}[2J: start it",
            "fix      network    nothing in /etc/cni/net.d: put one there",
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
        let told = list(&findings);
        assert_eq!((&told[2]["verdict"], &told[0]["advice"]), (&json!("fix"), &json!("")));
    }
}
