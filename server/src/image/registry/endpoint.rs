//! Asking one endpoint: log-in on demand, redirects without credentials, plain HTTP where a local registry speaks
//! no TLS.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use http::{Method, StatusCode};
use reqwest::Url;

use super::super::error::Error;
use super::super::manifest;
use super::super::reference::DOCKER_IO;
use super::answer::{Answer, Get, Refusal, Reply, Want, cause};
use super::credentials::Login;
use super::docker_config::Known;
use super::hosts::{Endpoint, Scheme};
use super::session::Session;
use super::token::Authorization;
use super::{challenge, token};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// An endpoint as one pull knows it.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) endpoint: Endpoint,
    client: reqwest::Client,
    /// Its place in the order.
    pub(super) index: usize,
    /// It turned out to speak plain HTTP.
    plain: AtomicBool,
    /// It serves parts of blobs, as far as is known.
    ranges: AtomicBool,
    /// How often it let this pull down.
    pub(super) failures: AtomicU32,
    authorization: Mutex<Option<Authorization>>,
    /// One log-in at a time, however many layers are refused at once.
    log_in: tokio::sync::Mutex<()>,
    known: tokio::sync::OnceCell<Known>,
}

impl Active {
    pub(super) fn new(index: usize, client: reqwest::Client, endpoint: Endpoint) -> Self {
        Self {
            plain: AtomicBool::new(endpoint.scheme == Scheme::Http),
            endpoint,
            client,
            index,
            ranges: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            authorization: Mutex::default(),
            log_in: tokio::sync::Mutex::default(),
            known: tokio::sync::OnceCell::new(),
        }
    }

    pub(super) fn may(&self, want: Want<'_>) -> bool {
        match want.by_digest() {
            true => self.endpoint.given.pull,
            false => self.endpoint.given.resolve,
        }
    }

    /// The protocol that it turned out to speak.
    pub(super) fn scheme(&self) -> Scheme {
        if self.plain.load(Ordering::Relaxed) { Scheme::Http } else { Scheme::Https }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let held = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|held| held.is_fresh()).map(|held| held.value.clone())
    }
}

