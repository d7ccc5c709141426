//! Lists in pieces (CRI 1.36): the same items as of the list in one, so many in a message.

use tonic::Response;
use tonic::codegen::BoxStream;

/// Items of a message. With long labels one has some kilobytes, so a message stays far below what may be sent.
const PIECE: usize = 200;

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

    #[tokio::test]
    async fn every_item_once_and_no_empty_message() {
        assert_eq!(cut(0).await, Vec::<usize>::new());
        assert_eq!(cut(1).await, [1]);
        assert_eq!(cut(PIECE).await, [PIECE]);
        assert_eq!(cut(2 * PIECE + 1).await, [PIECE, PIECE, 1]);
    }
}
