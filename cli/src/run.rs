//! `podwright run`: a pod of one or several containers, without a kubelet.

mod config;
mod parse;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use api::cri::v1::{
    CreateContainerRequest, PodSandbox, PodSandboxConfig, RunPodSandboxRequest,
    StartContainerRequest,
};
use clap::ValueEnum;

use crate::daemon::Daemon;
use crate::exec::exit_code;
use crate::failure::describe;
use crate::find::Candidates;
use crate::human;
use crate::logs::{How, show};
use crate::pods::addresses;
use crate::pull;
use crate::rm::remove_pod;
use crate::stop::stop_pod;
use crate::table::{Column, Table};

pub(crate) use config::logs_of;

/// What a shell reports of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Seconds that Ctrl-C leaves the container to end.
const GRACE: u32 = 10;

/// Run a pod
///
/// Pulls the image unless it is here, makes a pod with its own network, and starts the container in
/// it. With --container instead of IMAGE, the pod gets several.
///
/// The pod is this command's own: a kubelet on the same node removes pods that it does not know.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod's name [default: made from the image]
    #[arg(long, value_parser = parse::name)]
    name: Option<String>,
    /// The pod's namespace
    #[arg(long, default_value = "default", value_parser = parse::name)]
    namespace: String,
    /// Show the output until the container ends, then remove the pod, and exit as the container did
    #[arg(long)]
    rm: bool,
    /// Set an environment variable, or pass one on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = parse::variable)]
    env: Vec<(String, String)>,
    /// Forward a port of the host to the pod
    #[arg(short, long, value_name = "[IP:]HOST:POD[/udp]", value_parser = parse::port)]
    publish: Vec<parse::Port>,
    /// The network: the pod's own, or the host's
    #[arg(long, visible_alias = "network", value_enum, default_value_t = Net::Pod)]
    net: Net,
    /// The runtime handler [default: the daemon's]
    #[arg(long, value_name = "HANDLER", default_value = "", hide_default_value = true)]
    runtime: String,
    /// Add a container; the command is split at blanks
    #[arg(
        long,
        value_name = "NAME=IMAGE [COMMAND…]",
        value_parser = parse::container,
        conflicts_with_all = ["image", "rm"]
    )]
    container: Vec<parse::Container>,
    /// Keep stdin open (not there yet)
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal (not there yet)
    #[arg(short, long)]
    tty: bool,
    /// The image
    #[arg(required_unless_present = "container")]
    image: Option<String>,
    /// Replaces the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Whose network a pod is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    Pod,
    Host,
}

