//! Buying a bearer token: `GET realm?service=…&scope=…` with basic authentication, or the OAuth2 exchange of
//! an identity token.

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use std::time::SystemTime;
use tokio::time::{Duration, Instant};

use super::super::digest::clip;
use super::super::error::Error;
use super::answer::{Refusal, cause, read_capped};
use super::challenge::Challenge;
use super::credentials::Login;
use super::hosts::Endpoint;
use super::limits::{Limits, retry_after};

/// Largest answer of a token service.
const MAX_ANSWER: u64 = 1 << 20;
/// How long a token is good for at least and where its service does not say, as in the distribution project.
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// Longer than any pull.
const MOST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A token is not shown any more so long before its end.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: f64,
}

/// What an endpoint is shown.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) value: HeaderValue,
    until: Option<Instant>,
}

impl Authorization {
    pub(super) fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() + MARGIN < until)
    }

    fn lasting(value: HeaderValue) -> Self {
        Self { value, until: None }
    }
}

/// Who asks for what, from where.
pub(super) struct Request<'a> {
    pub(super) client: &'a reqwest::Client,
    /// The endpoint that sent the challenge.
    pub(super) endpoint: &'a Endpoint,
    /// Whether that endpoint was reached over TLS.
    pub(super) over_tls: bool,
    pub(super) repository: &'a str,
    pub(super) login: &'a Login,
    pub(super) limits: &'a Limits,
}

/// Turns a challenge into what to show; `None`: there is nothing.
pub(super) async fn authorize(
    request: &Request<'_>,
    challenge: &Challenge,
) -> Result<Option<Authorization>, Refusal> {
    match (challenge, request.login) {
        (_, Login::Bearer(token)) => {
            Ok(Some(Authorization::lasting(secret(&format!("Bearer {token}"))?)))
        }
        (Challenge::Basic, Login::Password { username, password }) => {
            Ok(Some(Authorization::lasting(basic(username, password)?)))
        }
        (Challenge::Basic, _) => Ok(None),
        (Challenge::Bearer { realm, service, scope }, _) => {
            let fallback = format!("repository:{}:pull", request.repository);
            let scope = scope.as_deref().unwrap_or(&fallback);
            let url = service_url(request, realm)?;
            buy(request, ask(request, url.clone(), service.as_deref(), scope)?, &url)
                .await
                .map(Some)
        }
    }
}

/// The token service, if it may be shown the login.
fn service_url(request: &Request<'_>, realm: &str) -> Result<Url, Error> {
    let url = Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| request.failed(&format!("{:?} is no token service", clip(realm))))?;
    if request.over_tls && url.scheme() == "http" {
        return Err(request.failed("its token service would be asked in the clear"));
    }
    Ok(url)
}

fn ask(
    request: &Request<'_>,
    mut url: Url,
    service: Option<&str>,
    scope: &str,
) -> Result<RequestBuilder, Error> {
    let own = url.host_str() == request.host() && request.over_tls == (url.scheme() == "https");
    let mut builder = if let Login::Identity(refresh) = request.login {
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("client_id", "podwright"),
            ("scope", scope),
            ("refresh_token", refresh),
        ];
        form.extend(service.map(|service| ("service", service)));
        let kind = "application/x-www-form-urlencoded";
        let builder = request.client.post(url).header(http::header::CONTENT_TYPE, kind);
        builder.body(form_urlencoded(&form))
    } else {
        // Several scopes come apart by spaces, and go so one by one.
        let scopes = scope.split(' ').filter(|scope| !scope.is_empty()).map(|s| ("scope", s));
        for (key, value) in service.map(|s| ("service", s)).into_iter().chain(scopes) {
            url.query_pairs_mut().append_pair(key, value);
        }
        match request.login {
            Login::Password { username, password } => {
                request.client.get(url).header(AUTHORIZATION, basic(username, password)?)
            }
            _ => request.client.get(url),
        }
    };
    // Configured headers may be secrets for the endpoint's host, and are for no other.
    if own {
        for (name, value) in &request.endpoint.given.headers.0 {
            if name != AUTHORIZATION {
                builder = builder.header(name, value.clone());
            }
        }
    }
    Ok(builder)
}

async fn buy(
    request: &Request<'_>,
    builder: RequestBuilder,
    url: &Url,
) -> Result<Authorization, Refusal> {
    let name = url.authority().rsplit('@').next().unwrap_or_default();
    let unreachable = |why: &str| Error::Unavailable(format!("token service {name}: {why}"));
    let asked = Instant::now();
    let response = tokio::time::timeout(request.limits.answer, builder.send())
        .await
        .map_err(|_| Refusal::soon(unreachable("no answer in time")))?
        .map_err(|err| Refusal::soon(unreachable(&cause(&err))))?;
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let again = retry_after(response.headers(), SystemTime::now()).unwrap_or_default();
        return Err(Refusal { error: unreachable(&status.to_string()), again: Some(again) });
    }
    if !status.is_success() {
        return Err(request.failed(&format!("token service {name} answers {status}")).into());
    }
    let body = read_capped(response, MAX_ANSWER, request.limits.small).await?;
    let none = || request.failed(&format!("token service {name} sent no token"));
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| none())?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(none().into());
    }
    let life = Duration::try_from_secs_f64(answer.expires_in).unwrap_or_default();
    let until = Some(asked + life.clamp(LEAST_LIFE, MOST_LIFE));
    Ok(Authorization { value: secret(&format!("Bearer {token}"))?, until })
}

impl Request<'_> {
    fn failed(&self, why: &str) -> Error {
        Error::Refused(format!("log in to {}: {why}", self.endpoint.host))
    }

    /// The endpoint's, without its port.
    fn host(&self) -> Option<&str> {
        let host = &self.endpoint.host;
        let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        Some(port.map_or(host, |(host, _)| host))
    }
}

fn form_urlencoded(pairs: &[(&str, &str)]) -> String {
    // The query encoding of URLs is that of forms.
    let mut url = reqwest::Url::parse("http://form/").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Error> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {text}"))
}

fn secret(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::Credentials("they hold characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}
