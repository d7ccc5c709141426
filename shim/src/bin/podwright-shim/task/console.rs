//! The socket through which a runtime hands over a terminal's master side.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, recvmsg, socket_with,
};

use crate::reactor::{self, Source};
use crate::runtime::scratch;

/// A runtime that has succeeded has also sent the terminal; this is for one that is odd.
const PATIENCE: Duration = Duration::from_secs(10);
/// What fits a socket address, with its final zero.
const MAX_PATH: usize = 107;

/// Waits for one terminal.
pub(crate) struct ConsoleListener {
    socket: Source,
    /// Where the socket is, for removing it.
    file: PathBuf,
    /// What the runtime is told: the same place, perhaps by a shorter way.
    path: PathBuf,
    /// Keeps the shorter way open.
    _dir: OwnedFd,
}

impl ConsoleListener {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let file = scratch(dir, "console");
        let handle = OwnedFd::from(std::fs::File::open(dir)?);
        let mut path = file.clone();
        if path.as_os_str().len() > MAX_PATH
            && let Some(name) = file.file_name()
        {
            let way = format!("/proc/{}/fd/{}", std::process::id(), handle.as_raw_fd());
            path = Path::new(&way).join(name);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        listen(&socket, 1)?;
        Ok(Self { socket: Source::new(socket)?, file, path, _dir: handle })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master side.
    pub(crate) async fn receive(self) -> io::Result<OwnedFd> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the runtime sent no terminal");
        reactor::within(PATIENCE, self.take()).await.ok_or_else(late)?
    }

    async fn take(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let peer = self.socket.read_with(|fd| accept_with(fd, flags)).await?;
        let peer = Source::new(peer)?;
        // Runtimes send the terminal's name beside it.
        let mut name = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        peer.read_with(|fd| {
            let mut parts = [IoSliceMut::new(&mut name)];
            recvmsg(fd, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map(|_| ())
        })
        .await?;
        let sent = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
            _ => None,
        });
        sent.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no terminal was sent"))
    }
}

impl Drop for ConsoleListener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
