//! Images as archives over our own service: streams of bytes in and out.

use std::pin::Pin;
use std::task::{Context, Poll};

use api::node::v1 as wire;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::image::status;
use crate::image::{self, Images};

/// Takes an archive.
pub(super) async fn import(
    images: &Images,
    mut stream: Streaming<wire::ImportImagesRequest>,
) -> Result<Vec<wire::ImportedImage>, Status> {
    let first = stream.message().await?;
    let mut first = first.ok_or_else(|| Status::invalid_argument("data: there is none"))?;
    let names = std::mem::take(&mut first.names);
    let (sender, incoming) = image::incoming();
    let sending = async move {
        let mut next = Some(first);
        while let Some(message) = next {
            // An empty piece would be the end.
            if !message.data.is_empty() && sender.send(message.data.into()).await.is_err() {
                // Refused, for a reason that the other half tells.
                return Ok(());
            }
            next = stream.message().await?;
        }
        sender.send(Default::default()).await.ok();
        Ok::<_, Status>(())
    };
    let (sent, imported) = tokio::join!(sending, images.import(incoming, &names));
    sent?;
    let message = |imported: image::Imported| wire::ImportedImage {
        name: imported.name,
        id: imported.id.to_string(),
        digest: imported.digest.to_string(),
    };
    Ok(imported.map_err(|err| status(&err))?.into_iter().map(message).collect())
}

/// An image on its way to a client.
#[derive(Debug)]
pub(super) struct Export(image::Export);

/// Begins to give one.
pub(super) fn export(images: &Images, text: &str) -> Result<Export, Status> {
    images.export(text).map(Export).map_err(|err| status(&err))
}

impl Stream for Export {
    type Item = Result<wire::ExportImageResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.0.poll_recv(context));
        Poll::Ready(next.map(|piece| match piece {
            Ok(image::Sent::Data(bytes)) => {
                Ok(wire::ExportImageResponse { data: bytes.into(), ..Default::default() })
            }
            Ok(image::Sent::DigestsChange(why)) => {
                Ok(wire::ExportImageResponse { digests_change: why, ..Default::default() })
            }
            Err(err) => Err(status(&err)),
        }))
    }
}
