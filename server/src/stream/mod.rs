//! The streaming server: exec, attach and port-forward as kubelet, kubectl and crictl speak them.
//!
//! A CRI call is checked, gets a token, and answers a URL with it; the client dials that URL, and its connection is
//! upgraded to SPDY/3.1 or WebSocket. What the token stands for was checked before; nothing in the request changes it.
//!
//! ```text
//! http ─▶ spdy, websocket      the transports: a connection as inputs and outputs (`channel`)
//!   └───▶ remote, forward      which of its streams are what
//!           └─▶ session        exec and attach: the process on the other side
//! ```
//!
//! A session is one task. It ends with its client, its process, its idle limit or the daemon, and holds nothing
//! after that. It never touches a container's own output: the shim writes logs and serves viewers by itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::container::Container;
use crate::container::exec::must_run;
use crate::error::{Error, Result};
use crate::sandbox::{Pods, Sandbox};
use crate::telemetry::Tasks;

mod channel;
mod conversation;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod negotiate;
mod remote;
mod report;
mod resize;
mod session;
pub(crate) mod spdy;
mod tls;
mod token;
mod typed;
mod upgrade;
pub(crate) mod websocket;

use session::{Remote, What};
use token::Tokens;

/// The streams that a client wants of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// What a token stands for.
#[derive(Debug)]
enum Asked {
    Exec(Remote),
    Attach(Remote),
    Forward { sandbox: Arc<Sandbox>, ports: Vec<u16> },
}

impl Asked {
    /// The first part of its URL's path.
    fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::Forward { .. } => "portforward",
        }
    }
}

/// The server, and the CRI calls that lead to it.
#[derive(Debug)]
pub(crate) struct Server {
    pods: Arc<Pods>,
    tokens: Tokens<Asked>,
    tls: Option<tls::Tls>,
    /// Scheme and authority of every URL.
    base: String,
    /// The sessions. They end with `stop`.
    tasks: Tasks,
    stop: CancellationToken,
}

impl Server {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// When that is not possible, or the certificate cannot be used.
    pub(crate) async fn bind(pods: Arc<Pods>) -> Result<(Arc<Self>, TcpListener)> {
        let config = &pods.node.config.streaming;
        let wanted = SocketAddr::new(config.address, config.port);
        let failed = |err: std::io::Error| {
            Error::Unavailable(format!("streaming server at {wanted}: {err}"))
        };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let tls = tls::Tls::new(config)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", SocketAddr::new(reachable(config.address), port));
        let (tasks, stop) = (Tasks::default(), CancellationToken::new());
        Ok((Arc::new(Self { pods, tokens: Tokens::default(), tls, base, tasks, stop }), listener))
    }

    /// Ends all sessions, and with them the commands that they run.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        self.tasks.finish().await;
    }

    /// The URL at which a command will be run.
    ///
    /// # Errors
    /// `Invalid` for streams that do not go together, `WrongState` unless the container runs.
    pub(crate) fn exec(
        &self,
        container: Arc<Container>,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<String> {
        if command.is_empty() {
            return Err(Error::invalid("cmd", "is empty"));
        }
        self.give(Asked::Exec(self.remote(container, What::Exec(command), wanted)?))
    }

    /// The URL at which a container's own streams are.
    ///
    /// # Errors
    /// As of `exec`.
    pub(crate) fn attach(&self, container: Arc<Container>, wanted: Wanted) -> Result<String> {
        self.give(Asked::Attach(self.remote(container, What::Attach, wanted)?))
    }

    /// The URL from which a pod's ports are reached.
    ///
    /// # Errors
    /// `WrongState` unless the sandbox is ready; `Invalid` for what is no port.
    pub(crate) fn port_forward(&self, sandbox: Arc<Sandbox>, ports: &[i32]) -> Result<String> {
        if !sandbox.is_ready() {
            let text = format!("sandbox {} is not ready", sandbox.id());
            return Err(Error::WrongState(text));
        }
        let ports = ports.iter().map(|port| match u16::try_from(*port) {
            Ok(port @ 1..) => Ok(port),
            _ => Err(Error::invalid("port", format!("{port} is not within 1 to 65535"))),
        });
        // Only WebSocket's channels are bound to these; SPDY's streams say for themselves which port they are for.
        self.give(Asked::Forward { sandbox, ports: ports.collect::<Result<_>>()? })
    }

    fn remote(&self, container: Arc<Container>, what: What, wanted: Wanted) -> Result<Remote> {
        let Wanted { terminal, stdin, stdout, stderr } = wanted;
        if !(stdin || stdout || stderr) {
            return Err(Error::invalid("stdin, stdout, stderr", "one of them must be set"));
        }
        if terminal && stderr {
            return Err(Error::invalid("stderr", "a terminal has no separate error output"));
        }
        must_run(&container)?;
        let shim = self.pods.shim_of(&container)?;
        Ok(Remote { container, shim, what, terminal, stdin, stdout, stderr })
    }

    fn give(&self, asked: Asked) -> Result<String> {
        let verb = asked.verb();
        Ok(format!("{}/{verb}/{}", self.base, self.tokens.give(asked)?))
    }
}

/// Where a server that listens everywhere is dialled from its own node.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}
