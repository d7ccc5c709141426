//! `podwright port-forward`: ports of this machine that lead into a pod.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use api::cri::v1::PortForwardRequest;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::daemon::Daemon;
use crate::find::{Candidates, Found};
use crate::session;

/// Channels of the one port that each connection asks for.
const DATA: u8 = 0;
const ERROR: u8 = 1;
const READ: usize = 32 << 10;

/// Reach a pod's ports from this machine, until Ctrl-C
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen on this address
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The pod's id or name
    pod: String,
    /// LOCAL:REMOTE, or one port for both; 0 or nothing as LOCAL takes one that is free
    #[arg(required = true, value_name = "[LOCAL:]REMOTE", value_parser = parse)]
    ports: Vec<Ports>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

fn parse(text: &str) -> Result<Ports, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (local, remote) = match text.split_once(':') {
        Some(("", remote)) => (0, port(remote)?),
        Some((local, remote)) => (port(local)?, port(remote)?),
        None => (port(text)?, port(text)?),
    };
    if remote == 0 { Err("a pod's port is never 0".into()) } else { Ok(Ports { local, remote }) }
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let found = Candidates::load(daemon).await?.any(&args.pod)?;
    let pod = match found {
        Some(Found::Pod(pod)) => pod.id,
        Some(Found::Container(container)) => container.pod_sandbox_id,
        None => return Err(anyhow!("no pod {:?}", args.pod)),
    };
    let mut listening = JoinSet::new();
    for ports in args.ports {
        let listener = TcpListener::bind((args.address, ports.local)).await;
        let listener = listener.with_context(|| format!("listening on port {}", ports.local))?;
        println!("{} leads to port {}", listener.local_addr()?, ports.remote);
        listening.spawn(serve(listener, ports.remote, pod.clone(), daemon.clone()));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        ended = listening.join_next() => match ended {
            Some(ended) => ended?.map(|()| ExitCode::SUCCESS),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

async fn serve(
    listener: TcpListener,
    port: u16,
    pod: String,
    daemon: Daemon,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                connections.spawn(forward(socket, port, pod.clone(), daemon.clone()));
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended? {
                    eprintln!("podwright: {}", crate::failure::describe(&error));
                }
            }
        }
    }
}

async fn forward(
    socket: TcpStream,
    port: u16,
    pod: String,
    mut daemon: Daemon,
) -> anyhow::Result<()> {
    let request = PortForwardRequest { pod_sandbox_id: pod, port: vec![port.into()] };
    let url = daemon.runtime.port_forward(request).await?.into_inner().url;
    let (mut to, mut from) = session::dial(&daemon.tls, &url).await?.split();
    let (mut local_read, mut local_write) = socket.into_split();
    let up = async {
        let mut buffer = vec![0; READ];
        while let Ok(count @ 1..) = local_read.read(&mut buffer).await {
            let message = Message::Binary([&[DATA], &buffer[..count]].concat().into());
            if to.send(message).await.is_err() {
                break;
            }
        }
        to.send(Message::Binary(vec![session::CLOSE, DATA].into())).await.ok();
        // Nothing can be sent any more, or need be: what is received tells how it ends.
        std::future::pending().await
    };
    let down = async {
        // The first message of each channel is its port.
        let (mut said, mut error) = ([false; 2], Vec::new());
        while let Some(Ok(message)) = from.next().await {
            let Message::Binary(bytes) = message else { continue };
            let Some((channel, bytes)) = bytes.split_first() else { continue };
            match (*channel, said.get(usize::from(*channel))) {
                (DATA | ERROR, Some(false)) => said[usize::from(*channel)] = true,
                (DATA, _) => local_write.write_all(bytes).await?,
                (ERROR, _) => error.extend_from_slice(bytes),
                (session::CLOSE, _) if bytes == [DATA] => local_write.shutdown().await?,
                _ => {}
            }
        }
        match error.is_empty() {
            true => Ok(()),
            false => Err(anyhow!("{}", String::from_utf8_lossy(&error))),
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_kubectl_reads_them() {
        assert_eq!(parse("80"), Ok(Ports { local: 80, remote: 80 }));
        assert_eq!(parse("8080:80"), Ok(Ports { local: 8080, remote: 80 }));
        assert_eq!(parse(":80"), Ok(Ports { local: 0, remote: 80 }));
        assert!(parse("0").is_err() && parse("80:").is_err() && parse("x").is_err());
    }
}
