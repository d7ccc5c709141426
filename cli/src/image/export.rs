//! `podwright image export`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use api::node::v1::ExportImageRequest;

use crate::daemon::Daemon;
use crate::human;

/// Export an image as an OCI image layout in a tar file
///
/// The archive has the digests of the image's registry. Blobs that the daemon does not keep
/// (`image.keep_blobs`) are fetched again; where that cannot be, layers are made of their files. That is said, since
/// the image then has other digests, and another id where it is imported.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a reference, or an id
    image: String,
    /// The file to write; `-` is standard output
    file: PathBuf,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let request = ExportImageRequest { image: args.image };
    let mut stream = daemon.node.export_image(request).await?.into_inner();
    let mut next = stream.message().await?;
    // The file appears whole or not at all.
    let mut draft = args.file.clone().into_os_string();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let to_output = args.file == Path::new("-");
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match to_output {
        true => Box::new(std::io::stdout()),
        false => Box::new(
            std::fs::File::create(&draft)
                .with_context(|| format!("creating {}", draft.display()))?,
        ),
    });
    let written = async {
        while let Some(message) = next {
            if !message.digests_change.is_empty() {
                eprintln!("the digests change: {}", human::visible(&message.digests_change));
            }
            out.write_all(&message.data)?;
            next = stream.message().await?;
        }
        out.flush()?;
        anyhow::Ok(())
    }
    .await;
    if to_output {
        written?;
        return Ok(ExitCode::SUCCESS);
    }
    let named = written.and_then(|()| {
        std::fs::rename(&draft, &args.file)
            .with_context(|| format!("naming {}", args.file.display()))
    });
    if named.is_err() {
        std::fs::remove_file(&draft).ok();
    }
    named?;
    Ok(ExitCode::SUCCESS)
}
