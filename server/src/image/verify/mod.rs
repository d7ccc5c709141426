//! Whether an image may be used: the operator's policy file and verifier executables.
//!
//! Both are off unless they are configured. They are asked at a pull, about the digest that the name led to, before
//! any layer is fetched; what was found goes into the image's record. They are asked again whenever a container is
//! made, about the name that the pod's author wrote, with what the record has: no registry is asked then. So an image
//! that was pulled while nobody wanted a signature of it has to be pulled again once somebody does.
//!
//! An archive has no signatures; what it brings is judged when a container is made of it. Whatever cannot be read or
//! understood refuses.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::Error;
use super::manifest::{self, OCI_INDEX, OCI_MANIFEST};
use super::pull::blocking;
use super::reference::Reference;
use super::registry::Session;
use super::table::Image;
use super::{Images, Inner};

mod certificate;
mod der;
mod executables;
mod fetch;
mod identity;
mod key;
mod log;
mod policy;
mod requirement;
mod signature;
mod trust;

pub(crate) use executables::Settings as Executables;

use executables::{Top, Verdict};
use policy::Policy;
use requirement::{Requirement, Sigstore};
use signature::Signature;

/// Most signatures and verdicts that a record keeps, the newest ones.
const MAX_KEPT: usize = 64;
/// Verdicts of verifiers that are remembered beside those in records.
const MAX_PASSED: usize = 256;
/// How many signatures' faults are told.
const MAX_FAULTS: usize = 4;

/// What a node's operator wants; nothing, by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub policy: Option<PathBuf>,
    pub executables: Option<Executables>,
}

/// What an image's record keeps for the next question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proofs {
    signatures: Vec<Signature>,
    verdicts: Vec<Verdict>,
}

impl Proofs {
    /// Adds those of an earlier record of the same image.
    pub(super) fn inherit(&mut self, earlier: &Self) {
        union(&mut self.signatures, &earlier.signatures);
        union(&mut self.verdicts, &earlier.verdicts);
    }
}

fn union<T: Clone + PartialEq>(newer: &mut Vec<T>, earlier: &[T]) {
    for one in earlier {
        if !newer.contains(one) {
            newer.push(one.clone());
        }
    }
    newer.truncate(MAX_KEPT);
}

/// Asks whoever is to be asked.
#[derive(Debug)]
pub(super) struct Checks {
    settings: Settings,
    passed: Mutex<Vec<Verdict>>,
}

impl Checks {
    pub(super) fn new(settings: Settings) -> Self {
        if let Some(mistake) = settings.mistake() {
            tracing::error!(mistake, "no image can be pulled or used");
        }
        Self { settings, passed: Mutex::default() }
    }

    fn are_off(&self) -> bool {
        self.settings.policy.is_none() && self.settings.executables.is_none()
    }

    /// Whether the image may be pulled: `top` is what the registry has under the name, `chosen` the manifest in it
    /// that is for this machine. Either may be signed.
    pub(super) async fn at_pull(
        &self,
        reference: &Reference,
        session: &Session,
        top: (&Digest, &[u8]),
        chosen: &Digest,
    ) -> Result<Proofs, Error> {
        let mut proofs = Proofs::default();
        if self.are_off() {
            return Ok(proofs);
        }
        let refused = refusal(reference);
        if let Some(path) = self.settings.policy.clone() {
            let (file, name) = (path.clone(), reference.clone());
            let wanted = blocking(move || Ok(wants_signatures(&file, &name))).await?;
            if wanted.map_err(&refused)? {
                proofs.signatures =
                    signatures(session, top.0, chosen).await.map_err(|err| match err {
                        Error::Content(text) | Error::Unsupported(text) => refused(text),
                        other => other,
                    })?;
            }
            let (name, found) = (reference.clone(), proofs.signatures.clone());
            blocking(move || Ok(judge(&path, &name, &found))).await?.map_err(&refused)?;
        }
        if let Some(executables) = self.settings.executables.clone() {
            let (name, top) = (reference.to_string(), describe(top.0, top.1));
            let verdict = blocking(move || Ok(executables.ask(&name, &top))).await?;
            proofs.verdicts.push(verdict.map_err(&refused)?);
        }
        Ok(proofs)
    }

