//! A blob under way: bytes in order, never more than the manifest promised, resumed after a broken connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_RANGE;
use reqwest::Response;

use super::super::error::Error;
use super::super::manifest::Descriptor;
use super::session::{Get, Session, cause};

/// Longest wait for the next bytes.
const NO_PROGRESS: Duration = Duration::from_secs(5 * 60);
/// Broken connections taken up again for one blob.
const MAX_RESUMES: u32 = 3;

/// The body of a blob.
#[derive(Debug)]
pub(crate) struct Blob {
    session: Arc<Session>,
    descriptor: Descriptor,
    response: Response,
    received: u64,
    /// Bytes that an endpoint without ranges sends again.
    skip: u64,
    resumes: u32,
}

impl Blob {
    pub(super) async fn open(session: Arc<Session>, descriptor: Descriptor) -> Result<Self, Error> {
        let what = descriptor.digest.to_string();
        let response = session.open(&Get::blob(&descriptor, &what, 0)).await?;
        if let Some(length) = response.content_length().filter(|n| *n != descriptor.size) {
            return Err(Error::content(format!(
                "blob {what}: the registry has {length} bytes, the manifest says {}",
                descriptor.size
            )));
        }
        Ok(Self { session, descriptor, response, received: 0, skip: 0, resumes: 0 })
    }

    /// The next bytes; `None` once all that the manifest promised have come.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let next = tokio::time::timeout(NO_PROGRESS, self.response.chunk()).await;
            let why = match next {
                Err(_) => return Err(Error::Stalled(self.text("no byte came for five minutes"))),
                Ok(Ok(Some(bytes))) => match self.take(bytes)? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => continue,
                },
                Ok(Ok(None)) if self.received == self.descriptor.size => return Ok(None),
                Ok(Ok(None)) => "it ended early".to_owned(),
                Ok(Err(err)) => cause(&err),
            };
            if self.resumes == MAX_RESUMES {
                return Err(Error::content(self.text(&why)));
            }
            self.resumes += 1;
            self.resume().await?;
        }
    }

    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let again = self.skip.min(bytes.len() as u64);
        self.skip -= again;
        let bytes = bytes.split_off(usize::try_from(again).unwrap_or(bytes.len()));
        self.received += bytes.len() as u64;
        if self.received > self.descriptor.size {
            return Err(Error::content(format!(
                "blob {}: the registry sends more than the {} bytes that the manifest says",
                self.descriptor.digest, self.descriptor.size
            )));
        }
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    async fn resume(&mut self) -> Result<(), Error> {
        let what = self.descriptor.digest.to_string();
        let get = Get::blob(&self.descriptor, &what, self.received);
        self.response = self.session.open(&get).await?;
        let start = format!("bytes {}-", self.received);
        let range = self.response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
        self.skip = match self.response.status() {
            StatusCode::PARTIAL_CONTENT if range.is_some_and(|r| r.starts_with(&start)) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(Error::content(self.text("the registry resumes at another place")));
            }
            _ => self.received,
        };
        tracing::debug!(blob = %what, at = self.received, "download resumed");
        Ok(())
    }

    fn text(&self, why: &str) -> String {
        let Self { descriptor, received, .. } = self;
        format!("blob {}: {why} after {received} of {} bytes", descriptor.digest, descriptor.size)
    }
}
