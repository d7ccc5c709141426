//! `podwright images`: the images.

use std::io::Write;
use std::process::ExitCode;

use api::cri::v1::{Image, ImageFilter, ImageSpec, ListImagesRequest, ListImagesResponse};

use crate::daemon::Daemon;
use crate::human;
use crate::json;
use crate::ps::Output;
use crate::table::{Column, Table};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this image
    image: Option<String>,
    /// Show digests, too
    #[arg(long)]
    digests: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let image = args.image.map(|image| ImageSpec { image, ..Default::default() });
    let filter = image.map(|image| ImageFilter { image: Some(image) });
    let answer = daemon.images.list_images(ListImagesRequest { filter }).await?;
    let mut images = answer.into_inner().images;
    images.sort_by_cached_key(|image| (names(image, false), image.id.clone()));
    let text = if args.quiet {
        images.iter().map(|image| format!("{}\n", image.id)).collect()
    } else if args.output == Output::Json {
        format!("{:#}\n", json::message(&ListImagesResponse { images })?)
    } else {
        table(&images, args.digests)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(images: &[Image], digests: bool) -> String {
    const COLUMNS: &[Column] = &[Column::Cut("IMAGE"), Column::Fixed("ID"), Column::Right("SIZE")];
    let mut table = Table::new(COLUMNS);
    for image in images {
        for name in names(image, digests) {
            table.row([name, human::short(&image.id).into(), human::size(image.size)]);
        }
    }
    table.render()
}

/// Each name of an image. One that has lost its tags is named by its digest.
fn names(image: &Image, digests: bool) -> Vec<String> {
    let mut names = image.repo_tags.clone();
    if digests {
        names.extend(image.repo_digests.iter().cloned());
    } else if names.is_empty() {
        names.extend(image.repo_digests.iter().map(|name| human::reference(name)));
    }
    if names.is_empty() {
        names.push("<none>".into());
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_row() {
        let hex = "0123456789abcdef".repeat(4);
        let tagged = Image {
            id: format!("sha256:{hex}"),
            repo_tags: vec!["b:2".into(), "a:1".into()],
            repo_digests: vec![format!("a@sha256:{hex}")],
            size: 4_200_000,
            ..Default::default()
        };
        let dangling = Image { repo_tags: Vec::new(), ..tagged.clone() };
        assert_eq!(names(&tagged, false), ["a:1", "b:2"]);
        assert_eq!(names(&tagged, true).len(), 3);
        assert_eq!(names(&dangling, false), ["a@sha256:0123456789ab"]);
        assert_eq!(names(&Image::default(), false), ["<none>"]);
        let text = table(&[tagged], false);
        assert!(text.contains("a:1    0123456789ab  4.20 MB\n"), "{text}");
    }
}
