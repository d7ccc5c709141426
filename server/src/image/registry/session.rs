//! Fetching for one pull: endpoints in order, log-in on demand, redirects without credentials.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use http::{HeaderName, StatusCode};
use reqwest::{Response, Url};

use super::super::digest::clip;
use super::super::error::Error;
use super::super::manifest::{self, Descriptor, MAX_MANIFEST};
use super::super::reference::{DOCKER_IO, Reference, Target};
use super::blob::Blob;
use super::credentials::{Credentials, Login};
use super::hosts::{Endpoint, Scheme};
use super::{challenge, token};

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;
/// How long an endpoint may take until the headers of its answer are here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a manifest, a config or a token may take in all, once its headers are here.
const SMALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of a registry's own error text is read.
const MAX_COMPLAINT: u64 = 16 << 10;

/// One pull's view of a registry.
#[derive(Debug)]
pub(crate) struct Session {
    registry: String,
    repository: String,
    credentials: Credentials,
    endpoints: Vec<Active>,
}

#[derive(Debug)]
struct Active {
    endpoint: Endpoint,
    client: reqwest::Client,
    /// It turned out to speak plain HTTP.
    plain: AtomicBool,
    authorization: Mutex<Option<HeaderValue>>,
    /// One log-in at a time, however many layers are refused at once.
    log_in: tokio::sync::Mutex<()>,
}

/// A whole document.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: String,
}

/// What is asked of an endpoint.
#[derive(Debug)]
pub(super) struct Get<'a> {
    /// Below the repository.
    pub(super) path: String,
    /// For messages: what is missing if it is missing.
    pub(super) what: &'a str,
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    /// The answer will be checked against a digest, so that it does not matter who sends it.
    pub(super) by_digest: bool,
}

