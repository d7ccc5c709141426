//! `podwright rm`: removes containers, or pods with all their containers.

use std::process::ExitCode;

use anyhow::{Context, bail};
use api::cri::v1::{
    Container, PodSandbox, PodSandboxState, RemoveContainerRequest, RemovePodSandboxRequest,
};

use crate::daemon::Daemon;
use crate::find::{Candidates, Found, is_running, no_such, pod_name};
use crate::human::short;
use crate::run::logs_of;
use crate::stop::report;

/// Remove containers or pods
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids or names
    #[arg(required_unless_present = "all", value_name = "POD|CONTAINER")]
    wanted: Vec<String>,
    /// Every pod that is stopped; with --force every pod
    #[arg(short, long, conflicts_with = "wanted")]
    all: bool,
    /// Kill what still runs
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let known = Candidates::load(daemon).await?;
    let mut code = ExitCode::SUCCESS;
    for wanted in &args.wanted {
        let removed = match known.any(wanted) {
            Ok(Some(Found::Pod(pod))) => remove_pod(&pod, args.force, daemon).await,
            Ok(Some(Found::Container(container))) => {
                remove_container(&container, args.force, daemon).await
            }
            Ok(None) => Err(no_such(wanted, "pod or container")),
            Err(error) => Err(error),
        };
        code = report(wanted, removed, code)?;
    }
    if args.all {
        for pod in known.pods.iter().filter(|pod| args.force || !is_ready(pod)) {
            let removed = remove_pod(pod, true, daemon).await;
            code = report(short(&pod.id), removed, code)?;
        }
    }
    Ok(code)
}

/// Removes a pod, its containers, and the logs of one that `podwright run` made.
pub(crate) async fn remove_pod(
    pod: &PodSandbox,
    force: bool,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    if is_ready(pod) && !force {
        bail!("pod {} is running: stop it first, or use --force", pod_name(pod));
    }
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
    daemon.runtime.remove_pod_sandbox(request).await.context("removing the pod")?;
    if let Some(logs) = logs_of(pod) {
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", logs.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn remove_container(
    container: &Container,
    force: bool,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    if is_running(container) && !force {
        bail!("container {} is running: stop it first, or use --force", short(&container.id));
    }
    let request = RemoveContainerRequest { container_id: container.id.clone() };
    daemon.runtime.remove_container(request).await.context("removing the container")?;
    Ok(())
}

fn is_ready(pod: &PodSandbox) -> bool {
    pod.state() == PodSandboxState::SandboxReady
}
