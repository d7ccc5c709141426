//! `podwright image`: archives of images, in and out.

use std::process::ExitCode;

use crate::daemon::Daemon;

mod directory;
mod export;
mod import;

/// Import and export images as archives
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Import(import::Args),
    Export(export::Args),
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Import(args) => import::run(args, daemon).await,
        Verb::Export(args) => export::run(args, daemon).await,
    }
}