impl Session {
    pub(super) fn new(
        reference: &Reference,
        credentials: Credentials,
        endpoints: Vec<(reqwest::Client, Endpoint)>,
    ) -> Self {
        let active = |(client, endpoint): (_, Endpoint)| Active {
            plain: AtomicBool::new(endpoint.scheme == Scheme::Http),
            endpoint,
            client,
            authorization: Mutex::default(),
            log_in: tokio::sync::Mutex::default(),
        };
        Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            credentials,
            endpoints: endpoints.into_iter().map(active).collect(),
        }
    }

    /// Fetches a manifest or an index; one fetched by digest has that digest.
    pub(crate) async fn manifest(&self, target: &Target) -> Result<Fetched, Error> {
        let (name, separator) = match target {
            Target::Tag(tag) => (tag.as_str(), ':'),
            Target::Digest(digest) => (digest.as_str(), '@'),
        };
        let get = Get {
            path: format!("manifests/{name}"),
            what: &format!("{}/{}{separator}{name}", self.registry, self.repository),
            header: Some((ACCEPT, HeaderValue::from_static(manifest::ACCEPT))),
            by_digest: matches!(target, Target::Digest(_)),
        };
        let response = self.open(&get).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let bytes = read_capped(response, MAX_MANIFEST).await?;
        match target {
            Target::Digest(digest) if !digest.matches(&bytes) => Err(Error::content(format!(
                "{}: the registry sent something else: its digest differs",
                get.what
            ))),
            _ => Ok(Fetched { bytes, content_type }),
        }
    }

    /// Fetches a small blob whole and verifies it.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let what = format!("{}/{}@{}", self.registry, self.repository, descriptor.digest);
        let response = self.open(&Get::blob(descriptor, &what, 0)).await?;
        let bytes = read_capped(response, descriptor.size).await?;
        if bytes.len() as u64 != descriptor.size || !descriptor.digest.matches(&bytes) {
            return Err(Error::content(format!("{what}: the registry sent something else")));
        }
        Ok(bytes)
    }

    /// Begins to fetch a blob.
    pub(crate) async fn blob(self: &Arc<Self>, descriptor: &Descriptor) -> Result<Blob, Error> {
        Blob::open(self.clone(), descriptor.clone()).await
    }

    /// Asks each endpoint in turn; the last one's word counts when none serves.
    pub(super) async fn open(&self, get: &Get<'_>) -> Result<Response, Error> {
        let able = self.endpoints.iter().filter(|active| match get.by_digest {
            true => active.endpoint.pull,
            false => active.endpoint.resolve,
        });
        let mut last = Error::Config(format!(
            "{}: no endpoint configured for {} may serve it",
            get.what, self.registry
        ));
        for active in able {
            match self.ask(active, get).await {
                Ok(response) => return Ok(response),
                Err(err) => {
                    tracing::debug!(endpoint = active.endpoint.host, what = get.what, %err, "endpoint does not serve");
                    last = err;
                }
            }
        }
        Err(last)
    }

    async fn ask(&self, active: &Active, get: &Get<'_>) -> Result<Response, Error> {
        let shown = active.authorization();
        let mut response = self.follow(active, get, shown.clone()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers().clone();
            if let Some(authorization) = self.log_in(active, &headers, shown).await? {
                response = self.follow(active, get, Some(authorization)).await?;
            }
        }
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            StatusCode::NOT_FOUND => Err(Error::NotFound(get.what.to_owned())),
            status => Err(complaint(active, get, status, response).await),
        }
    }

    /// Gets what to show to an endpoint that refused; `shown` is what it has seen already.
    async fn log_in(
        &self,
        active: &Active,
        headers: &HeaderMap,
        shown: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let _one = active.log_in.lock().await;
        let current = active.authorization();
        if current.is_some() && current != shown {
            return Ok(current);
        }
        let Some(challenge) = challenge::parse(headers) else { return Ok(None) };
        let login = self.credentials.login_for(&self.registry, &active.endpoint.host);
        if shown.is_some() && matches!(login, Login::Bearer(_)) {
            return Ok(None);
        }
        let request = token::Request {
            client: &active.client,
            host: &active.endpoint.host,
            over_tls: !active.plain.load(Ordering::Relaxed),
            repository: &self.repository,
            login,
        };
        let authorization = token::authorize(&request, &challenge).await?;
        *active.authorization.lock().unwrap_or_else(PoisonError::into_inner) =
            authorization.clone();
        Ok(authorization.filter(|new| shown.as_ref() != Some(new)))
    }

    /// Sends a request and follows redirects, showing the credentials to the endpoint's own origin only.
    async fn follow(
        &self,
        active: &Active,
        get: &Get<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, Error> {
        let mut url = self.url(active, get)?;
        let home = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.as_ref().filter(|_| url.origin() == home);
            let response = match send(active, get, &url, authorization).await {
                Err(err) if self.falls_back(active, &err) => {
                    active.plain.store(true, Ordering::Relaxed);
                    return Box::pin(self.follow(active, get, authorization.cloned())).await;
                }
                other => other.map_err(|err| unreachable(&url, &err)),
            }?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            let next = location
                .and_then(|location| url.join(location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host())
                .ok_or_else(|| {
                    Error::Refused(format!(
                        "{}: {} redirects to nowhere",
                        get.what, active.endpoint.host
                    ))
                })?;
            if url.scheme() == "https" && next.scheme() == "http" && !get.by_digest {
                return Err(Error::Refused(format!(
                    "{}: {} redirects from https to http",
                    get.what, active.endpoint.host
                )));
            }
            url = next;
        }
        Err(Error::Refused(format!("{}: {} redirects too often", get.what, active.endpoint.host)))
    }

    fn falls_back(&self, active: &Active, err: &SendError) -> bool {
        let connect = matches!(err, SendError::Http(err) if err.is_connect());
        connect && active.endpoint.http_fallback && !active.plain.load(Ordering::Relaxed)
    }

    fn url(&self, active: &Active, get: &Get<'_>) -> Result<Url, Error> {
        let Endpoint { host, path, .. } = &active.endpoint;
        let scheme =
            if active.plain.load(Ordering::Relaxed) { Scheme::Http } else { Scheme::Https };
        let text = format!("{}://{host}{path}/{}/{}", scheme.as_str(), self.repository, get.path);
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

impl Active {
    fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> Get<'a> {
    /// A blob from `offset` on.
    pub(super) fn blob(descriptor: &Descriptor, what: &'a str, offset: u64) -> Self {
        let range = format!("bytes={offset}-");
        let range = HeaderValue::from_str(&range).ok().filter(|_| offset > 0);
        Self {
            path: format!("blobs/{}", descriptor.digest),
            what,
            header: range.map(|range| (RANGE, range)),
            by_digest: true,
        }
    }
}

enum SendError {
    Http(reqwest::Error),
    Late(Error),
}

async fn send(
    active: &Active,
    get: &Get<'_>,
    url: &Url,
    authorization: Option<&HeaderValue>,
) -> Result<Response, SendError> {
    let mut builder = active.client.get(url.clone());
    if let Some((name, value)) = &get.header {
        builder = builder.header(name, value);
    }
    if let Some(authorization) = authorization {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    let host = url.host_str().unwrap_or_default();
    within(builder.send(), host).await.map_err(SendError::Late)?.map_err(SendError::Http)
}

fn unreachable(url: &Url, err: &SendError) -> Error {
    match err {
        SendError::Http(err) => {
            Error::Unavailable(format!("{}://{}: {}", url.scheme(), url.authority(), cause(err)))
        }
        SendError::Late(err) => Error::Unavailable(err.to_string()),
    }
}

/// What an endpoint says about a request that it does not serve.
async fn complaint(
    active: &Active,
    get: &Get<'_>,
    status: StatusCode,
    response: Response,
) -> Error {
    let host = &active.endpoint.host;
    // Only the endpoint's own words: those of another host could show what the node can reach.
    let own = response.url().authority() == host;
    let body = if own { read_capped(response, MAX_COMPLAINT).await.ok() } else { None };
    let words = body.and_then(|body| {
        let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let words = json.pointer("/errors/0/message")?.as_str()?;
        let printable = words.chars().filter(|c| !c.is_control()).collect::<String>();
        Some(format!(": {}", clip(&printable)))
    });
    let text = format!("{}: {host} answers {status}{}", get.what, words.unwrap_or_default());
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Error::Unavailable(text)
    } else {
        Error::Refused(text)
    }
}

/// Bounds the wait for an answer's headers.
pub(super) async fn within<T>(answer: impl Future<Output = T>, host: &str) -> Result<T, Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer)
        .await
        .map_err(|_| Error::Unavailable(format!("{host} does not answer")))
}

/// Reads a whole body of at most `cap` bytes, in bounded time.
pub(super) async fn read_capped(mut response: Response, cap: u64) -> Result<Vec<u8>, Error> {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|err| Error::Unavailable(format!("{host}: {}", cause(&err))))?
        {
            if (bytes.len() + chunk.len()) as u64 > cap {
                return Err(Error::content(format!("{host} sends more than {cap} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    let timed = tokio::time::timeout(SMALL_TIMEOUT, read).await;
    timed.map_err(|_| Error::Stalled(format!("{host} sends too slowly")))?
}

/// The root of an HTTP error, without the URL (it may hold a signed query).
pub(super) fn cause(err: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
