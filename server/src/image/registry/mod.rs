//! Registries: which endpoints serve an image, how to log in there, and fetching from them.
//!
//! A [`Session`] serves one pull: it holds that pull's credentials and the tokens they bought, so that no pull
//! rides on the rights of another. Connections are shared by all.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::Error;
use super::reference::Reference;

mod blob;
mod challenge;
mod credentials;
mod hosts;
mod session;
mod tls;
mod token;

pub(super) use blob::Blob;
pub(crate) use credentials::{AuthFields, Credentials};
pub(super) use session::Session;

use hosts::Endpoint;
use tls::Trust;

/// Different TLS set-ups whose connections are kept; beyond it all are dropped and made anew.
const MAX_CLIENTS: usize = 32;
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(30);
/// HTTP/2 flow control: what a stream and a connection may have under way.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What connections may be shared by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    trust: Trust,
    dial_timeout: Duration,
    /// Local registries are never asked through a proxy.
    local: bool,
}

/// All registries that this node can ask.
pub(crate) struct Registries {
    certs_dir: PathBuf,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registries({})", self.certs_dir.display())
    }
}

impl Registries {
    /// `certs_dir` holds `<host>/hosts.toml`; it need not exist.
    pub(crate) fn new(certs_dir: PathBuf) -> Self {
        Self { certs_dir, clients: Mutex::default() }
    }

    /// Reads the configuration and prepares to fetch; connects to nothing yet. Blocks on small files.
    pub(super) fn session(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Session, Error> {
        let endpoints = hosts::endpoints(&self.certs_dir, reference.registry())?
            .into_iter()
            .map(|endpoint| Ok((self.client(&endpoint)?, endpoint)))
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Session::new(reference, credentials, endpoints))
    }

    fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, Error> {
        let key = ClientKey {
            trust: Trust::read(&endpoint.tls)?,
            dial_timeout: endpoint.dial_timeout,
            local: endpoint.is_local(),
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build(key: &ClientKey) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(key.trust.client_config()?)
        .user_agent(concat!("podwright/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(key.dial_timeout)
        .pool_idle_timeout(IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW);
    if key.local {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|err| Error::Internal(format!("http client: {err}")))
}
