//! Finding an image's signatures beside it: under the tag that cosign gives them, else among what refers to it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::config::{null, object};
use super::super::digest::Digest;
use super::super::error::Error;
use super::super::manifest::Descriptor;
use super::super::reference::Target;
use super::super::registry::Session;
use super::signature::Signature;

/// Most signatures of one manifest that are looked at, the newest ones.
const MAX_SIGNATURES: usize = 32;
/// Most manifests with signatures that refer to an image.
const MAX_REFERRERS: usize = 8;
/// Largest document that is signed: they have a few hundred bytes.
const MAX_PAYLOAD: u64 = 16 << 10;
/// Longest signature, in base64.
const MAX_SIGNATURE: usize = 8 << 10;
/// Longest certificate, chain or log entry beside a signature: they have a few thousand bytes.
const MAX_BESIDE: usize = 32 << 10;

/// What cosign calls what it makes.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default, deserialize_with = "null")]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default, deserialize_with = "null")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default, deserialize_with = "null")]
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: Digest,
    #[serde(default, deserialize_with = "null")]
    artifact_type: String,
}

/// The signatures of a manifest or index; none is no error. What is no signature is left out.
pub(super) async fn signatures(session: &Session, of: &Digest) -> Result<Vec<Signature>, Error> {
    let tagged = Target::Tag(format!("{}.sig", of.as_str().replace(':', "-")));
    let mut found = at(session, &tagged, of).await?;
    if found.is_empty() {
        for referrer in referrers(session, of).await? {
            found.extend(at(session, &Target::Digest(referrer), of).await?);
        }
    }
    Ok(found)
}

/// The signatures in one manifest.
async fn at(session: &Session, target: &Target, of: &Digest) -> Result<Vec<Signature>, Error> {
    let fetched = match session.manifest(target).await {
        Ok(fetched) => fetched,
        Err(Error::NotFound(_)) => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let manifest: Manifest = object(&fetched.bytes, "signature manifest")?;
    let mut found = Vec::new();
    for mut layer in manifest.layers.into_iter().rev() {
        let Some(signature) = layer.annotations.remove(SIGNATURE) else { continue };
        let kind = layer.descriptor.media_type == PAYLOAD;
        if !kind || layer.descriptor.size > MAX_PAYLOAD || signature.len() > MAX_SIGNATURE {
            continue;
        }
        // What is too long is as good as not there.
        let mut beside =
            |name| layer.annotations.remove(name).filter(|text| text.len() <= MAX_BESIDE);
        let (certificate, chain, entry) = (beside(CERTIFICATE), beside(CHAIN), beside(BUNDLE));
        if let Ok(payload) = String::from_utf8(session.small_blob(&layer.descriptor).await?) {
            let of = of.clone();
            found.push(Signature { of, payload, signature, certificate, chain, entry });
        }
        if found.len() == MAX_SIGNATURES {
            break;
        }
    }
    Ok(found)
}

/// Manifests of signatures that refer to an image, where the registry keeps account of them (OCI 1.1).
async fn referrers(session: &Session, of: &Digest) -> Result<Vec<Digest>, Error> {
    let fetched = match session.referrers(of).await {
        Ok(fetched) => fetched,
        // A registry that does not know the call says so in one way or another.
        Err(Error::NotFound(_) | Error::Refused(_)) => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let index: Index = object(&fetched.bytes, "referrers")?;
    let signatures = index.manifests.into_iter().filter(|one| one.artifact_type == ARTIFACT);
    Ok(signatures.take(MAX_REFERRERS).map(|one| one.digest).collect())
}
