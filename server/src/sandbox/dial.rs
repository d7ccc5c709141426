//! Connections to a pod's own ports, as if from inside it.
//!
//! A pod in a VM, or in gVisor, has a network stack that the host's namespaces do not show: it is reached at its address,
//! from the node, as its neighbours reach it.
//!
//! A socket belongs to the network namespace that its maker was in. So only its making happens there, on a thread that
//! ends at once; everything else does not know the difference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::{TcpSocket, TcpStream};

use super::Sandbox;
use super::state::Ready;
use crate::error::{Error, Result};
use crate::host::Handler;
use crate::telemetry::blocking;

/// For one address. The pod is on this node: who does not answer by then has a full backlog.
const LIMIT: Duration = Duration::from_secs(10);

/// Connects to `localhost` in the pod, its IPv4, then its IPv6; or to the pod's addresses where that is another's.
///
/// # Errors
/// `WrongState` once the pod is down; else why the last address did not answer.
pub(crate) async fn dial(sandbox: &Sandbox, port: u16) -> Result<TcpStream> {
    let Some(ready) = sandbox.ready() else {
        return Err(Error::WrongState(format!("sandbox {} is not ready", sandbox.id())));
    };
    let (netns, addresses) = places(&sandbox.fixed.handler, &ready);
    let wanted = addresses.clone();
    let made = blocking(move || {
        let make = || wanted.iter().map(|address| socket(*address)).collect::<Vec<_>>();
        match netns {
            None => Ok(make()),
            Some(path) => {
                cni::netns::run_in(&path, make).map_err(|err| Error::Network(err.to_string()))
            }
        }
    });
    let mut reasons = Vec::new();
    for (socket, address) in made.await?.into_iter().zip(addresses) {
        let address = SocketAddr::new(address, port);
        match connect(socket, address).await {
            Ok(connected) => return Ok(connected),
            Err(err) => {
                let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
                reasons.push(format!("dial {family} {address}: connect: {err}"));
            }
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

/// The network namespace from which a pod's ports are dialled, `None` for ours, and the addresses that are tried.
fn places(handler: &Handler, ready: &Ready) -> (Option<PathBuf>, Vec<IpAddr>) {
    if handler.has_own_network() && !ready.ips.is_empty() {
        return (None, ready.ips.clone());
    }
    let localhost = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    (ready.netns.clone(), localhost.to_vec())
}

fn socket(address: IpAddr) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, None).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::features::Features;

    #[test]
    fn a_pod_with_a_network_of_its_own_is_reached_at_its_address() {
        let ready = |ips: &[&str]| Ready {
            shim_pid: 1,
            shim_start_time: 1,
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            network_result: serde_json::Value::Null,
            netns: Some("/run/netns/x".into()),
            ipc: None,
            uts: None,
            user: None,
            pid: None,
            init_pid: 0,
        };
        let of = |binary: &str, ips: &[&str]| {
            let handler =
                Handler { name: "x".into(), binary: binary.into(), features: Features::default() };
            let (netns, addresses) = places(&handler, &ready(ips));
            (netns.is_some(), addresses[0].to_string())
        };
        assert_eq!(of("/usr/bin/crun", &["10.0.0.1"]), (true, "127.0.0.1".into()));
        assert_eq!(of("/usr/bin/kata-runtime", &["10.0.0.1"]), (false, "10.0.0.1".into()));
        assert_eq!(of("/opt/runsc", &["fd00::1", "10.0.0.1"]), (false, "fd00::1".into()));
        // In the node's network there is no address of its own.
        assert_eq!(of("/opt/runsc", &[]), (true, "127.0.0.1".into()));
    }
}
