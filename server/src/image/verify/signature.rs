//! A signature as cosign makes them: over a small JSON document that names an image and the digest of its manifest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::config::object;
use super::super::digest::{Digest, clip};
use super::super::reference::Reference;
use super::identity::Identity;
use super::trust::Trust;

/// What the document says it is.
const TYPE: &str = "cosign container image signature";

/// A signature that came with an image, unverified: what it is worth is asked of the policy each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    /// The manifest or index that it was found at.
    pub(super) of: Digest,
    /// What was signed, to the byte.
    pub(super) payload: String,
    /// Base64.
    pub(super) signature: String,
    /// PEM of who signed, where that is told by a certificate, and of the authorities between it and a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<String>,
    /// What a log said when it recorded the signature: JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) entry: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(default, rename = "optional")]
    _optional: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: SignedImage,
    identity: SignedIdentity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SignedImage {
    docker_manifest_digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SignedIdentity {
    docker_reference: String,
}

impl Signature {
    /// Whether somebody trusted made it, for this image.
    pub(super) fn is_good(
        &self,
        trust: &Trust,
        identity: &Identity,
        pulled: &Reference,
    ) -> Result<(), String> {
        let bytes = STANDARD.decode(self.signature.trim()).map_err(|_| "it is not base64")?;
        trust.made(self, &bytes)?;
        // Nothing of the document counts before here.
        let payload: Payload =
            object(self.payload.as_bytes(), "its payload").map_err(|err| err.to_string())?;
        let critical = payload.critical;
        if critical.kind != TYPE {
            return Err(format!("it is a {:?}", clip(&critical.kind)));
        }
        let signed = critical.image.docker_manifest_digest;
        if signed != self.of {
            return Err(format!("it is for {signed}"));
        }
        identity.admits(&critical.identity.docker_reference, pulled)
    }
}
