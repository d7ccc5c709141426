//! The shim's side of ttrpc: Task (v2 and v3), Sandbox and our own Pod service.

mod connection;
mod dispatch;
mod failure;

pub(crate) use failure::Failure;

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::{SocketFlags, accept_with, sockopt::socket_peercred};

use crate::pod::Pod;
use crate::reactor::{self, Source};

/// Accepts clients for as long as the shim lives. Beside the socket's mode, the peer's user is
/// checked: only ours and root's processes get a word in.
pub(crate) async fn listen(listener: OwnedFd, pod: Rc<Pod>) {
    let listener = match Source::new(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("listen: {error}"),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    loop {
        match listener.read_with(|fd| accept_with(fd, flags)).await {
            Ok(socket) if trusted(&socket) => {
                reactor::spawn(connection::serve(socket, Rc::clone(&pod)));
            }
            Ok(_) => eprintln!("refused a client of another user"),
            Err(error) => {
                eprintln!("accept: {error}");
                // Out of descriptors, most likely; do not spin.
                reactor::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn trusted(socket: &OwnedFd) -> bool {
    let ours = rustix::process::geteuid();
    socket_peercred(socket).is_ok_and(|peer| peer.uid.is_root() || peer.uid == ours)
}
