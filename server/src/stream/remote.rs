//! Exec and attach over SPDY: which stream of a connection is what.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::report::Version;
use super::session::{self, Client, Remote};
use super::spdy::connection::Opened;

/// In the order of preference of nobody: the client's counts.
const VERSIONS: [(&str, Version); 4] = [
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];

/// The names of what is spoken.
pub(super) fn protocols() -> Vec<&'static str> {
    VERSIONS.map(|(name, _)| name).to_vec()
}

/// The version of that name; the oldest for one that was never offered.
pub(super) fn version(name: &str) -> Version {
    VERSIONS.iter().find(|(known, _)| *known == name).map_or(Version::V1, |(_, version)| *version)
}

/// Waits for the streams that the request implies, as long as a client may take for their `creation`, then runs the
/// session.
pub(super) async fn serve(
    remote: Remote,
    version: Version,
    mut opened: mpsc::Receiver<Opened>,
    gone: CancellationToken,
    (creation, drain): (Duration, Duration),
) {
    let resizes = remote.terminal && version >= Version::V3;
    let collected = tokio::select! {
        streams = tokio::time::timeout(creation, collect(&remote, resizes, &mut opened)) => streams,
        () = gone.cancelled() => return,
    };
    drop(opened);
    let Ok(Some(mut streams)) = collected else {
        return tracing::info!("a client did not open its streams");
    };
    let mut take = |kind| streams[place(kind)].take();
    let Some(error) = take(Kind::Error) else { return };
    let client = Client {
        version,
        stdin: take(Kind::Stdin).map(|stream| stream.input),
        stdout: take(Kind::Stdout).map(|stream| stream.output),
        stderr: take(Kind::Stderr).map(|stream| stream.output),
        resize: take(Kind::Resize).map(|stream| stream.input),
        error: error.output,
        gone,
    };
    session::run(remote, client, drain).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

const KINDS: [(&str, Kind); 5] = [
    ("error", Kind::Error),
    ("stdin", Kind::Stdin),
    ("stdout", Kind::Stdout),
    ("stderr", Kind::Stderr),
    ("resize", Kind::Resize),
];

fn place(kind: Kind) -> usize {
    kind as usize
}

/// `None` when the client has gone before.
async fn collect(
    remote: &Remote,
    resizes: bool,
    opened: &mut mpsc::Receiver<Opened>,
) -> Option<[Option<Opened>; 5]> {
    let wanted = [true, remote.stdin, remote.stdout, remote.stderr, resizes];
    let mut streams: [Option<Opened>; 5] = Default::default();
    while wanted.iter().zip(&streams).any(|(wanted, stream)| *wanted && stream.is_none()) {
        let stream = opened.recv().await?;
        let name = stream.headers.get("streamtype").unwrap_or_default();
        match KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| place(*kind)) {
            Some(place) if wanted[place] && streams[place].is_none() => {
                stream.output.accept().await;
                streams[place] = Some(stream);
            }
            _ => stream.output.refuse().await,
        }
    }
    Some(streams)
}
