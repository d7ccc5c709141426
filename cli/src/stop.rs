//! `podwright stop`: ends containers, or pods with all their containers.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use api::cri::v1::{Container, StopContainerRequest, StopPodSandboxRequest};
use tokio::task::JoinSet;

use crate::daemon::Daemon;
use crate::failure::describe;
use crate::find::{Candidates, Found, is_running, no_such};

/// Stop containers or pods
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids or names
    #[arg(required = true, value_name = "POD|CONTAINER")]
    wanted: Vec<String>,
    /// Seconds to end by themselves before they are killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let all = Candidates::load(daemon).await?;
    let mut code = ExitCode::SUCCESS;
    for wanted in &args.wanted {
        let stopped = match all.any(wanted) {
            Ok(Some(found)) => stop(&found, args.time, &all, daemon).await,
            Ok(None) => Err(no_such(wanted, "pod or container")),
            Err(error) => Err(error),
        };
        code = report(wanted, stopped, code)?;
    }
    Ok(code)
}

/// Prints what was done, or why not; the others are still to come.
pub(crate) fn report(
    wanted: &str,
    done: anyhow::Result<()>,
    code: ExitCode,
) -> anyhow::Result<ExitCode> {
    match done {
        Ok(()) => {
            writeln!(std::io::stdout(), "{wanted}")?;
            Ok(code)
        }
        Err(error) => {
            writeln!(std::io::stderr(), "podwright: {}", describe(&error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn stop(
    found: &Found,
    time: u32,
    all: &Candidates,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    match found {
        Found::Container(container) => stop_container(container, time, daemon.clone()).await,
        Found::Pod(pod) => stop_pod(&pod.id, time, all, daemon).await,
    }
}

/// Gives the containers of a pod their time, all at once, and then stops the pod.
pub(crate) async fn stop_pod(
    id: &str,
    time: u32,
    all: &Candidates,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    let mut stopping = JoinSet::new();
    for container in &all.containers {
        if container.pod_sandbox_id == id && is_running(container) {
            let (container, daemon) = (container.clone(), daemon.clone());
            stopping.spawn(async move { stop_container(&container, time, daemon).await });
        }
    }
    // StopPodSandbox kills what is left, so a container that would not stop is no reason to end.
    stopping.join_all().await;
    let request = StopPodSandboxRequest { pod_sandbox_id: id.into() };
    daemon.runtime.stop_pod_sandbox(request).await.context("stopping the pod")?;
    Ok(())
}

async fn stop_container(
    container: &Container,
    time: u32,
    mut daemon: Daemon,
) -> anyhow::Result<()> {
    let request =
        StopContainerRequest { container_id: container.id.clone(), timeout: i64::from(time) };
    daemon.runtime.stop_container(request).await.context("stopping the container")?;
    Ok(())
}