    /// Whether an image that is here may be used under this name.
    fn at_use(&self, inner: &Inner, image: &Image, reference: &Reference) -> Result<(), String> {
        if let Some(path) = &self.settings.policy {
            judge(path, reference, &image.proofs.signatures)?;
        }
        match &self.settings.executables {
            Some(executables) => self.asked(executables, inner, image, reference),
            None => Ok(()),
        }
    }

    /// The verifiers' verdict: one that they gave before, if they are still the same, else a new one.
    fn asked(
        &self,
        executables: &Executables,
        inner: &Inner,
        image: &Image,
        reference: &Reference,
    ) -> Result<(), String> {
        let (name, by) = (reference.to_string(), executables.fingerprint()?);
        let digests = digests(image, reference);
        let passed = |verdict: &Verdict| {
            verdict.name == name && verdict.by == by && digests.contains(&verdict.digest)
        };
        let remembered = || self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if image.proofs.verdicts.iter().any(passed) || remembered().iter().any(passed) {
            return Ok(());
        }
        let digest = digests.last().ok_or("no digest is known of it")?;
        let bytes = inner.content.read(digest, manifest::MAX_MANIFEST);
        let bytes = bytes.ok_or_else(|| format!("its manifest {digest} is not kept here"))?;
        let verdict = executables.ask(&name, &describe(digest, &bytes))?;
        let mut all = remembered();
        if all.len() >= MAX_PASSED {
            all.remove(0);
        }
        all.push(verdict);
        Ok(())
    }
}

impl Settings {
    /// What the configuration says.
    pub(crate) fn new(config: &crate::config::Config) -> Self {
        Self {
            policy: config.image_policy.clone(),
            executables: config.verifiers.clone().map(|all| Executables {
                dir: all.dir,
                max: all.max,
                patience: all.timeout,
            }),
        }
    }

    /// What is wrong with the policy, or with where the verifiers are. Blocks on small files.
    pub(crate) fn mistake(&self) -> Option<String> {
        let policy = self.policy.as_deref().and_then(|path| Policy::read(path).err());
        policy.or_else(|| self.executables.as_ref().and_then(|all| all.fingerprint().err()))
    }
}

impl Images {
    /// Whether a container may be made of an image that is here: as the pod's author called it, where the kubelet
    /// says so, else as the client asks for it. By its id it may be used if it may under one of its names, since
    /// whoever has the id could say that name as well.
    ///
    /// # Errors
    /// `Signature` if not.
    pub(crate) async fn permit(
        &self,
        image: &Arc<Image>,
        asked: &str,
        user_specified: &str,
    ) -> Result<(), Error> {
        if self.0.checks.are_off() {
            return Ok(());
        }
        let own: Vec<Reference> = image
            .tags
            .iter()
            .chain(&image.digests)
            .filter_map(|name| Reference::parse(name).ok())
            .collect();
        let borne = |name: &Reference| {
            own.iter()
                .any(|of| (of.registry(), of.repository()) == (name.registry(), name.repository()))
        };
        let said = match Digest::parse(user_specified) {
            Some(_) => None,
            None => Reference::parse(user_specified).ok(),
        };
        let said = said.or_else(|| Reference::parse(asked).ok().filter(borne));
        let (inner, image) = (self.0.clone(), image.clone());
        let name_is_its = said.as_ref().is_some_and(borne);
        blocking(move || {
            let check =
                |name: &Reference| inner.checks.at_use(&inner, &image, name).map_err(refusal(name));
            said.as_ref().map_or(Ok(()), check)?;
            if name_is_its {
                return Ok(());
            }
            let mut last = Err(Error::Signature(format!("{}: it has no name", image.id)));
            for name in &own {
                last = check(name);
                if last.is_ok() {
                    break;
                }
            }
            last
        })
        .await
    }
}

