//! What endpoints answer: checked against what was asked before anyone sees it.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use http::{HeaderName, StatusCode};
use reqwest::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant};

use super::super::digest::{Digest, clip};
use super::super::error::Error;
use super::limits::{Limits, retry_after};

/// How much of a registry's own error text is read.
const MAX_COMPLAINT: u64 = 16 << 10;

/// The digest that a registry says a manifest has.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// What is asked of an endpoint.
#[derive(Debug)]
pub(super) struct Get<'a> {
    /// Below the repository.
    pub(super) path: String,
    /// For messages: what is missing if it is missing.
    pub(super) what: &'a str,
    pub(super) want: Want<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Want<'a> {
    /// A whole document of at most `cap` bytes; one by digest has that digest, and its size where known.
    Document { digest: Option<&'a Digest>, size: Option<u64>, cap: u64 },
    /// The bytes of a blob from `from` up to and without `to`.
    Part { from: u64, to: u64, size: u64 },
    /// Only whether the manifest is there.
    Head,
}

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    Document(Fetched),
    Part(Body),
    Head { digest: Option<String> },
}

/// A whole document.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: String,
}

/// An answer with its place among the requests of its host.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) response: Response,
    pub(super) slot: OwnedSemaphorePermit,
}

/// Bytes of a blob on their way.
#[derive(Debug)]
pub(super) struct Body {
    response: Response,
    _slot: OwnedSemaphorePermit,
    /// Bytes before the ones asked for, which an endpoint without ranges sends again.
    pub(super) skip: u64,
    /// The endpoint that sends it.
    pub(super) endpoint: usize,
}

/// Why an endpoint does not serve, and whether to ask it again.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: Error,
    /// Worth another try, after that time at least.
    pub(super) again: Option<Duration>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, again: None }
    }
}

impl Refusal {
    pub(super) fn soon(error: Error) -> Self {
        Self { error, again: Some(Duration::ZERO) }
    }
}

impl Want<'_> {
    /// The answer will be checked against a digest, so that it does not matter who sends it.
    pub(super) fn by_digest(self) -> bool {
        match self {
            Self::Document { digest, .. } => digest.is_some(),
            Self::Part { .. } => true,
            Self::Head => false,
        }
    }

    /// The Range header, unless all is wanted.
    pub(super) fn range(self) -> Option<String> {
        match self {
            Self::Part { from: 0, to, size } if to == size => None,
            Self::Part { from, to, size } if to == size => Some(format!("bytes={from}-")),
            Self::Part { from, to, .. } => Some(format!("bytes={from}-{}", to - 1)),
            Self::Document { .. } | Self::Head => None,
        }
    }
}

impl Get<'_> {
    fn wrong(&self, host: &str, why: &str) -> Error {
        Error::content(format!("{}: {host} {why}", self.what))
    }

    /// Reads and checks a document.
    pub(super) async fn document(&self, reply: Reply, limits: &Limits) -> Result<Fetched, Refusal> {
        let Want::Document { digest, size, cap } = self.want else {
            return Err(Error::Internal("a document that nobody wants".into()).into());
        };
        let host = reply.response.url().authority().to_owned();
        let content_type = header(reply.response.headers(), &CONTENT_TYPE).unwrap_or_default();
        let content_type = content_type.to_owned();
        let bytes = read_capped(reply.response, size.unwrap_or(cap), limits.small).await?;
        drop(reply.slot);
        if size.is_some_and(|size| bytes.len() as u64 != size) {
            return Err(self.wrong(&host, "sent something else: its size differs").into());
        }
        if digest.is_some_and(|digest| !digest.matches(&bytes)) {
            return Err(self.wrong(&host, "sent something else: its digest differs").into());
        }
        Ok(Fetched { bytes, content_type })
    }

    /// Checks that a body is the part that was asked for. `Err(None)`: the endpoint cannot do ranges.
    pub(super) fn part(&self, reply: Reply, endpoint: usize) -> Result<Body, Option<Error>> {
        let Want::Part { from, to, size } = self.want else { return Err(None) };
        let Reply { response, slot } = reply;
        let host = response.url().authority();
        let length = response.content_length();
        let (skip, expected) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = header(response.headers(), &CONTENT_RANGE).and_then(content_range);
            match range {
                Some((first, last, total))
                    if self.want.range().is_some()
                        && first == from
                        && last < to
                        && total.is_none_or(|total| total == size) =>
                {
                    (0, last - first + 1)
                }
                _ => return Err(None),
            }
        } else {
            (from, size)
        };
        if let Some(length) = length.filter(|length| *length != expected) {
            let why = format!("has {length} bytes, the manifest says {size}");
            return Err(Some(self.wrong(host, &why)));
        }
        Ok(Body { response, _slot: slot, skip, endpoint })
    }

    /// What an endpoint says about a request that it does not serve. `own`: it is the endpoint that speaks, not a
    /// host to which it redirected, whose words could show what this node can reach.
    pub(super) async fn complaint(&self, reply: Reply, own: bool, limits: &Limits) -> Refusal {
        let status = reply.response.status();
        let host = reply.response.url().authority().to_owned();
        let after = retry_after(reply.response.headers(), SystemTime::now());
        let body = match own {
            true => read_capped(reply.response, MAX_COMPLAINT, limits.small).await.ok(),
            false => None,
        };
        let words = body.and_then(|body| {
            let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let words = json.pointer("/errors/0/message")?.as_str()?;
            let printable = words.chars().filter(|c| !c.is_control()).collect::<String>();
            Some(format!(": {}", clip(&printable)))
        });
        let mut text =
            format!("{}: {host} answers {status}{}", self.what, words.unwrap_or_default());
        let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        if !busy && !status.is_server_error() {
            return Error::Refused(text).into();
        }
        if let Some(after) = after.filter(|after| !after.is_zero()) {
            text.push_str(&match after.as_secs() {
                seconds if seconds > 365 * 24 * 3600 => " and wants to be left alone".to_owned(),
                seconds => format!(" and wants to be left alone for {seconds} s"),
            });
        }
        Refusal { error: Error::Unavailable(text), again: Some(after.unwrap_or_default()) }
    }
}

