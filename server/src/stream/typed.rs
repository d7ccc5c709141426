//! What comes from a client for a process: input, and the sizes of its terminal.
//!
//! A size that came before input takes effect before it, as it would at a terminal of one's own. Input that waits for
//! the process holds up no size.

use std::pin::pin;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::channel::{Chunk, Input};
use super::resize::Sizes;

/// Passes both on until the client has ended them. The end of input closes `to` and is `ended`. What a process does not
/// take any more is read and dropped.
pub(super) async fn follow<F: Future<Output = ()>>(
    mut from: Option<Input>,
    mut to: Option<pipe::Sender>,
    sizes: Option<Input>,
    resize: impl Fn((u32, u32)) -> F,
    ended: impl Future<Output = ()>,
) {
    let (mut sizes, mut ended) = (Sizes::new(sizes), Some(ended));
    loop {
        let chunk = tokio::select! {
            biased;
            Some(size) = sizes.next() => {
                resize(size).await;
                continue;
            }
            chunk = async { from.as_mut()?.next().await }, if from.is_some() => chunk,
            else => return,
        };
        let Some(chunk) = chunk else {
            (from, to) = (None, None);
            if let Some(ended) = ended.take() {
                ended.await;
            }
            continue;
        };
        let mut writing = pin!(write(&mut to, chunk));
        loop {
            tokio::select! {
                biased;
                () = &mut writing => break,
                Some(size) = sizes.next() => resize(size).await,
            }
        }
    }
}

async fn write(to: &mut Option<pipe::Sender>, chunk: Chunk) {
    if let Some(fifo) = to
        && fifo.write_all(&chunk.bytes).await.is_err()
    {
        *to = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use bytes::Bytes;

    use super::super::channel::{Room, input};
    use super::*;

    const SIZE: &[u8] = br#"{"Width":80,"Height":24}"#;

    #[tokio::test]
    async fn a_size_before_input_takes_effect_before_it() {
        let ((feeder, typed), (sizer, sizes), room) = (input(), input(), Room::default());
        let (to, from) = pipe::pipe().unwrap();
        sizer.push(&room, Bytes::from_static(SIZE)).await;
        feeder.push(&room, Bytes::from_static(b"go")).await;
        drop((feeder, sizer));
        let (told, over) = (RefCell::new(Vec::new()), Cell::new(0));
        let (from, told, over) = (&from, &told, &over);
        let resize = |size| async move {
            tokio::task::yield_now().await;
            assert!(from.try_read(&mut [0; 2]).is_err(), "input came first");
            told.borrow_mut().push(size);
        };
        let ended = async { over.set(over.get() + 1) };
        follow(Some(typed), Some(to), Some(sizes), resize, ended).await;
        from.readable().await.unwrap();
        let mut read = [0; 3];
        assert_eq!((from.try_read(&mut read).unwrap(), &read[..2]), (2, &b"go"[..]));
        assert_eq!((told.take(), over.get()), (vec![(80, 24)], 1));
    }

    #[tokio::test]
    async fn input_that_nobody_reads_holds_up_no_size() {
        let ((feeder, typed), (sizer, sizes), room) = (input(), input(), Room::default());
        let (to, _from) = pipe::pipe().unwrap();
        let pushing = async {
            feeder.push(&room, Bytes::from(vec![b'x'; 1 << 20])).await;
            // Never ended.
            std::future::pending::<()>().await;
        };
        let (told, seen) = tokio::sync::oneshot::channel();
        let told = &RefCell::new(Some(told));
        let resize = |size| async move { told.take().unwrap().send(size).unwrap() };
        let sizing = async {
            tokio::task::yield_now().await;
            sizer.push(&room, Bytes::from_static(SIZE)).await;
            seen.await.unwrap()
        };
        tokio::select! {
            size = sizing => assert_eq!(size, (80, 24)),
            () = pushing => {}
            () = follow(Some(typed), Some(to), Some(sizes), resize, async {}) => {}
        }
    }
}
