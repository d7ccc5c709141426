//! `podwright pull`: brings an image to this node.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{anyhow, bail};
use api::cri::v1::{Image, ImageSpec, ImageStatusRequest, PullImageRequest};
use api::node::v1 as node;
use tonic::{Code, Status};

use crate::daemon::Daemon;
use crate::human;

mod view;

use view::View;

/// Pull an image
///
/// Joins the pull where one is under way, whoever began it. The daemon goes on when this command is interrupted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Its reference, such as docker.io/library/nginx:latest
    #[arg(required = true)]
    image: Vec<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    for image in &args.image {
        let id = pull(image, args.quiet, daemon).await?;
        writeln!(std::io::stdout(), "{id}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls an image and answers with its id. Unless `quiet`, says on stderr what it does.
pub(crate) async fn pull(
    reference: &str,
    quiet: bool,
    daemon: &mut Daemon,
) -> anyhow::Result<String> {
    let begun = Instant::now();
    let mut view = View::new(reference, quiet);
    let pulled = tokio::select! {
        pulled = watched(reference, &mut view, daemon) => pulled,
        _ = tokio::signal::ctrl_c() => Err(anyhow!(
            "interrupted; the daemon goes on with it: see `podwright ops`, or pull it again to look on"
        )),
    };
    view.end();
    let id = pulled?;
    if !quiet {
        let size = find(&id, daemon).await?.map_or(0, |image| image.size);
        let (size, took) = (human::size(size), begun.elapsed().as_secs_f64());
        writeln!(std::io::stderr(), "pulled {reference}: {size} in {took:.1} s")?;
    }
    Ok(id)
}

async fn watched(reference: &str, view: &mut View, daemon: &mut Daemon) -> anyhow::Result<String> {
    let failed = |status| explain(reference, status);
    let request = node::PullRequest { image: reference.into() };
    let mut stream = match daemon.node.pull(request).await {
        Ok(stream) => stream.into_inner(),
        // A daemon from before it told how far it is.
        Err(status) if status.code() == Code::Unimplemented => {
            let image = Some(ImageSpec { image: reference.into(), ..Default::default() });
            let request = PullImageRequest { image, ..Default::default() };
            let answer = daemon.images.pull_image(request).await;
            return Ok(answer.map_err(failed)?.into_inner().image_ref);
        }
        Err(status) => return Err(failed(status)),
    };
    while let Some(now) = stream.message().await.map_err(failed)? {
        view.show(&now)?;
        if !now.image_id.is_empty() {
            return Ok(now.image_id);
        }
    }
    bail!("pulling {reference}: the daemon told no end")
}

/// The refusal, with the reference unless it says that itself.
fn explain(reference: &str, status: Status) -> anyhow::Error {
    if status.message().contains(reference) {
        return status.into();
    }
    anyhow::Error::from(status).context(format!("pulling {reference}"))
}

/// The image that a reference, an id or a digest names, if it is here.
pub(crate) async fn find(image: &str, daemon: &mut Daemon) -> anyhow::Result<Option<Image>> {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    let request = ImageStatusRequest { image, verbose: false };
    Ok(daemon.images.image_status(request).await?.into_inner().image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::describe;

    #[test]
    fn a_refusal_names_the_image_once() {
        let told = |message: &str| describe(&explain("r.io/a:1", Status::unknown(message)));
        assert_eq!(told("r.io/a:1: not found"), "r.io/a:1: not found");
        assert_eq!(told("no space left"), "pulling r.io/a:1: no space left");
    }
}
