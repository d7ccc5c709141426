//! Buying a bearer token: `GET realm?service=…&scope=…` with basic authentication, or the OAuth2 exchange of
//! an identity token.

use base64::Engine as _;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde::Deserialize;

use super::super::digest::clip;
use super::super::error::Error;
use super::challenge::Challenge;
use super::credentials::Login;
use super::session::{cause, read_capped, within};

/// Largest answer of a token service.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Who asks for what, from where.
pub(super) struct Request<'a> {
    pub(super) client: &'a reqwest::Client,
    /// The endpoint that sent the challenge, for messages.
    pub(super) host: &'a str,
    /// Whether that endpoint was reached over TLS.
    pub(super) over_tls: bool,
    pub(super) repository: &'a str,
    pub(super) login: &'a Login,
}

/// Turns a challenge into the value of the Authorization header; `None`: there is nothing to show.
pub(super) async fn authorize(
    request: &Request<'_>,
    challenge: &Challenge,
) -> Result<Option<HeaderValue>, Error> {
    match (challenge, request.login) {
        (_, Login::Bearer(token)) => Ok(Some(secret(&format!("Bearer {token}"))?)),
        (Challenge::Basic, Login::Password { username, password }) => {
            Ok(Some(basic(username, password)?))
        }
        (Challenge::Basic, _) => Ok(None),
        (Challenge::Bearer { realm, service, scope }, _) => {
            let fallback = format!("repository:{}:pull", request.repository);
            let scope = scope.as_deref().unwrap_or(&fallback);
            let token = buy(request, realm, service.as_deref(), scope).await?;
            Ok(Some(secret(&format!("Bearer {token}"))?))
        }
    }
}

async fn buy(
    request: &Request<'_>,
    realm: &str,
    service: Option<&str>,
    scope: &str,
) -> Result<String, Error> {
    let failed = |why: String| Error::Refused(format!("log in to {}: {why}", request.host));
    let mut url = reqwest::Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| failed(format!("{:?} is no token service", clip(realm))))?;
    if request.over_tls && url.scheme() == "http" && *request.login != Login::Anonymous {
        return Err(failed("its token service would see the password in the clear".into()));
    }
    let builder = if let Login::Identity(refresh) = request.login {
        let mut form = form_urlencoded(&[
            ("grant_type", "refresh_token"),
            ("client_id", "podwright"),
            ("scope", scope),
            ("refresh_token", refresh),
        ]);
        if let Some(service) = service {
            form.push('&');
            form.push_str(&form_urlencoded(&[("service", service)]));
        }
        let kind = "application/x-www-form-urlencoded";
        request.client.post(url.clone()).header(http::header::CONTENT_TYPE, kind).body(form)
    } else {
        for (key, value) in service.map(|s| ("service", s)).into_iter().chain([("scope", scope)]) {
            url.query_pairs_mut().append_pair(key, value);
        }
        let mut builder = request.client.get(url.clone());
        if let Login::Password { username, password } = request.login {
            builder = builder.header(AUTHORIZATION, basic(username, password)?);
        }
        builder
    };
    let service_name = url.host_str().unwrap_or_default().to_owned();
    let unreachable =
        |why: String| Error::Unavailable(format!("token service {service_name}: {why}"));
    let response =
        within(builder.send(), &service_name).await?.map_err(|err| unreachable(cause(&err)))?;
    let status = response.status();
    if status.is_server_error() {
        return Err(unreachable(status.to_string()));
    }
    if !status.is_success() {
        return Err(failed(format!("token service {service_name} answers {status}")));
    }
    let body = read_capped(response, MAX_ANSWER).await.map_err(|err| failed(err.to_string()))?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|_| failed(format!("token service {service_name} sent no token")))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(failed(format!("token service {service_name} sent no token")));
    }
    Ok(token)
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
