//! `podwright version`: the versions of both sides, and whether the daemon can run pods.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use api::cri::v1::{RuntimeCondition, StatusRequest, VersionRequest};

use crate::daemon::Daemon;
use crate::human::visible;
use crate::tls::Tls;

/// Show versions, and whether pods can run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, socket: &Path) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    writeln!(out, "podwright    {}", env!("CARGO_PKG_VERSION"))?;
    let mut daemon = Daemon::connect(socket, Tls::default()).await?;
    let answer = daemon.runtime.version(VersionRequest { version: "0.1.0".into() }).await?;
    let version = answer.into_inner();
    let name = match version.runtime_name.as_str() {
        "podwright" => "podwrightd",
        other => other,
    };
    writeln!(
        out,
        "{name:<12} {} (CRI {}, {})",
        version.runtime_version,
        version.runtime_api_version,
        socket.display()
    )?;
    let status = daemon.runtime.status(StatusRequest { verbose: false }).await?.into_inner().status;
    for condition in status.unwrap_or_default().conditions {
        writeln!(out, "{}", visible(&told(&condition)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A condition as a line: `network      not ready: no network configuration`.
fn told(condition: &RuntimeCondition) -> String {
    let what = match condition.r#type.as_str() {
        "RuntimeReady" => "runtime",
        "NetworkReady" => "network",
        other => other,
    };
    if condition.status {
        return format!("{what:<12} ready");
    }
    let why = [&condition.message, &condition.reason].into_iter().find(|why| !why.is_empty());
    why.map_or_else(
        || format!("{what:<12} not ready"),
        |why| format!("{what:<12} not ready: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_why_not() {
        let mut condition = RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: false,
            reason: "NetworkPluginNotReady".into(),
            message: "no network configuration".into(),
        };
        assert_eq!(told(&condition), "network      not ready: no network configuration");
        condition.status = true;
        assert_eq!(told(&condition), "network      ready");
    }
}
