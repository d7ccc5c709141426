//! One requirement of a policy: what is written of it, and what is left of that once it is checked.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::identity::{Identity, Signed};
use super::key::Source;
use super::trust::{Signers, Wanted};

/// What an image has to satisfy.
#[derive(Debug)]
pub(super) enum Requirement {
    AcceptAnything,
    Reject,
    /// A signature as cosign makes them.
    Sigstore(Sigstore),
    /// What is not built here lets no image pass; says what it is.
    Unsupported(&'static str),
}

/// Who has to have signed, and for which image.
#[derive(Debug)]
pub(super) struct Sigstore {
    pub(super) wanted: Wanted,
    pub(super) identity: Identity,
}

/// A requirement as it is written: which of these go together depends on the type.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Raw {
    #[serde(rename = "type")]
    kind: String,
    key_type: Option<String>,
    key_path: Option<String>,
    key_paths: Option<Vec<String>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<RawFulcio>,
    pki: Option<RawPki>,
    rekor_public_key_path: Option<String>,
    rekor_public_key_paths: Option<Vec<String>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    signed_identity: Option<RawIdentity>,
    base_layer_identity: Option<RawIdentity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawFulcio {
    ca_path: Option<String>,
    ca_data: Option<String>,
    oidc_issuer: Option<String>,
    subject_email: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPki {
    ca_roots_path: Option<String>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<String>,
    ca_intermediates_data: Option<String>,
    subject_email: Option<String>,
    subject_hostname: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawIdentity {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

const REKOR: [&str; 4] =
    ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];
const TRUST: [&str; 6] = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"];

impl Raw {
    /// The fields that are given, beside the type.
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("keyType", self.key_type.is_some()),
            ("keyPath", self.key_path.is_some()),
            ("keyPaths", self.key_paths.is_some()),
            ("keyData", self.key_data.is_some()),
            ("keyDatas", self.key_datas.is_some()),
            ("fulcio", self.fulcio.is_some()),
            ("pki", self.pki.is_some()),
            (REKOR[0], self.rekor_public_key_path.is_some()),
            (REKOR[1], self.rekor_public_key_paths.is_some()),
            (REKOR[2], self.rekor_public_key_data.is_some()),
            (REKOR[3], self.rekor_public_key_datas.is_some()),
            ("signedIdentity", self.signed_identity.is_some()),
            ("baseLayerIdentity", self.base_layer_identity.is_some()),
        ];
        all.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }

    /// Says what of it makes no sense.
    pub(super) fn check(self) -> Result<Requirement, String> {
        let given = self.given();
        let allowed: Vec<&str> = match self.kind.as_str() {
            "insecureAcceptAnything" | "reject" => Vec::new(),
            "signedBy" => vec!["keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"],
            "signedBaseLayer" => vec!["baseLayerIdentity"],
            "sigstoreSigned" => [&TRUST[..], &REKOR[..], &["signedIdentity"][..]].concat(),
            other => {
                return Err(format!(
                    "type: {other:?} is none of insecureAcceptAnything, reject, signedBy, signedBaseLayer, sigstoreSigned"
                ));
            }
        };
        if let Some(field) = given.iter().find(|field| !allowed.contains(field)) {
            return Err(format!("{field} does not go with {}", self.kind));
        }
        Ok(match self.kind.as_str() {
            "insecureAcceptAnything" => Requirement::AcceptAnything,
            "reject" => Requirement::Reject,
            "signedBy" => Requirement::Unsupported("signatures of GPG (signedBy)"),
            "signedBaseLayer" => Requirement::Unsupported("signedBaseLayer"),
            _ => self.sigstore(&given)?,
        })
    }

    fn sigstore(self, given: &[&'static str]) -> Result<Requirement, String> {
        let of = |fields: &[&'static str]| -> Result<Option<&'static str>, String> {
            let mine: Vec<&str> = given.iter().copied().filter(|f| fields.contains(f)).collect();
            match mine.as_slice() {
                [] => Ok(None),
                [_] => Ok(given.iter().copied().find(|field| fields.contains(field))),
                several => Err(format!("only one of {} may be given", several.join(", "))),
            }
        };
        let trust = of(&TRUST)?;
        let rekor = of(&REKOR)?;
        let identity = match self.signed_identity {
            Some(raw) => raw.check().map_err(|why| format!("signedIdentity: {why}"))?,
            None => Identity::MatchRepoDigestOrExact,
        };
        let signers = match trust {
            None => {
                return Err("needs keyPath, keyPaths, keyData, keyDatas, fulcio or pki".into());
            }
            Some("fulcio") => {
                if rekor.is_none() {
                    return Err("fulcio needs a rekorPublicKey…".into());
                }
                let fulcio = self.fulcio.unwrap_or_default();
                fulcio.check().map_err(|why| format!("fulcio: {why}"))?
            }
            Some("pki") => {
                if let Some(rekor) = rekor {
                    return Err(format!("{rekor} does not go with pki"));
                }
                let pki = self.pki.unwrap_or_default();
                pki.check().map_err(|why| format!("pki: {why}"))?
            }
            Some("keyPath") => Signers::Keys(paths("keyPath", self.key_path.as_slice())?),
            Some("keyPaths") => {
                Signers::Keys(paths("keyPaths", &self.key_paths.unwrap_or_default())?)
            }
            Some("keyData") => Signers::Keys(datas("keyData", self.key_data.as_slice())?),
            Some(_) => Signers::Keys(datas("keyDatas", &self.key_datas.unwrap_or_default())?),
        };
        let logs = match rekor {
            None => Vec::new(),
            Some(field) if field == REKOR[0] => {
                paths(field, self.rekor_public_key_path.as_slice())?
            }
            Some(field) if field == REKOR[1] => {
                paths(field, &self.rekor_public_key_paths.unwrap_or_default())?
            }
            Some(field) if field == REKOR[2] => {
                datas(field, self.rekor_public_key_data.as_slice())?
            }
            Some(field) => datas(field, &self.rekor_public_key_datas.unwrap_or_default())?,
        };
        Ok(Requirement::Sigstore(Sigstore { wanted: Wanted { signers, logs }, identity }))
    }
}

impl RawFulcio {
    fn check(self) -> Result<Signers<Source, Source>, String> {
        let needs = |field: &str, value: Option<String>| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| format!("needs {field}"))
        };
        let authorities = either(("caPath", self.ca_path), ("caData", self.ca_data))?;
        Ok(Signers::Fulcio {
            authorities: authorities.ok_or("needs caPath or caData")?,
            issuer: needs("oidcIssuer", self.oidc_issuer)?,
            email: needs("subjectEmail", self.subject_email)?,
        })
    }
}

impl RawPki {
    fn check(self) -> Result<Signers<Source, Source>, String> {
        let Self { subject_email: email, subject_hostname: hostname, .. } = self;
        let roots =
            either(("caRootsPath", self.ca_roots_path), ("caRootsData", self.ca_roots_data))?;
        let intermediates = either(
            ("caIntermediatesPath", self.ca_intermediates_path),
            ("caIntermediatesData", self.ca_intermediates_data),
        )?;
        if email.is_none() && hostname.is_none() {
            return Err("needs subjectEmail or subjectHostname".into());
        }
        let roots = roots.ok_or("needs caRootsPath or caRootsData")?;
        Ok(Signers::Pki { roots, intermediates, email, hostname })
    }
}

/// One of two fields, of which one is a path and the other base64.
fn either(
    (path_field, path): (&str, Option<String>),
    (data_field, data): (&str, Option<String>),
) -> Result<Option<Source>, String> {
    let sources = match (path, data) {
        (Some(_), Some(_)) => {
            return Err(format!("only one of {path_field}, {data_field} may be given"));
        }
        (Some(path), None) => paths(path_field, &[path])?,
        (None, Some(data)) => datas(data_field, &[data])?,
        (None, None) => Vec::new(),
    };
    Ok(sources.into_iter().next())
}

fn paths(field: &str, given: &[String]) -> Result<Vec<Source>, String> {
    if let Some(wrong) = given.iter().find(|path| !path.starts_with('/')) {
        return Err(format!("{field}: {wrong:?} is no absolute path"));
    }
    some(field, given.iter().map(|path| Source::File(PathBuf::from(path))).collect())
}

fn datas(field: &str, given: &[String]) -> Result<Vec<Source>, String> {
    let decoded = given.iter().map(|text| Ok(Source::Here(STANDARD.decode(text)?)));
    let decoded: Result<_, base64::DecodeError> = decoded.collect();
    some(field, decoded.map_err(|err| format!("{field}: not base64: {err}"))?)
}

fn some(field: &str, sources: Vec<Source>) -> Result<Vec<Source>, String> {
    if sources.is_empty() { Err(format!("{field}: is empty")) } else { Ok(sources) }
}

impl RawIdentity {
    fn check(self) -> Result<Identity, String> {
        let Self { kind, docker_reference, docker_repository, prefix, signed_prefix } = self;
        let given = [
            ("dockerReference", docker_reference),
            ("dockerRepository", docker_repository),
            ("prefix", prefix),
            ("signedPrefix", signed_prefix),
        ];
        let needs: &[&str] = match kind.as_str() {
            "matchExact" | "matchRepoDigestOrExact" | "matchRepository" => &[],
            "exactReference" => &["dockerReference"],
            "exactRepository" => &["dockerRepository"],
            "remapIdentity" => &["prefix", "signedPrefix"],
            other => {
                return Err(format!(
                    "type: {other:?} is none of matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository, remapIdentity"
                ));
            }
        };
        let mut values = Vec::new();
        for (field, value) in given {
            match (needs.contains(&field), value) {
                (true, Some(value)) if !value.is_empty() => values.push(value),
                (true, _) => return Err(format!("needs {field}")),
                (false, Some(_)) => return Err(format!("{field} does not go with {kind}")),
                (false, None) => {}
            }
        }
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or_default();
        Ok(match kind.as_str() {
            "matchExact" => Identity::MatchExact,
            "matchRepository" => Identity::MatchRepository,
            "exactReference" => {
                let text = next();
                let signed =
                    Signed::parse(&text).map_err(|err| format!("dockerReference: {err}"))?;
                if !signed.is_whole() {
                    return Err(format!(
                        "dockerReference: {text:?} has neither a tag nor a digest"
                    ));
                }
                Identity::ExactReference(signed)
            }
            "exactRepository" => {
                let signed =
                    Signed::parse(&next()).map_err(|err| format!("dockerRepository: {err}"))?;
                Identity::ExactRepository(signed.name)
            }
            "remapIdentity" => Identity::Remap { prefix: next(), signed_prefix: next() },
            _ => Identity::MatchRepoDigestOrExact,
        })
    }
}