/// A container that was started.
struct Started {
    id: String,
    name: String,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    if args.interactive || args.tty {
        bail!("interactive containers are not there yet: leave out -i and -t");
    }
    let plan = config::plan(&args)?;
    refuse_second(&plan.pod, daemon).await?;
    let mut images = Vec::new();
    for container in &plan.containers {
        images.push(match pull::find(&container.image, daemon).await? {
            Some(image) => image.id,
            None => pull::pull(&container.image, false, daemon).await?,
        });
    }
    make_log_directories(&plan)?;
    let request = RunPodSandboxRequest {
        config: Some(plan.pod.clone()),
        runtime_handler: args.runtime.clone(),
    };
    let made = daemon.runtime.run_pod_sandbox(request).await.context("making the pod");
    let id = match made {
        Ok(answer) => answer.into_inner().pod_sandbox_id,
        Err(error) => {
            let _ = std::fs::remove_dir_all(&plan.pod.log_directory);
            return Err(error);
        }
    };
    let started = match start_all(&id, &plan, &images, daemon).await {
        Ok(started) => started,
        Err(error) => {
            remove(&id, &plan.pod, daemon).await;
            return Err(error);
        }
    };
    match started.as_slice() {
        [one] if args.rm => watch(&id, one, &plan.pod, daemon).await,
        _ => {
            tell(&id, &plan.pod, &started, daemon).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// CRI tells pods apart by their uid; a user does by name.
async fn refuse_second(config: &PodSandboxConfig, daemon: &mut Daemon) -> anyhow::Result<()> {
    let Some(wanted) = &config.metadata else { return Ok(()) };
    let same = |pod: &PodSandbox| {
        pod.metadata
            .as_ref()
            .is_some_and(|its| its.name == wanted.name && its.namespace == wanted.namespace)
    };
    match daemon.pods().await?.iter().find(|pod| same(pod)) {
        None => Ok(()),
        Some(pod) => bail!(
            "there is a pod {} already ({}): choose another --name, or remove it with `podwright rm`",
            wanted.name,
            human::short(&pod.id)
        ),
    }
}

fn make_log_directories(plan: &config::Plan) -> anyhow::Result<()> {
    let pod = Path::new(&plan.pod.log_directory);
    for container in &plan.containers {
        let file: PathBuf = pod.join(&container.config.log_path);
        let directory = file.parent().unwrap_or(pod);
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
    }
    Ok(())
}

async fn start_all(
    pod: &str,
    plan: &config::Plan,
    images: &[String],
    daemon: &mut Daemon,
) -> anyhow::Result<Vec<Started>> {
    let mut started = Vec::new();
    for (container, image) in plan.containers.iter().zip(images) {
        let name = &container.name;
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(container.with_image(image)),
            sandbox_config: Some(plan.pod.clone()),
        };
        let created = daemon.runtime.create_container(request).await;
        let id = created.with_context(|| format!("creating {name}"))?.into_inner().container_id;
        let request = StartContainerRequest { container_id: id.clone() };
        let begun = daemon.runtime.start_container(request).await;
        begun.with_context(|| format!("starting {name}"))?;
        started.push(Started { id, name: name.clone() });
    }
    Ok(started)
}

/// Shows the container's output until it ends or Ctrl-C comes, and removes the pod.
async fn watch(
    pod: &str,
    container: &Started,
    config: &PodSandboxConfig,
    daemon: &mut Daemon,
) -> anyhow::Result<ExitCode> {
    let how = How { follow: true, ..How::default() };
    let mut shown_by = daemon.clone();
    let code = tokio::select! {
        shown = show(&container.id, &how, &mut shown_by) => match shown {
            Ok(()) => daemon.container_status(&container.id).await.map(|status| exit_code(status.exit_code)),
            Err(error) => Err(error),
        },
        _ = tokio::signal::ctrl_c() => {
            let all = Candidates::load(daemon).await?;
            stop_pod(pod, GRACE, &all, daemon).await?;
            Ok(ExitCode::from(INTERRUPTED))
        }
    };
    remove(pod, config, daemon).await;
    code
}

/// Removes the pod that this command made. What goes wrong is told; the failure or the exit code
/// that led here is what the command ends with.
async fn remove(id: &str, config: &PodSandboxConfig, daemon: &mut Daemon) {
    let pod = PodSandbox {
        id: id.into(),
        metadata: config.metadata.clone(),
        labels: config.labels.clone(),
        ..Default::default()
    };
    if let Err(error) = remove_pod(&pod, true, daemon).await {
        eprintln!("podwright: {}", describe(&error));
    }
}

/// Prints what runs now.
async fn tell(
    pod: &str,
    config: &PodSandboxConfig,
    started: &[Started],
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    let address = addresses(&daemon.pod_status(pod).await?);
    let name = config.metadata.as_ref().map_or("", |metadata| &metadata.name);
    let mut table = Table::new(&[
        Column::Fixed("KIND"),
        Column::Fixed("ID"),
        Column::Cut("NAME"),
        Column::Fixed("STATE"),
        Column::Fixed("IP"),
    ]);
    let row = ["pod", human::short(pod), name, "ready", &address];
    table.row(row.map(str::to_owned));
    for container in started {
        let state = human::ending(&daemon.container_status(&container.id).await?);
        let row = ["container", human::short(&container.id), &container.name, &state, ""];
        table.row(row.map(str::to_owned));
    }
    Ok(std::io::stdout().write_all(table.render().as_bytes())?)
}
