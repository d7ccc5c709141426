//! Fetching for one pull: endpoints in order, then again after a pause, as long as one of them may still serve.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};

use super::super::digest::Digest;
use super::super::error::Error;
use super::super::manifest::{Descriptor, MAX_MANIFEST};
use super::super::reference::{Reference, Target};
use super::answer::{Answer, Body, Fetched, Get, Refusal, Want};
use super::blob::Blob;
use super::credentials::Credentials;
use super::docker_config::DockerConfig;
use super::endpoint::Active;
use super::hosts::Endpoint;
use super::limits::{Limits, Slots};

/// One pull's view of a registry.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) credentials: Credentials,
    pub(super) docker: Arc<DockerConfig>,
    pub(super) endpoints: Vec<Active>,
    pub(super) limits: Limits,
    pub(super) slots: Arc<Slots>,
    /// Segments of blobs that may wait in memory, for all pulls.
    pub(super) ahead: Arc<Semaphore>,
    /// Which endpoints sent bytes of a blob, and which sent wrong ones.
    senders: Mutex<HashMap<Digest, Senders>>,
}

#[derive(Debug, Default)]
struct Senders {
    sent: BTreeSet<usize>,
    wrong: BTreeSet<usize>,
}

/// What all pulls share.
pub(super) struct Shares {
    pub(super) limits: Limits,
    pub(super) slots: Arc<Slots>,
    pub(super) ahead: Arc<Semaphore>,
}

