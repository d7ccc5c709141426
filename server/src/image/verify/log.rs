//! What a transparency log says of a signature: an entry of Rekor, under the log's own signature.
//!
//! cosign keeps it beside the image's signature, so that nobody has to be asked: who did sign, what, and when the log
//! recorded it. The log's signature is over JSON with sorted keys and no spaces (RFC 8785).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use serde::{Deserialize, Serialize};

use super::super::config::object;
use super::super::digest::{Digest, clip};
use super::certificate::Certificate;
use super::key::PublicKey;

/// The one kind of entry that signatures of images have.
const KIND: (&str, &str) = ("hashedrekord", "0.0.1");

/// An entry that a trusted log made.
#[derive(Debug)]
pub(super) struct Entry {
    /// Since 1970.
    time: Duration,
    signature: Vec<u8>,
    /// What was signed, as a digest.
    signed: String,
    by: Recorded,
}

/// Who the log says has signed.
#[derive(Debug)]
pub(super) enum Recorded {
    Key(PublicKey),
    Certificate(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bundle {
    signed_entry_timestamp: String,
    payload: Payload,
}

/// In the order of the keys' letters, which is that of what the log has signed.
#[derive(Deserialize, Serialize)]
struct Payload {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: u64,
    #[serde(rename = "logID")]
    log_id: String,
    #[serde(rename = "logIndex")]
    log_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: Signed,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    content: String,
    public_key: Content,
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

impl Entry {
    /// Reads an entry that one of the logs with these keys has signed.
    pub(super) fn read(text: &str, keys: &[PublicKey]) -> Result<Self, String> {
        let bundle: Bundle = parse(text.as_bytes())?;
        let signature = decode(&bundle.signed_entry_timestamp)?;
        let signed = serde_json::to_vec(&bundle.payload).map_err(|err| err.to_string())?;
        if !keys.iter().any(|key| key.signed(&signed, &signature)) {
            return Err("no trusted log recorded it".into());
        }
        // Nothing of the entry counts before here.
        let body: Body = parse(&decode(&bundle.payload.body)?)?;
        if (body.kind.as_str(), body.api_version.as_str()) != KIND {
            let (kind, version) = (clip(&body.kind), clip(&body.api_version));
            return Err(format!("its entry is a {kind:?} {version:?}"));
        }
        let hash = body.spec.data.hash;
        Ok(Self {
            time: Duration::from_secs(bundle.payload.integrated_time),
            signature: decode(&body.spec.signature.content)?,
            signed: format!("{}:{}", hash.algorithm, hash.value),
            by: Recorded::parse(&decode(&body.spec.signature.public_key.content)?)?,
        })
    }

    /// When the log recorded it, since 1970.
    pub(super) fn time(&self) -> Duration {
        self.time
    }

    /// Whether it is the entry of this signature, over this, by whom `by` admits.
    pub(super) fn records(
        &self,
        payload: &[u8],
        signature: &[u8],
        by: impl FnOnce(&Recorded) -> bool,
    ) -> Result<(), String> {
        let same = self.signature == signature && self.signed == Digest::sha256(payload).as_str();
        (same && by(&self.by)).then_some(()).ok_or_else(|| "its entry is of another one".into())
    }
}

impl Recorded {
    fn parse(pem: &[u8]) -> Result<Self, String> {
        let of = |err: pem::Error| format!("its entry's signer: {err}");
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(pem).map_err(of)?;
        match kind {
            SectionKind::Certificate => Ok(Self::Certificate(der)),
            SectionKind::PublicKey => PublicKey::from_spki(&der)
                .map(Self::Key)
                .ok_or_else(|| "its entry's signer has a key of an unknown kind".into()),
            _ => Err("its entry's signer is neither a key nor a certificate".into()),
        }
    }

    pub(super) fn is_key(&self, key: &PublicKey) -> bool {
        matches!(self, Self::Key(own) if own == key)
    }

    pub(super) fn is_certificate(&self, certificate: &Certificate) -> bool {
        matches!(self, Self::Certificate(own) if own == certificate.der())
    }
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    object(json, "its log's entry").map_err(|err| err.to_string())
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| "its log's entry is not base64".into())
}
