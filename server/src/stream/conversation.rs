//! The parts of a session side by side: reading, writing, and the work between them.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::channel::Activity;
use super::upgrade::Hangup;

/// How long a client may take to close its side of a session that is over. A socket that is closed with unread
/// bytes in it would reset the connection, and what the client has not read yet would be lost to it.
const LINGER: Duration = Duration::from_secs(2);

/// What a session is bounded by.
#[derive(Debug)]
pub(super) struct Limits {
    pub hangup: Hangup,
    pub activity: Activity,
    pub idle: Duration,
    /// Cancelled when the client is gone. A child of the server's stop.
    pub gone: CancellationToken,
}

/// Runs a session to its end. `work` is told through `gone` that the client left and ends by itself; `write` ends when
/// all outputs of `work` are dropped, and is not waited for once there is nobody to read it.
pub(super) async fn run(
    limits: Limits,
    read: impl Future<Output = ()>,
    write: impl Future<Output = ()>,
    work: impl Future<Output = ()>,
) {
    let Limits { hangup, activity, idle, gone } = limits;
    let mut over = pin!(async {
        tokio::select! {
            () = read => {}
            () = hangup.happened() => {}
            () = activity.idle(idle) => tracing::info!("a session was idle for too long"),
        }
        gone.cancel();
    });
    let written = async {
        tokio::select! {
            () = write => {}
            () = gone.cancelled() => {}
        }
    };
    let mut worked = pin!(async { tokio::join!(work, written) });
    tokio::select! {
        _ = &mut worked => {
            tokio::time::timeout(LINGER, over).await.ok();
        }
        () = &mut over => {
            worked.await;
        }
    }
}