impl Session {
    pub(super) fn new(
        reference: &Reference,
        credentials: Credentials,
        docker: DockerConfig,
        endpoints: Vec<(reqwest::Client, Endpoint)>,
        shares: Shares,
    ) -> Self {
        let active = |(index, (client, endpoint))| Active::new(index, client, endpoint);
        Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            credentials,
            docker: Arc::new(docker),
            endpoints: endpoints.into_iter().enumerate().map(active).collect(),
            limits: shares.limits,
            slots: shares.slots,
            ahead: shares.ahead,
            senders: Mutex::default(),
        }
    }

    /// Fetches a manifest or an index; one fetched by digest has that digest.
    pub(crate) async fn manifest(&self, target: &Target) -> Result<Fetched, Error> {
        let digest = match target {
            Target::Tag(_) => None,
            Target::Digest(digest) => Some(digest),
        };
        let (path, what) = self.manifest_path(target);
        let want = Want::Document { digest, size: None, cap: MAX_MANIFEST };
        match self.serve(&Get { path, what: &what, want }).await? {
            Answer::Document(fetched) => Ok(fetched),
            other => Err(unasked(&other)),
        }
    }

    /// What refers to a manifest, where the registry keeps account of it.
    pub(crate) async fn referrers(&self, digest: &Digest) -> Result<Fetched, Error> {
        let what = format!("referrers of {}/{}@{digest}", self.registry, self.repository);
        let want = Want::Document { digest: None, size: None, cap: MAX_MANIFEST };
        let get = Get { path: format!("referrers/{digest}"), what: &what, want };
        match self.serve(&get).await? {
            Answer::Document(fetched) => Ok(fetched),
            other => Err(unasked(&other)),
        }
    }

    /// Where a manifest is below the repository, and how it is called in messages.
    pub(super) fn manifest_path(&self, target: &Target) -> (String, String) {
        let (name, separator) = match target {
            Target::Tag(tag) => (tag.as_str(), ':'),
            Target::Digest(digest) => (digest.as_str(), '@'),
        };
        let what = format!("{}/{}{separator}{name}", self.registry, self.repository);
        (format!("manifests/{name}"), what)
    }

    /// Fetches a small blob whole and verifies it.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let Descriptor { digest, size, .. } = descriptor;
        let what = format!("{}/{}@{digest}", self.registry, self.repository);
        let want = Want::Document { digest: Some(digest), size: Some(*size), cap: *size };
        let get = Get { path: format!("blobs/{digest}"), what: &what, want };
        match self.serve(&get).await? {
            Answer::Document(fetched) => Ok(fetched.bytes),
            other => Err(unasked(&other)),
        }
    }

    /// Begins to fetch a blob.
    pub(crate) async fn blob(self: &Arc<Self>, descriptor: &Descriptor) -> Result<Blob, Error> {
        Blob::open(self.clone(), descriptor.clone()).await
    }

    /// Bytes of a blob from `from` up to and without `to`.
    pub(super) async fn stretch(
        &self,
        descriptor: &Descriptor,
        from: u64,
        to: u64,
    ) -> Result<Body, Error> {
        let what = format!("blob {}", descriptor.digest);
        let want = Want::Part { from, to, size: descriptor.size };
        let get = Get { path: format!("blobs/{}", descriptor.digest), what: &what, want };
        match self.serve(&get).await? {
            Answer::Part(body) => {
                let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
                let of = senders.entry(descriptor.digest.clone()).or_default();
                of.sent.insert(body.endpoint);
                Ok(body)
            }
            other => Err(unasked(&other)),
        }
    }

    /// A blob was not what its digest says: whoever sent it is not asked for it again. Whether anyone is left.
    pub(crate) fn distrust(&self, digest: &Digest) -> bool {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = senders.get_mut(digest) else { return false };
        of.wrong.append(&mut of.sent);
        let left =
            |active: &&Active| active.endpoint.given.pull && !of.wrong.contains(&active.index);
        self.endpoints.iter().any(|active| left(&active))
    }

    /// An endpoint broke off: others are asked before it from now on, where it does not matter who serves.
    pub(super) fn blame(&self, endpoint: usize) {
        self.endpoints[endpoint].failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Who may be asked, in order. A tag is resolved in the order of the configuration, whoever failed before.
    fn order(&self, get: &Get<'_>) -> Vec<&Active> {
        let digest = get.path.strip_prefix("blobs/").and_then(Digest::parse);
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = digest.and_then(|digest| senders.get(&digest)).map(|of| &of.wrong);
        let trusted = |active: &Active| !wrong.is_some_and(|wrong| wrong.contains(&active.index));
        let mut able: Vec<&Active> = self
            .endpoints
            .iter()
            .filter(|active| active.may(get.want) && trusted(active))
            .collect();
        if get.want.by_digest() {
            able.sort_by_key(|active| active.failures.load(Ordering::Relaxed));
        }
        able
    }

    /// Asks each endpoint in turn until one serves. Those that cannot now are asked again after a pause.
    pub(super) async fn serve(&self, get: &Get<'_>) -> Result<Answer, Error> {
        let started = Instant::now();
        let mut refusals: HashMap<usize, (Refusal, Instant)> = HashMap::new();
        for round in 0..self.limits.rounds {
            for active in self.order(get) {
                let left_alone = refusals.get(&active.index).is_some_and(|(refusal, since)| {
                    refusal.again.is_none_or(|after| since.elapsed() < self.obeyed(after))
                });
                if left_alone {
                    continue;
                }
                match self.ask(active, get).await {
                    Ok(answer) => return Ok(answer),
                    Err(refusal) => {
                        let host = &active.endpoint.host;
                        tracing::debug!(host, what = get.what, err = %refusal.error, "endpoint does not serve");
                        if refusal.again.is_some() {
                            self.blame(active.index);
                        }
                        refusals.insert(active.index, (refusal, Instant::now()));
                    }
                }
            }
            let soonest = refusals
                .values()
                .filter_map(|(refusal, since)| {
                    Some(self.obeyed(refusal.again?).saturating_sub(since.elapsed()))
                })
                .min();
            let Some(soonest) = soonest else { break };
            let pause = self.limits.pause(round).max(soonest);
            if round + 1 == self.limits.rounds
                || started.elapsed() + pause > self.limits.retry_within
            {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(self.why(get, refusals.into_iter().map(|(at, (refusal, _))| (at, refusal)).collect()))
    }

    fn obeyed(&self, after: Duration) -> Duration {
        after.min(self.limits.longest_retry_after)
    }

    /// One error of all refusals: the registry's own server, or whoever comes last, decides of what kind it is.
    fn why(&self, get: &Get<'_>, mut refusals: Vec<(usize, Refusal)>) -> Error {
        refusals.sort_by_key(|(at, _)| *at);
        let Some((_, last)) = refusals.pop() else {
            let registry = &self.registry;
            let text = format!("{}: no endpoint configured for {registry} may serve it", get.what);
            return Error::Config(text);
        };
        if refusals.is_empty() {
            return last.error;
        }
        // Those before it, each with its host; what they have in common is said once.
        let lead = format!("{}: ", get.what);
        let others: Vec<String> = refusals
            .iter()
            .map(|(at, refusal)| match &refusal.error {
                Error::NotFound(_) => {
                    format!("{} does not have it", self.endpoints[*at].endpoint.host)
                }
                Error::Unavailable(text) => text.strip_prefix(&lead).unwrap_or(text).to_owned(),
                other => other.to_string().trim_start_matches(&lead).to_owned(),
            })
            .collect();
        last.error.after(&others.join("; "))
    }
}

/// No endpoint's code makes this of that question.
fn unasked(answer: &Answer) -> Error {
    Error::Internal(format!("an answer to another question: {answer:?}"))
}
