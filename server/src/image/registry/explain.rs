//! Where an image would come from, and what each place says when it is asked for the manifest.

use std::time::{Duration, Instant};

use super::super::reference::Target;
use super::answer::{Answer, Get, Want};
use super::endpoint::Active;
use super::proxy::{Proxies, shown};
use super::session::Session;

/// One endpoint, in the order in which they are asked. Holds no secret.
#[derive(Debug)]
pub(crate) struct Explained {
    pub(crate) url: String,
    /// The file and line that say so.
    pub(crate) from: String,
    pub(crate) is_server: bool,
    pub(crate) resolve: bool,
    pub(crate) pull: bool,
    /// How the connection is secured.
    pub(crate) tls: String,
    /// Names of the headers that are configured for it.
    pub(crate) headers: Vec<String>,
    /// The proxy in between, if any.
    pub(crate) proxy: Option<String>,
    /// Where the login for it is from.
    pub(crate) credentials: String,
    /// What it says: the manifest's digest if it tells it, or why it does not serve.
    pub(crate) outcome: Result<Option<String>, String>,
    pub(crate) took: Duration,
}

impl Session {
    /// Asks every endpoint once, at the same time.
    pub(super) async fn explain(&self, target: &Target, proxies: &Proxies) -> Vec<Explained> {
        let each = self.endpoints.iter().map(|active| self.explain_one(active, target, proxies));
        futures_util::future::join_all(each).await
    }

    async fn explain_one(&self, active: &Active, target: &Target, proxies: &Proxies) -> Explained {
        let started = Instant::now();
        let (path, what) = self.manifest_path(target);
        let outcome = match self.ask(active, &Get { path, what: &what, want: Want::Head }).await {
            Ok(Answer::Head { digest }) => Ok(digest),
            Ok(_) => Ok(None),
            Err(refusal) => Err(refusal.error.to_string()),
        };
        let took = started.elapsed();
        let credentials = match self.known(active).await {
            Ok(known) => match known.failed {
                Some(why) => format!("{} ({why})", known.from),
                None => known.from,
            },
            Err(err) => err.to_string(),
        };
        let endpoint = &active.endpoint;
        let given = &endpoint.given;
        // After asking: by then it is known what protocol it speaks.
        let url = format!("{}://{}{}", active.scheme().as_str(), endpoint.host, endpoint.path);
        let parsed = reqwest::Url::parse(&url).ok();
        let mut tls = vec![match (active.scheme().as_str(), given.tls.skip_verify) {
            ("http", _) => "none".to_owned(),
            (_, Some(true)) => "not verified".to_owned(),
            _ => "verified".to_owned(),
        }];
        tls.extend(given.tls.ca.iter().map(|path| format!("authority {}", path.display())));
        let client = given.tls.client.iter();
        tls.extend(client.map(|files| format!("shows {}", files.certificate.display())));
        Explained {
            proxy: parsed.as_ref().and_then(|url| proxies.of(url)).map(shown),
            url,
            from: endpoint.from.clone(),
            is_server: endpoint.is_server,
            resolve: given.resolve,
            pull: given.pull,
            tls: tls.join(", "),
            headers: given.headers.0.iter().map(|(name, _)| name.to_string()).collect(),
            credentials,
            outcome,
            took,
        }
    }
}
