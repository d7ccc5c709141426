//! `podwright ps`: the containers.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;

use api::cri::v1::{Container, ContainerState, ListContainersResponse, ListImagesRequest};
use clap::ValueEnum;
use tonic::Code;

use crate::daemon::Daemon;
use crate::failure::has_code;
use crate::find::{Candidates, container_name, is_running, pod_name};
use crate::human;
use crate::json;
use crate::table::{Column, Table};

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show the ones that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    /// As crictl prints it
    Json,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let mut all = Candidates::load(daemon).await?;
    if !args.all {
        all.containers.retain(is_running);
    }
    let text = if args.quiet {
        all.containers.iter().map(|container| format!("{}\n", container.id)).collect()
    } else if args.output == Output::Json {
        let list = ListContainersResponse::from(&all.containers[..]);
        format!("{:#}\n", json::message(&list)?)
    } else {
        table(&all, daemon).await?
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn table(all: &Candidates, daemon: &mut Daemon) -> anyhow::Result<String> {
    let names = image_names(daemon).await?;
    let now = human::now();
    let mut table = Table::new(&[
        Column::Fixed("CONTAINER"),
        Column::Cut("NAME"),
        Column::Cut("POD"),
        Column::Fixed("STATE"),
        Column::Fixed("AGE"),
        Column::Cut("IMAGE"),
    ]);
    for container in &all.containers {
        let pod = all.pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        table.row([
            human::short(&container.id).into(),
            container_name(container).into(),
            pod.map_or("?", pod_name).into(),
            state(container, daemon).await?,
            human::age(container.created_at, now),
            image(container, &names),
        ]);
    }
    Ok(table.render())
}

/// The state, and of what has ended, how.
async fn state(container: &Container, daemon: &mut Daemon) -> anyhow::Result<String> {
    if container.state() != ContainerState::ContainerExited {
        return Ok(human::container_state(container.state).into());
    }
    match daemon.container_status(&container.id).await {
        Ok(status) => Ok(human::ending(&status)),
        // Removed between the list and the question.
        Err(error) if has_code(&error, Code::NotFound) => Ok("removed".into()),
        Err(error) => Err(error),
    }
}

/// A name for each image id.
async fn image_names(daemon: &mut Daemon) -> anyhow::Result<HashMap<String, String>> {
    let list = daemon.images.list_images(ListImagesRequest::default()).await?.into_inner();
    let named = list.images.into_iter().filter_map(|image| {
        let name = image.repo_tags.into_iter().next().or(image.repo_digests.into_iter().next())?;
        Some((image.id, name))
    });
    Ok(named.collect())
}

/// What the pod's author wrote, else a name of the image.
fn image(container: &Container, names: &HashMap<String, String>) -> String {
    let spec = container.image.clone().unwrap_or_default();
    let written = [spec.user_specified_image, spec.image]
        .into_iter()
        .find(|text| !text.is_empty() && !text.starts_with("sha256:"));
    let named = || names.get(&container.image_id).or_else(|| names.get(&container.image_ref));
    let name = written.or_else(|| named().cloned()).unwrap_or_else(|| container.image_ref.clone());
    human::reference(&name)
}

#[cfg(test)]
mod tests {
    use api::cri::v1::ImageSpec;

    use super::*;

    #[test]
    fn an_image_shows_by_what_was_written_else_by_a_name() {
        let names = HashMap::from([("sha256:aa".to_owned(), "docker.io/library/a:1".to_owned())]);
        let mut container = Container {
            image: Some(ImageSpec { image: "sha256:aa".into(), ..Default::default() }),
            image_id: "sha256:aa".into(),
            image_ref: "sha256:aa".into(),
            ..Default::default()
        };
        assert_eq!(image(&container, &names), "docker.io/library/a:1");
        assert_eq!(image(&container, &HashMap::new()), "sha256:aa");
        container.image.as_mut().unwrap().user_specified_image = "a:1".into();
        assert_eq!(image(&container, &names), "a:1");
    }
}
