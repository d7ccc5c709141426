//! Lists in one message, and in pieces (CRI 1.36): the same items, so many in a message.

use prost::Message;
use tonic::codegen::BoxStream;
use tonic::{Response, Status};

use super::MAX_MESSAGE;

/// Items of a message, and their bytes where it has more than one (CRI 1.36's streams): far below what may be sent, though
/// the metrics of a pod of five containers alone have more than a hundred kilobytes.
const PIECE: usize = 200;
const PIECE_BYTES: usize = 1 << 20;

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
pub(super) fn pieces<T: Message, M: Send + 'static>(
    items: Vec<T>,
    message: fn(Vec<T>) -> M,
) -> Response<BoxStream<M>> {
    let (mut messages, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let size = item.encoded_len();
        if piece.len() == PIECE || !piece.is_empty() && bytes + size > PIECE_BYTES {
            messages.push(Ok(message(std::mem::take(&mut piece))));
            bytes = 0;
        }
        bytes += size;
        piece.push(item);
    }
    if !piece.is_empty() {
        messages.push(Ok(message(piece)));
    }
    Response::new(Box::pin(tokio_stream::iter(messages)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    async fn cut(items: Vec<String>) -> Vec<usize> {
        let stream = pieces(items, |piece| piece.len()).into_inner();
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
        let small = |items| vec![String::new(); items];
        assert_eq!(cut(small(0)).await, Vec::<usize>::new());
        assert_eq!(cut(small(1)).await, [1]);
        assert_eq!(cut(small(PIECE)).await, [PIECE]);
        assert_eq!(cut(small(2 * PIECE + 1)).await, [PIECE, PIECE, 1]);
    }

    #[tokio::test]
    async fn large_items_are_few_in_a_message_and_one_at_least() {
        let large = |bytes| "x".repeat(bytes);
        assert_eq!(cut(vec![large(PIECE_BYTES / 2 - 10); 5]).await, [2, 2, 1]);
        assert_eq!(cut(vec![large(2 * PIECE_BYTES); 2]).await, [1, 1]);
        assert_eq!(cut(vec![large(0), large(PIECE_BYTES), large(0)]).await, [1, 1, 1]);
    }
}