fn refusal(reference: &Reference) -> impl Fn(String) -> Error + use<> {
    let name = reference.to_string();
    move |why| Error::Signature(format!("{name}: {why}"))
}

async fn signatures(
    session: &Session,
    top: &Digest,
    chosen: &Digest,
) -> Result<Vec<Signature>, Error> {
    let mut found = fetch::signatures(session, top).await?;
    if chosen != top {
        found.extend(fetch::signatures(session, chosen).await?);
    }
    Ok(found)
}

/// Whether the registry has to be asked for signatures before the policy can be.
fn wants_signatures(policy: &Path, reference: &Reference) -> Result<bool, String> {
    let policy = Policy::read(policy)?;
    let all = policy.rules(reference).requirements;
    let hopeless =
        |one: &Requirement| matches!(one, Requirement::Reject | Requirement::Unsupported(_));
    let signed = |one: &Requirement| matches!(one, Requirement::Sigstore(_));
    Ok(all.iter().any(signed) && !all.iter().any(hopeless))
}

fn judge(path: &Path, reference: &Reference, signatures: &[Signature]) -> Result<(), String> {
    let policy = Policy::read(path)?;
    let rules = policy.rules(reference);
    let holds = |one: &Requirement| match one {
        Requirement::AcceptAnything => Ok(()),
        Requirement::Reject => Err("it is rejected".to_owned()),
        Requirement::Unsupported(what) => Err(format!("{what} cannot be verified here")),
        Requirement::Sigstore(sigstore) => signed(sigstore, reference, signatures),
    };
    let told = |why| format!("policy {} ({}): {why}", path.display(), rules.scope);
    rules.requirements.iter().try_for_each(|one| holds(one).map_err(told))
}

/// One good signature is enough.
fn signed(
    wanted: &Sigstore,
    reference: &Reference,
    signatures: &[Signature],
) -> Result<(), String> {
    let trust = wanted.wanted.read()?;
    let mut faults = Vec::new();
    for signature in signatures {
        match signature.is_good(&trust, &wanted.identity, reference) {
            Ok(()) => return Ok(()),
            Err(why) if faults.len() < MAX_FAULTS => faults.push(why),
            Err(_) => {}
        }
    }
    if signatures.is_empty() {
        return Err("a signature is required and none is known".into());
    }
    let count = signatures.len();
    Err(format!("a signature is required and none of {count} is good: {}", faults.join("; ")))
}

/// What the registry of a name has of the image; of another registry's, if it has nothing.
fn digests(image: &Image, reference: &Reference) -> Vec<Digest> {
    let of = |name: &String| {
        let name = Reference::parse(name).ok()?;
        let same =
            (name.registry(), name.repository()) == (reference.registry(), reference.repository());
        match name.target() {
            super::reference::Target::Digest(digest) => Some((same, digest.clone())),
            super::reference::Target::Tag(_) => None,
        }
    };
    let all: Vec<(bool, Digest)> = image.digests.iter().filter_map(of).collect();
    let any_same = all.iter().any(|(same, _)| *same);
    let wanted = all.into_iter().filter(|(same, _)| *same || !any_same);
    wanted.map(|(_, digest)| digest).collect()
}

/// The descriptor of a manifest or index.
fn describe(digest: &Digest, bytes: &[u8]) -> Top {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let kind = match json["mediaType"].as_str() {
        Some(kind) if !kind.is_empty() => kind,
        _ if json["manifests"].is_array() => OCI_INDEX,
        _ => OCI_MANIFEST,
    };
    Top { media_type: kind.to_owned(), digest: digest.clone(), size: bytes.len() as u64 }
}

/// A small file of the operator's. Blocks.
fn read_capped(path: &Path, cap: u64) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    let mut bytes = Vec::new();
    file.take(cap + 1).read_to_end(&mut bytes).map_err(|err| err.to_string())?;
    if bytes.len() as u64 > cap {
        return Err(format!("it has more than {cap} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
