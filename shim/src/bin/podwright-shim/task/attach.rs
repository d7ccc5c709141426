//! Pod.Attach: someone looks on, and may type.
//!
//! Output is copied by the log thread as it is read. A viewer that does not keep up with its pipe is cut off: neither
//! the container nor its log nor another viewer ever waits for it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::pin::pin;
use std::rc::Rc;

use api::podwright::{AttachRequest, AttachResponse};

use super::find;
use crate::log::{Stream, View};
use crate::pod::Pod;
use crate::reactor::{Source, race};
use crate::rpc::Failure;

/// Answers when the container has exited, or the viewer has gone or was cut off.
pub(crate) async fn attach(
    pod: &Rc<Pod>,
    request: &AttachRequest,
) -> Result<AttachResponse, Failure> {
    let task = find(pod, &request.id)?;
    if task.init.reaped.is_set() {
        return Err(exited());
    }
    let streams = &task.init.streams;
    let log = streams.log().ok_or_else(|| Failure::precondition("the output goes elsewhere"))?;
    let leash = match request.leash.as_str() {
        "" => None,
        name => {
            let fifo = fifo(OpenOptions::new().write(true), name).and_then(Source::new);
            Some(fifo.map_err(Failure::io("attach"))?)
        }
    };
    let mut views = [None, None];
    for (view, name, stream) in
        [(0, &request.stdout, Stream::Stdout), (1, &request.stderr, Stream::Stderr)]
    {
        if !name.is_empty() {
            let fifo = fifo(OpenOptions::new().write(true), name);
            let fifo = fifo.map_err(Failure::io("attach"))?;
            views[view] = Some(log.view(stream, fifo).await.map_err(|error| {
                // The log may have been closed meanwhile.
                if task.init.reaped.is_set() { exited() } else { Failure::io("attach")(error) }
            })?);
        }
    }
    if !request.stdin.is_empty() {
        let fifo = fifo(OpenOptions::new().read(true), &request.stdin);
        let fifo = fifo.map_err(Failure::io("attach"))?;
        streams.feed(fifo).map_err(Failure::io("attach"))?;
    }
    let [stdout, stderr] = views;
    let viewed = async { race(pin!(ended(stdout)), pin!(ended(stderr))).await };
    let over = async {
        let exited = async {
            let _ = task.exited().await;
        };
        race(pin!(exited), pin!(gone(leash))).await;
        false
    };
    let too_slow = race(pin!(viewed), pin!(over)).await;
    Ok(AttachResponse { too_slow })
}

fn exited() -> Failure {
    Failure::precondition("the container has exited")
}

/// Waits until nobody reads a FIFO that nothing is written to.
async fn gone(leash: Option<Source>) {
    match leash {
        Some(leash) => leash.changed().await,
        None => std::future::pending().await,
    }
}

/// Whether it was cut off.
async fn ended(view: Option<View>) -> bool {
    match view {
        Some(view) => view.ended().await,
        None => std::future::pending().await,
    }
}

fn fifo(options: &mut OpenOptions, path: &str) -> io::Result<OwnedFd> {
    let file: File =
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a fifo"));
    }
    Ok(file.into())
}
