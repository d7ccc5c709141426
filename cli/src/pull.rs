//! `podwright pull`: brings an image to this node.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use api::cri::v1::{Image, ImageSpec, ImageStatusRequest, PullImageRequest};
use indicatif::{ProgressBar, ProgressStyle};
use tonic::Status;

use crate::daemon::Daemon;
use crate::human;

/// Pull an image
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
    let waiting = if quiet { ProgressBar::hidden() } else { spinner(reference) };
    let image = Some(ImageSpec { image: reference.into(), ..Default::default() });
    let request = PullImageRequest { image, ..Default::default() };
    let answer = daemon.images.pull_image(request).await;
    waiting.finish_and_clear();
    let id = answer.map_err(|status| explain(reference, status))?.into_inner().image_ref;
    if !quiet {
        let size = find(&id, daemon).await?.map_or(0, |image| image.size);
        let (size, took) = (human::size(size), begun.elapsed().as_secs_f64());
        writeln!(std::io::stderr(), "pulled {reference}: {size} in {took:.1} s")?;
    }
    Ok(id)
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

/// What moves while the daemon pulls. CRI tells nothing of how far it is. Drawn on a terminal
/// only.
fn spinner(reference: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} pulling {msg}  {elapsed}");
    let bar = ProgressBar::new_spinner().with_message(reference.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
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
