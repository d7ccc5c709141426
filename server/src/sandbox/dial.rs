//! Connections to a pod's own ports, as if from inside it.
//!
//! A socket belongs to the network namespace that its maker was in. So only its making happens there, on a thread that
//! ends at once; everything else does not know the difference.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream};

use super::Sandbox;
use crate::error::{Error, Result};
use crate::telemetry::blocking;

/// For one address. The pod is on this node: who does not answer by then has a full backlog.
const LIMIT: Duration = Duration::from_secs(10);

/// Connects to `localhost` in the pod: its IPv4, then its IPv6.
///
/// # Errors
/// `WrongState` once the pod is down; else why the last address did not answer.
pub(crate) async fn dial(sandbox: &Sandbox, port: u16) -> Result<TcpStream> {
    let Some(ready) = sandbox.ready() else {
        return Err(Error::WrongState(format!("sandbox {} is not ready", sandbox.id())));
    };
    let made = blocking(move || match &ready.netns {
        None => Ok(sockets()),
        Some(path) => {
            cni::netns::run_in(path, sockets).map_err(|err| Error::Network(err.to_string()))
        }
    });
    let [v4, v6] = made.await?;
    let addresses: [SocketAddr; 2] =
        [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let mut reasons = Vec::new();
    for ((socket, address), family) in [v4, v6].into_iter().zip(addresses).zip(["tcp4", "tcp6"]) {
        match connect(socket, address).await {
            Ok(connected) => return Ok(connected),
            Err(err) => reasons.push(format!("dial {family} {address}: connect: {err}")),
        }
    }
    Err(Error::Network(reasons.join("; ")))
}

async fn connect(
    socket: std::io::Result<OwnedFd>,
    address: SocketAddr,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket?));
    let connected = tokio::time::timeout(LIMIT, socket.connect(address)).await??;
    connected.set_nodelay(true)?;
    Ok(connected)
}

fn sockets() -> [std::io::Result<OwnedFd>; 2] {
    [AddressFamily::INET, AddressFamily::INET6].map(|family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, SocketType::STREAM, flags, None).map_err(Into::into)
    })
}