impl Session {
    /// Asks one endpoint once, and once more after logging in.
    pub(super) async fn ask(&self, active: &Active, get: &Get<'_>) -> Result<Answer, Refusal> {
        let shown = active.authorization();
        let mut reply = self.follow(active, get, shown.clone()).await?;
        if reply.response.status() == StatusCode::UNAUTHORIZED {
            let headers = reply.response.headers().clone();
            if let Some(authorization) = self.log_in(active, &headers, shown).await? {
                drop(reply);
                reply = self.follow(active, get, Some(authorization)).await?;
            }
        }
        match (reply.response.status(), get.want) {
            (StatusCode::OK, Want::Head) => Ok(Answer::head(reply.response.headers())),
            (StatusCode::OK, Want::Document { .. }) => {
                get.document(reply, &self.limits).await.map(Answer::Document)
            }
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, Want::Part { .. }) => {
                self.part(active, get, reply)
            }
            (StatusCode::NOT_FOUND, _) => Err(Error::NotFound(get.what.to_owned()).into()),
            // What is there cannot be had in parts after all.
            (StatusCode::RANGE_NOT_SATISFIABLE, _) if get.want.range().is_some() => {
                Err(without_ranges(active, get))
            }
            _ => {
                let own = reply.response.url().authority() == active.endpoint.host;
                let mut refusal = get.complaint(reply, own, &self.limits).await;
                self.excuse(active, &mut refusal.error);
                Err(refusal)
            }
        }
    }

    fn part(&self, active: &Active, get: &Get<'_>, reply: Reply) -> Result<Answer, Refusal> {
        match get.part(reply, active.index) {
            Ok(body) => {
                if body.skip > 0 {
                    active.ranges.store(false, Ordering::Relaxed);
                }
                Ok(Answer::Part(body))
            }
            Err(Some(err)) => Err(err.into()),
            Err(None) => Err(without_ranges(active, get)),
        }
    }

    /// Whoever is refused wants to know that a helper failed.
    fn excuse(&self, active: &Active, err: &mut Error) {
        let failed = active.known.get().and_then(|known| known.failed.as_ref());
        if let (Error::Refused(text), Some(why)) = (err, failed) {
            text.push_str(&format!(" ({why})"));
        }
    }

    /// What may be shown to an endpoint: the client's own, else what the node's operator gave for it.
    pub(super) async fn known(&self, active: &Active) -> Result<Known, Error> {
        let Endpoint { host, is_server, .. } = &active.endpoint;
        let login = self.credentials.login_for(&self.registry, host, *is_server);
        if *login != Login::Anonymous {
            let from = "the client's request".to_owned();
            return Ok(Known { login: login.clone(), from, failed: None });
        }
        let look_up = || async {
            let docker = self.docker.clone();
            let (host, repository) = match is_server {
                true => (self.registry.clone(), Some(self.repository.clone())),
                false => (host.clone(), None),
            };
            super::super::pull::blocking(move || Ok(docker.login(&host, repository.as_deref())))
                .await
        };
        active.known.get_or_try_init(look_up).await.cloned()
    }

    /// Gets what to show to an endpoint that refused; `shown` is what it has seen already.
    async fn log_in(
        &self,
        active: &Active,
        headers: &HeaderMap,
        shown: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, Refusal> {
        let _one = active.log_in.lock().await;
        let current = active.authorization();
        if current.is_some() && current != shown {
            return Ok(current);
        }
        let Some(challenge) = challenge::parse(headers) else { return Ok(None) };
        let known = self.known(active).await?;
        tracing::debug!(host = active.endpoint.host, from = known.from, "logging in");
        if shown.is_some() && matches!(known.login, Login::Bearer(_)) {
            return Ok(None);
        }
        let request = token::Request {
            client: &active.client,
            endpoint: &active.endpoint,
            over_tls: active.scheme() == Scheme::Https,
            repository: &self.repository,
            login: &known.login,
            limits: &self.limits,
        };
        let authorization =
            token::authorize(&request, &challenge).await.map_err(|mut refusal| {
                self.excuse(active, &mut refusal.error);
                refusal
            })?;
        let value = authorization.as_ref().map(|new| new.value.clone());
        *active.authorization.lock().unwrap_or_else(PoisonError::into_inner) = authorization;
        Ok(value.filter(|new| shown.as_ref() != Some(new)))
    }

    /// Sends a request and follows redirects, showing credentials and configured headers to the endpoint's own
    /// origin only.
    async fn follow(
        &self,
        active: &Active,
        get: &Get<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, Refusal> {
        let refused = |why: &str| {
            Error::Refused(format!("{}: {} redirects {why}", get.what, active.endpoint.host))
        };
        let mut url = self.url(active, get)?;
        let home = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == home;
            let reply = match self.send(active, get, &url, own, authorization.as_ref()).await {
                Err(Failed::Http(err)) if falls_back(active, &err) => {
                    active.plain.store(true, Ordering::Relaxed);
                    return Box::pin(self.follow(active, get, authorization)).await;
                }
                other => other.map_err(|err| err.told(&url))?,
            };
            if !reply.response.status().is_redirection() {
                return Ok(reply);
            }
            let location = reply.response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let next = location
                .and_then(|location| url.join(location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host())
                .ok_or_else(|| refused("to nowhere"))?;
            // What is checked against a digest may come in the clear.
            if url.scheme() == "https" && next.scheme() == "http" && !get.want.by_digest() {
                return Err(refused("from https to http").into());
            }
            url = next;
        }
        Err(refused("too often").into())
    }

    async fn send(
        &self,
        active: &Active,
        get: &Get<'_>,
        url: &Url,
        own: bool,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Failed> {
        let slot = self.slots.take(url.authority(), &self.limits).await.map_err(Failed::Ours)?;
        let method = if let Want::Head = get.want { Method::HEAD } else { Method::GET };
        let mut headers = HeaderMap::new();
        if own {
            for (name, value) in &active.endpoint.given.headers.0 {
                headers.append(name, value.clone());
            }
            headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        }
        if !matches!(get.want, Want::Part { .. }) {
            headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPT));
        } else if let Some(range) = get.want.range()
            && active.ranges.load(Ordering::Relaxed)
        {
            headers.extend(HeaderValue::from_str(&range).ok().map(|range| (RANGE, range)));
        }
        let sent = active.client.request(method, url.clone()).headers(headers).send();
        let answered = tokio::time::timeout(self.limits.answer, sent).await;
        let response = answered.map_err(|_| Failed::Late)?.map_err(Failed::Http)?;
        Ok(Reply { response, slot })
    }

    fn url(&self, active: &Active, get: &Get<'_>) -> Result<Url, Error> {
        let Endpoint { host, path, .. } = &active.endpoint;
        let scheme = active.scheme().as_str();
        let text = format!("{scheme}://{host}{path}/{}/{}", self.repository, get.path);
        let mut url =
            Url::parse(&text).map_err(|err| Error::Config(format!("endpoint {host}: {err}")))?;
        let own =
            *host == self.registry || self.registry == DOCKER_IO && host == "registry-1.docker.io";
        if !own {
            // Tells a mirror of many registries which one is meant.
            url.query_pairs_mut().append_pair("ns", &self.registry);
        }
        Ok(url)
    }
}

fn without_ranges(active: &Active, get: &Get<'_>) -> Refusal {
    active.ranges.store(false, Ordering::Relaxed);
    let host = &active.endpoint.host;
    Refusal::soon(Error::content(format!("{}: {host} sends another part than asked", get.what)))
}

/// A request without an answer.
enum Failed {
    Http(reqwest::Error),
    Late,
    Ours(Error),
}

impl Failed {
    fn told(self, url: &Url) -> Refusal {
        let place = format!("{}://{}", url.scheme(), url.authority());
        match self {
            Self::Ours(err) => err.into(),
            Self::Late => Refusal::soon(Error::Unavailable(format!("{place}: no answer in time"))),
            Self::Http(err) => {
                let error = Error::Unavailable(format!("{place}: {}", cause(&err)));
                // A wrong certificate will not get right by itself.
                match tls_error(&err) {
                    Some(rustls::Error::InvalidCertificate(_)) => error.into(),
                    _ => Refusal::soon(error),
                }
            }
        }
    }
}

/// Whether to try plain HTTP: nothing there speaks TLS. One that does but cannot be believed is not asked in
/// the clear instead.
fn falls_back(active: &Active, err: &reqwest::Error) -> bool {
    let spoken = |err: &rustls::Error| !matches!(err, rustls::Error::InvalidMessage(_));
    active.endpoint.http_fallback
        && active.scheme() == Scheme::Https
        && err.is_connect()
        && !tls_error(err).is_some_and(spoken)
}

/// rustls' own error is wrapped in system errors, which do not tell of what they hold as their source.
fn tls_error(err: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next = err.source();
    while let Some(cause) = next {
        let mut system = cause.downcast_ref::<io::Error>();
        while let Some(inner) = system.and_then(io::Error::get_ref) {
            if let Some(tls) = inner.downcast_ref() {
                return Some(tls);
            }
            system = inner.downcast_ref();
        }
        next = cause.source();
    }
    None
}
