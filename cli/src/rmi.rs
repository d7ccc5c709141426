//! `podwright rmi`: removes images.

use std::process::ExitCode;

use anyhow::Context;
use api::cri::v1::{ImageSpec, RemoveImageRequest};

use crate::daemon::Daemon;
use crate::find::no_such;
use crate::pull::find;
use crate::stop::report;

/// Remove images, with all their names
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// References or ids
    #[arg(required = true)]
    image: Vec<String>,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for image in &args.image {
        let removed = remove(image, daemon).await;
        code = report(image, removed, code)?;
    }
    Ok(code)
}

async fn remove(image: &str, daemon: &mut Daemon) -> anyhow::Result<()> {
    // Removing what is not there succeeds in CRI, which would hide a slip of the pen.
    let found = find(image, daemon).await?.ok_or_else(|| no_such(image, "image"))?;
    let image = Some(ImageSpec { image: found.id, ..Default::default() });
    daemon.images.remove_image(RemoveImageRequest { image }).await.context("removing the image")?;
    Ok(())
}
