//! A signature as cosign makes them: over a small JSON document that names an image and the digest of its manifest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::config::object;
use super::super::digest::{Digest, clip};
use super::super::reference::Reference;
use super::identity::Identity;
use super::key::PublicKey;

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
    /// Whether one of the keys made it, for this image.
    pub(super) fn is_good(
        &self,
        keys: &[PublicKey],
        identity: &Identity,
        pulled: &Reference,
    ) -> Result<(), String> {
        let bytes = STANDARD.decode(self.signature.trim()).map_err(|_| "it is not base64")?;
        if !keys.iter().any(|key| key.signed(self.payload.as_bytes(), &bytes)) {
            return Err("no trusted key made it".into());
        }
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
