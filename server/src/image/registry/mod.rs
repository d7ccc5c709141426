//! Registries: which endpoints serve an image, how to log in there, and fetching from them.
//!
//! A [`Session`] serves one pull: it holds that pull's credentials and the tokens they bought, so that no pull
//! rides on the rights of another. Connections are shared by all.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::error::Error;
use super::reference::{Reference, Target};

mod answer;
mod blob;
mod challenge;
mod credential_program;
mod credentials;
mod docker_config;
mod endpoint;
mod explain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hosts;
mod limits;
mod proxy;
mod session;
mod tls;
mod token;

pub(super) use answer::Fetched;
pub(super) use blob::Blob;
pub(crate) use credentials::{AuthFields, Credentials};
pub(crate) use explain::Explained;
pub(crate) use limits::Limits;
pub(super) use session::Session;

use docker_config::DockerConfig;
use hosts::Endpoint;
use limits::Slots;
use proxy::Proxies;
use session::Shares;
use tls::Trust;

/// Different TLS set-ups whose connections are kept; beyond it all are dropped and made anew.
const MAX_CLIENTS: usize = 32;
/// How long an unused connection stays open.
const IDLE: Duration = Duration::from_secs(30);

/// What a node's operator decides about registries.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Holds `<host>/hosts.toml`; it need not exist.
    pub hosts_dir: PathBuf,
    /// Docker's config.json, with logins where the kubelet gives none.
    pub docker_config: Option<PathBuf>,
    pub limits: Limits,
}

/// What connections may be shared by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    trust: Trust,
    dial_timeout: Duration,
}

/// All registries that this node can ask.
pub(crate) struct Registries {
    settings: Settings,
    proxies: Result<Proxies, String>,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
    slots: Arc<Slots>,
    ahead: Arc<Semaphore>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registries({})", self.settings.hosts_dir.display())
    }
}

impl Registries {
    /// Reads which proxies the environment names, and nothing else yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self::through(Proxies::from_env(), settings)
    }

    /// With the proxies of another environment.
    #[cfg(test)]
    pub(super) fn with_env(env: &[(&str, &str)], settings: Settings) -> Self {
        let get = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Self::through(Proxies::new(get), settings)
    }

    fn through(proxies: Result<Proxies, String>, settings: Settings) -> Self {
        Self {
            proxies,
            clients: Mutex::default(),
            slots: Arc::default(),
            ahead: Arc::new(Semaphore::new(settings.limits.ahead_in_all)),
            settings,
        }
    }

    /// Reads the configuration and prepares to fetch; connects to nothing yet. Blocks on small files.
    pub(super) fn session(
        &self,
        reference: &Reference,
        credentials: Credentials,
    ) -> Result<Session, Error> {
        let endpoints = hosts::endpoints(&self.settings.hosts_dir, reference.registry())?
            .into_iter()
            .map(|endpoint| Ok((self.client(&endpoint)?, endpoint)))
            .collect::<Result<Vec<_>, Error>>()?;
        let docker = match &self.settings.docker_config {
            Some(file) => DockerConfig::read(file)?,
            None => DockerConfig::default(),
        };
        let shares = Shares {
            limits: self.settings.limits.clone(),
            slots: self.slots.clone(),
            ahead: self.ahead.clone(),
        };
        Ok(Session::new(reference, credentials, docker, endpoints, shares))
    }

    /// Asks every endpoint of a session whether it has a manifest.
    pub(super) async fn explain(&self, session: &Session, target: &Target) -> Vec<Explained> {
        match &self.proxies {
            Ok(proxies) => session.explain(target, proxies).await,
            // There is no session without them.
            Err(_) => Vec::new(),
        }
    }

    fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, Error> {
        let proxies = self.proxies.as_ref().map_err(|err| Error::Config(err.clone()))?;
        let key = ClientKey {
            trust: Trust::read(&endpoint.given.tls)
                .map_err(|err| Error::Config(format!("{}: {err}", endpoint.from)))?,
            dial_timeout: endpoint.given.dial_timeout,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key, proxies)
            .map_err(|err| Error::Config(format!("{}: {err}", endpoint.from)))?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// HTTP/1.1 only: many streams in one connection would share one path and one window through the network, and it is
/// connections that are counted and given up.
fn build(key: &ClientKey, proxies: &Proxies) -> Result<reqwest::Client, Error> {
    let proxies = proxies.clone();
    reqwest::Client::builder()
        .tls_backend_preconfigured(key.trust.client_config()?)
        .http1_only()
        .user_agent(concat!("podwright/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(key.dial_timeout)
        .pool_idle_timeout(IDLE)
        .proxy(reqwest::Proxy::custom(move |url| proxies.of(url).cloned()))
        .build()
        .map_err(|err| Error::Internal(format!("http client: {err}")))
}
