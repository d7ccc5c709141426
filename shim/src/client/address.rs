//! Where a shim listens.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream as StdUnixStream};
use std::path::Path;

use tokio::net::UnixStream;

/// What a socket address holds, without its final zero.
const MAX_PATH: usize = 107;

/// Connects to `unix://<path>`, or to an abstract socket where there is no scheme.
pub(super) async fn connect(address: &str) -> io::Result<UnixStream> {
    if let Some(path) = address.strip_prefix("unix://") {
        return connect_path(Path::new(path)).await;
    }
    if address.contains("://") {
        let what = format!("addresses such as {address:?} are not supported");
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    // Connecting to a unix socket waits for nothing but room in its backlog.
    let name = SocketAddr::from_abstract_name(address.trim_start_matches('@'))?;
    let stream = StdUnixStream::connect_addr(&name)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn connect_path(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_PATH {
        return UnixStream::connect(path).await;
    }
    // Longer than an address can be: go through a descriptor of the directory.
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = File::open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}
