//! `podwright fsck`: leftovers of pods and images, told and, on request, given back; damaged layers.

use api::node::v1 as wire;

use crate::error::{Error, Result};
use crate::image::{Damage, Stray};
use crate::leftover;
use crate::operation::Operation;
use crate::sandbox::Pods;

/// Paths told of a layer that differs.
const MAX_PATHS: usize = 20;

/// Looks for all of it.
///
/// # Errors
/// When the records, or a directory of ours, cannot be read.
pub(super) async fn fsck(
    pods: &Pods,
    fix: bool,
    verify_layers: bool,
    operation: &Operation,
) -> Result<wire::FsckResponse> {
    let node = &pods.node;
    let image = |err: crate::image::Error| Error::Image(err.to_string());
    let mut answer = wire::FsckResponse::default();
    operation.enter("comparing the host with the records")?;
    for found in leftover::find(node).await? {
        let left =
            if fix { leftover::give_back(node, &found, operation).await } else { Vec::new() };
        answer.leftovers.extend(found.plan.iter().map(|resource| {
            let why = left.iter().find(|(one, _)| one == resource).map(|(_, err)| err.to_string());
            told(resource.describe(), fix, why)
        }));
    }
    operation.enter("comparing layers and files with the images")?;
    for stray in node.images.strays().await.map_err(image)? {
        let removed = if fix { node.images.remove_stray(&stray).await } else { Ok(()) };
        let what = match &stray {
            Stray::Layer(layer) => ("layer", layer.to_string()),
            Stray::File(file) => ("image file", file.to_string()),
        };
        answer.leftovers.push(told(what, fix, removed.err().map(|err| err.to_string())));
    }
    if verify_layers {
        operation.enter("comparing layers with their indexes")?;
        let (count, damaged) = node.images.verify_layers(operation).await.map_err(image)?;
        answer.verified_layers = count;
        for found in damaged {
            operation.enter("fetching damaged layers again")?;
            let repaired = if fix { Some(node.images.repair(&found.layer).await) } else { None };
            answer.damaged_layers.push(damage(found, repaired));
        }
    }
    Ok(answer)
}

fn told(
    (kind, name): (&'static str, String),
    tried: bool,
    why_not: Option<String>,
) -> wire::Leftover {
    let released = tried && why_not.is_none();
    wire::Leftover { kind: kind.to_owned(), name, released, error: why_not.unwrap_or_default() }
}

/// `repaired` is how the repair ended, if one was tried.
fn damage(
    Damage { layer, found }: Damage,
    repaired: Option<Result<(), crate::image::Error>>,
) -> wire::DamagedLayer {
    let digest = layer.to_string();
    let told = match found {
        Ok(paths) => wire::DamagedLayer {
            digest,
            path_count: paths.len() as u64,
            paths: paths.iter().take(MAX_PATHS).map(|path| path.display().to_string()).collect(),
            ..Default::default()
        },
        Err(error) => wire::DamagedLayer { digest, error, ..Default::default() },
    };
    match repaired {
        None => told,
        Some(Ok(())) => wire::DamagedLayer { repaired: true, ..told },
        Some(Err(err)) => wire::DamagedLayer { not_repaired: err.to_string(), ..told },
    }
}
