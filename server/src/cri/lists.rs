//! Lists in one message, and in pieces (CRI 1.36): the same items, so many in a message.

use prost::Message;
use tonic::codegen::BoxStream;
use tonic::{Response, Status};

use super::MAX_MESSAGE;

/// Items of a message. With long labels one has some kilobytes, so a message stays far below what may be sent.
const PIECE: usize = 200;

/// A list in one message.
///
/// # Errors
/// `ResourceExhausted` if no client would take it, with the call that gives it in pieces.
pub(super) fn whole<M: Message>(message: M, in_pieces: &str) -> Result<Response<M>, Status> {
    match message.encoded_len() {
        ..=MAX_MESSAGE => Ok(Response::new(message)),
        bytes => Err(Status::resource_exhausted(format!(
            "the list has {bytes} bytes, of which a message may have {MAX_MESSAGE}: {in_pieces} gives it in pieces"
        ))),
    }
}

/// Cuts a list that was made at once: every item is in exactly one message, and a change in between is in none. An
/// empty list is no message.
pub(super) fn pieces<T, M: Send + 'static>(
    items: Vec<T>,
    message: fn(Vec<T>) -> M,
) -> Response<BoxStream<M>> {
    let mut messages = Vec::with_capacity(items.len().div_ceil(PIECE));
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        messages.push(Ok(message(items.by_ref().take(PIECE).collect())));
    }
    Response::new(Box::pin(tokio_stream::iter(messages)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    async fn cut(items: usize) -> Vec<usize> {
        let stream = pieces((0..items).collect(), |piece| piece.len()).into_inner();
        stream.map(Result::unwrap).collect().await
    }

    #[test]
    fn what_no_client_takes_is_refused_with_the_way_out() {
        let list =
            |bytes| api::cri::v1::ListContainersResponse { entries: vec![vec![0; bytes].into()] };
        assert!(whole(list(MAX_MESSAGE - 5), "StreamContainers").is_ok());
        let refused = whole(list(MAX_MESSAGE), "StreamContainers").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().ends_with(": StreamContainers gives it in pieces"));
    }

    #[tokio::test]
    async fn every_item_once_and_no_empty_message() {
        assert_eq!(cut(0).await, Vec::<usize>::new());
        assert_eq!(cut(1).await, [1]);
        assert_eq!(cut(PIECE).await, [PIECE]);
        assert_eq!(cut(2 * PIECE + 1).await, [PIECE, PIECE, 1]);
    }
}