impl Answer {
    pub(super) fn head(headers: &HeaderMap) -> Self {
        let digest = header(headers, &DIGEST_HEADER).map(|text| clip(text).to_owned());
        Self::Head { digest }
    }
}

/// Why a connection brings no more, and how much that counts: another try after a trickle may take as long again.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) why: String,
    pub(super) weight: u32,
}

impl Broken {
    pub(super) fn off(why: String) -> Self {
        Self { why, weight: 1 }
    }
}

/// Watches that a download brings at least so many bytes in each window of waiting; what the reader needs for
/// itself does not count.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    got: u64,
}

impl Pace {
    /// The next bytes, or why there will be none; `None`: the end.
    pub(super) async fn next(
        &mut self,
        body: &mut Body,
        limits: &Limits,
    ) -> Result<Option<Bytes>, Broken> {
        loop {
            let started = Instant::now();
            let left = limits.stall.saturating_sub(self.waited);
            let next = tokio::time::timeout(left, body.response.chunk()).await;
            self.waited += started.elapsed();
            let came = match next {
                Err(_) => None,
                Ok(Err(err)) => return Err(Broken::off(cause(&err))),
                Ok(Ok(None)) => return Ok(None),
                Ok(Ok(Some(bytes))) => Some(bytes),
            };
            self.got += came.as_ref().map_or(0, |bytes| bytes.len() as u64);
            if self.waited >= limits.stall {
                if self.got < limits.least() {
                    let (got, seconds) = (self.got, self.waited.as_secs_f64());
                    *self = Self::default();
                    let why = format!("only {got} bytes came in {seconds:.1} s");
                    return Err(Broken { why, weight: 2 });
                }
                *self = Self::default();
            }
            if came.is_some() {
                return Ok(came);
            }
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `bytes first-last/total`, whose total may be `*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
}

/// Reads a whole body of at most `cap` bytes, in bounded time.
pub(super) async fn read_capped(
    mut response: Response,
    cap: u64,
    within: Duration,
) -> Result<Vec<u8>, Refusal> {
    let host = response.url().authority().to_owned();
    let read = async {
        let mut bytes = Vec::new();
        loop {
            let next = response.chunk().await;
            let broken = |err| Error::Unavailable(format!("{host}: {}", cause(&err)));
            let Some(chunk) = next.map_err(|err| Refusal::soon(broken(err)))? else {
                return Ok(bytes);
            };
            if (bytes.len() + chunk.len()) as u64 > cap {
                return Err(Error::content(format!("{host} sends more than {cap} bytes")).into());
            }
            bytes.extend_from_slice(&chunk);
        }
    };
    let late = |_| Refusal::soon(Error::Unavailable(format!("{host} sends too slowly")));
    tokio::time::timeout(within, read).await.map_err(late)?
}

/// The root of an HTTP error, without the URL (it may hold a signed query).
pub(super) fn cause(err: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = err;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9, Some(10))));
        assert_eq!(content_range("bytes 5-5/*"), Some((5, 5, None)));
        for text in ["", "bytes 9-0/10", "bytes 0-10/10", "bytes */10", "items 0-9/10", "bytes 0-9"]
        {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn all_of_a_blob_is_asked_for_without_a_range() {
        let range = |from, to, size| Want::Part { from, to, size }.range();
        assert_eq!(range(0, 10, 10), None);
        assert_eq!(range(4, 10, 10).as_deref(), Some("bytes=4-"));
        assert_eq!(range(0, 4, 10).as_deref(), Some("bytes=0-3"));
        assert_eq!(range(4, 8, 10).as_deref(), Some("bytes=4-7"));
    }

    proptest::proptest! {
        #[test]
        fn no_range_is_a_reason_to_panic(text in "[ -~]{0,40}", odd in "bytes [0-9*/ -]{0,60}") {
            content_range(&text);
            if let Some((first, last, total)) = content_range(&odd) {
                proptest::prop_assert!(first <= last && total.is_none_or(|total| last < total));
            }
        }
    }
}
