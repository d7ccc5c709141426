//! Whose signatures count: holders of keys, or of certificates from an authority, and what a log has to have recorded.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::certificate::{self, Certificate};
use super::key::{PublicKey, Source};
use super::log::Entry;
use super::signature::Signature;

/// What a policy says, not read yet.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) signers: Signers<Source, Source>,
    /// Keys of Rekor's logs, one of which has to have recorded the signature; none: no log is wanted.
    pub(super) logs: Vec<Source>,
}

/// The same with its keys and certificates.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) signers: Signers<PublicKey, Vec<CertificateDer<'static>>>,
    pub(super) logs: Vec<PublicKey>,
}

/// Who may sign, by keys `K` and sets of certificates `C`.
#[derive(Debug)]
pub(super) enum Signers<K, C> {
    /// Whoever has one of these keys.
    Keys(Vec<K>),
    /// Whoever Fulcio gave a certificate for this address at this provider of identities. Such a certificate is good
    /// for minutes, and a log says that it was when it signed.
    Fulcio { authorities: C, issuer: String, email: String },
    /// Whoever has a certificate, good at this moment, for all that is named here.
    Pki { roots: C, intermediates: Option<C>, email: Option<String>, hostname: Option<String> },
}

impl Wanted {
    /// Reads the files that it names. Blocks on small files.
    pub(super) fn read(&self) -> Result<Trust, String> {
        let keys = |sources: &[Source]| -> Result<Vec<PublicKey>, String> {
            sources.iter().map(|source| source.read(PublicKey::parse)).collect()
        };
        let signers = match &self.signers {
            Signers::Keys(sources) => Signers::Keys(keys(sources)?),
            Signers::Fulcio { authorities, issuer, email } => Signers::Fulcio {
                authorities: authorities.read(certificate::some)?,
                issuer: issuer.clone(),
                email: email.clone(),
            },
            Signers::Pki { roots, intermediates, email, hostname } => Signers::Pki {
                roots: roots.read(certificate::some)?,
                intermediates: match intermediates {
                    Some(source) => Some(source.read(certificate::some)?),
                    None => None,
                },
                email: email.clone(),
                hostname: hostname.clone(),
            },
        };
        Ok(Trust { signers, logs: keys(&self.logs)? })
    }
}

impl Trust {
    /// Whether somebody who is trusted made the signature, which is `bytes` once decoded; and whether a log recorded
    /// it, where one has to.
    pub(super) fn made(&self, signature: &Signature, bytes: &[u8]) -> Result<(), String> {
        let entry = match (&self.logs[..], &signature.entry) {
            ([], _) => None,
            (_, None) => return Err("no log's entry is with it".into()),
            (keys, Some(entry)) => Some(Entry::read(entry, keys)?),
        };
        let payload = signature.payload.as_bytes();
        let by = match &self.signers {
            Signers::Keys(keys) => By::Key(
                keys.iter()
                    .find(|key| key.signed(payload, bytes))
                    .ok_or("no trusted key made it")?,
            ),
            Signers::Fulcio { authorities, issuer, email } => {
                let at = entry.as_ref().map(Entry::time).ok_or("no log says when it was made")?;
                let certificate = certified(signature, authorities, &[], at)?;
                certificate.was_given_by(issuer)?;
                certificate.names_email(email)?;
                By::Certificate(certificate)
            }
            Signers::Pki { roots, intermediates, email, hostname } => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let certificate = certified(
                    signature,
                    roots,
                    intermediates.as_deref().unwrap_or_default(),
                    now.unwrap_or_default(),
                )?;
                email.iter().try_for_each(|email| certificate.names_email(email))?;
                hostname.iter().try_for_each(|host| certificate.names_host(host))?;
                By::Certificate(certificate)
            }
        };
        if let By::Certificate(certificate) = &by
            && !certificate.key().signed(payload, bytes)
        {
            return Err("its certificate's key did not make it".into());
        }
        match (entry, by) {
            (None, _) => Ok(()),
            (Some(entry), By::Key(key)) => entry.records(payload, bytes, |by| by.is_key(key)),
            (Some(entry), By::Certificate(of)) => {
                entry.records(payload, bytes, |by| by.is_certificate(&of))
            }
        }
    }
}

enum By<'a> {
    Key(&'a PublicKey),
    Certificate(Certificate),
}

/// The signature's certificate, if one of the authorities vouched for it at that time.
fn certified(
    signature: &Signature,
    authorities: &[CertificateDer<'static>],
    intermediates: &[CertificateDer<'static>],
    at: Duration,
) -> Result<Certificate, String> {
    let pem = signature.certificate.as_deref().ok_or("no certificate is with it")?;
    let certificate = Certificate::parse(pem)?;
    let mut between = intermediates.to_vec();
    if let Some(chain) = &signature.chain {
        between.extend(certificate::some(chain.as_bytes())?);
    }
    certificate.is_vouched_for(authorities, &between, at)?;
    Ok(certificate)
}
