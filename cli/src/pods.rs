//! `podwright pods`: the pods.

use std::io::Write;
use std::process::ExitCode;

use api::cri::v1::{
    ListPodSandboxResponse, NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatus,
};
use tonic::Code;

use crate::daemon::Daemon;
use crate::failure::has_code;
use crate::find::{Candidates, is_running, pod_name};
use crate::human;
use crate::json;
use crate::ps::Output;
use crate::table::{Column, Table};

/// List pods
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let text = if args.quiet {
        daemon.pods().await?.iter().map(|pod| format!("{}\n", pod.id)).collect()
    } else if args.output == Output::Json {
        let list = ListPodSandboxResponse::from(&daemon.pods().await?[..]);
        format!("{:#}\n", json::message(&list)?)
    } else {
        table(daemon).await?
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn table(daemon: &mut Daemon) -> anyhow::Result<String> {
    let all = Candidates::load(daemon).await?;
    let now = human::now();
    let mut table = Table::new(&[
        Column::Fixed("POD"),
        Column::Cut("NAME"),
        Column::Cut("NAMESPACE"),
        Column::Fixed("STATE"),
        Column::Fixed("AGE"),
        Column::Fixed("IP"),
        Column::Fixed("RUNNING"),
    ]);
    for pod in &all.pods {
        table.row([
            human::short(&pod.id).into(),
            pod_name(pod).into(),
            pod.metadata.as_ref().map_or("", |metadata| &metadata.namespace).into(),
            human::pod_state(pod.state).into(),
            human::age(pod.created_at, now),
            address(pod, daemon).await?,
            running(pod, &all),
        ]);
    }
    Ok(table.render())
}

/// The address of a pod that has one.
async fn address(pod: &PodSandbox, daemon: &mut Daemon) -> anyhow::Result<String> {
    if pod.state() != PodSandboxState::SandboxReady {
        return Ok("-".into());
    }
    match daemon.pod_status(&pod.id).await {
        Ok(status) => Ok(addresses(&status)),
        // Removed between the list and the question.
        Err(error) if has_code(&error, Code::NotFound) => Ok("-".into()),
        Err(error) => Err(error),
    }
}

/// A pod's addresses; of one on the host's network, that it is.
pub(crate) fn addresses(status: &PodSandboxStatus) -> String {
    let network = status.network.clone().unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|more| more.ip);
    let all: Vec<_> = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
    if !all.is_empty() {
        return all.join(",");
    }
    let options =
        status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    let on_host = options.is_some_and(|options| options.network() == NamespaceMode::Node);
    (if on_host { "host" } else { "-" }).into()
}

/// How many of a pod's containers run, of how many.
fn running(pod: &PodSandbox, all: &Candidates) -> String {
    let theirs = || all.containers.iter().filter(|container| container.pod_sandbox_id == pod.id);
    format!("{}/{}", theirs().filter(|container| is_running(container)).count(), theirs().count())
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{
        LinuxPodSandboxStatus, Namespace, NamespaceOption, PodIp, PodSandboxNetworkStatus,
    };

    use super::*;

    #[test]
    fn all_addresses_are_shown() {
        let network = PodSandboxNetworkStatus {
            ip: "10.0.0.2".into(),
            additional_ips: vec![PodIp { ip: "fd00::2".into() }],
        };
        let status = PodSandboxStatus { network: Some(network), ..Default::default() };
        assert_eq!(addresses(&status), "10.0.0.2,fd00::2");
        assert_eq!(addresses(&PodSandboxStatus::default()), "-");
    }

    #[test]
    fn the_hosts_network_is_told() {
        let options = NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() };
        let namespaces = Some(Namespace { options: Some(options) });
        let linux = Some(LinuxPodSandboxStatus { namespaces });
        assert_eq!(addresses(&PodSandboxStatus { linux, ..Default::default() }), "host");
    }
}
