//! A pull as a stream of what is here of it, for whoever looks on.
//!
//! A message is made when the client takes it: one that reads slowly gets fewer, and neither the pull nor another
//! viewer ever waits for it. It may look on at a pull with logins that it has not, since whoever reaches our socket
//! may use every image of the node; what it begins itself has the node's own.

use std::time::Duration;

use api::node::v1 as wire;
use futures_util::Stream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Request, Status};

use super::Ready;
use super::image::status;
use crate::image::{Credentials, Images, Pull};
use crate::operation::{Caller, PartProgress, PartState, Transfer};

/// How often it is looked at.
const TICK: Duration = Duration::from_millis(200);

/// One who looks on, and wants the result.
struct Viewer {
    images: Images,
    name: String,
    pull: Pull,
    caller: Caller,
    joined: bool,
    ticks: Interval,
    /// Until the daemon ends, which nobody who looks on delays.
    ready: Ready,
}

/// Joins a pull, or begins one.
pub(super) fn view(
    images: Images,
    name: String,
    ready: Ready,
) -> Result<impl Stream<Item = Result<wire::PullProgress, Status>> + use<>, Status> {
    let under_way = images.join_pull(&name).map_err(|err| status(&err))?;
    let joined = under_way.is_some();
    let pull = match under_way {
        Some(pull) => pull,
        None => begin(&images, &name)?,
    };
    let caller = pull.progress().operation().caller();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let viewer = Viewer { images, name, pull, caller, joined, ticks, ready };
    Ok(futures_util::stream::unfold(Some(viewer), |viewer| async move {
        let mut viewer = viewer?;
        match viewer.next().await {
            Ok(message) if message.image_id.is_empty() => Some((Ok(message), Some(viewer))),
            end => Some((end, None)),
        }
    }))
}

fn begin(images: &Images, name: &str) -> Result<Pull, Status> {
    images.pull(name, Credentials::default()).map_err(|err| status(&err))
}

impl Viewer {
    async fn next(&mut self) -> Result<wire::PullProgress, Status> {
        loop {
            let ended = tokio::select! {
                biased;
                ended = &mut self.pull => ended,
                _ = self.ticks.tick() => {
                    self.ready.check(Request::new(()))?;
                    return Ok(self.message());
                }
            };
            match ended {
                Ok(id) => {
                    return Ok(wire::PullProgress { image_id: id.to_string(), ..self.message() });
                }
                // It may have been the other's logins.
                Err(err) if self.joined => {
                    tracing::debug!(%err, "the pull that was joined failed; trying it here");
                    self.joined = false;
                    self.pull = begin(&self.images, &self.name)?;
                    self.caller = self.pull.progress().operation().caller();
                }
                Err(err) => return Err(status(&err)),
            }
        }
    }

    fn message(&self) -> wire::PullProgress {
        let progress = self.pull.progress();
        let layers = progress.layers();
        wire::PullProgress {
            stage: progress.now().stage.to_owned(),
            joined: self.joined,
            transfer: Some(transfer(Transfer::of(&layers))),
            layers: layers.into_iter().map(layer).collect(),
            image_id: String::new(),
        }
    }
}

pub(super) fn transfer(of: Transfer) -> wire::Transfer {
    let Transfer { bytes_done, bytes_total, layers_done, layers_total } = of;
    wire::Transfer { bytes_done, bytes_total, layers_done, layers_total }
}

fn layer(part: PartProgress) -> wire::PulledLayer {
    let state = match part.state {
        PartState::Waiting => wire::LayerState::LayerWaiting,
        PartState::Fetching => wire::LayerState::LayerFetching,
        PartState::Unpacking => wire::LayerState::LayerUnpacking,
        PartState::Done => wire::LayerState::LayerDone,
        PartState::AlreadyHere => wire::LayerState::LayerAlreadyHere,
    };
    wire::PulledLayer {
        digest: part.name,
        size: part.size,
        fetched: part.fetched,
        unpacked: part.unpacked,
        state: state.into(),
    }
}
