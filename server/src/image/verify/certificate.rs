//! Certificates of signers: whether an authority vouches for them, and whom they name.
//!
//! Paths are built and checked by webpki, as for TLS; what it does not read of a certificate (addresses of mail, who
//! proved the identity to Fulcio) is read here, once the path is known to be good.

use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::super::digest::clip;
use super::der::{BOOLEAN, OBJECT_ID, OCTET_STRING, SEQUENCE, UTF8_STRING, any, element};
use super::key::PublicKey;

/// How authorities may sign.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ECDSA_P256_SHA256,
    ECDSA_P256_SHA384,
    ECDSA_P384_SHA256,
    ECDSA_P384_SHA384,
    ED25519,
    RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512,
];
/// Most certificates in one file or chain.
const MAX_CERTIFICATES: usize = 64;

/// Object identifiers, as DER holds them: what a certificate is for (RFC 5280, 4.2.1.12) …
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// … its other names (4.2.1.6) …
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// … and who proved the identity to Fulcio (1.3.6.1.4.1.57264.1.8; .1.1 is the same as bare bytes).
const ISSUER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];
const OLD_ISSUER: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
/// The extensions of a certificate, and an address of mail among its names.
const EXTENSIONS: u8 = 0xa3;
const EMAIL: u8 = 0x81;

/// A certificate that came with a signature.
#[derive(Debug)]
pub(super) struct Certificate {
    der: CertificateDer<'static>,
    key: PublicKey,
}

/// At least one certificate, in PEM.
pub(super) fn some(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|err| format!("not PEM: {err}"))?;
    match all.len() {
        0 => Err("no CERTIFICATE section".into()),
        1..=MAX_CERTIFICATES => Ok(all),
        _ => Err(format!("more than {MAX_CERTIFICATES} certificates")),
    }
}

impl Certificate {
    /// The one certificate of some PEM; nothing of it is trusted yet.
    pub(super) fn parse(pem: &str) -> Result<Self, String> {
        let [der] = <[_; 1]>::try_from(some(pem.as_bytes())?)
            .map_err(|all| format!("{} certificates in the place of one", all.len()))?;
        let key = read(&der)?.subject_public_key_info();
        let key =
            PublicKey::from_spki(&key).ok_or("its certificate's key is of an unknown kind")?;
        Ok(Self { der, key })
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether a path leads from one of the authorities to it, for signing code, at that time since 1970.
    pub(super) fn is_vouched_for(
        &self,
        authorities: &[CertificateDer<'static>],
        between: &[CertificateDer<'static>],
        at: Duration,
    ) -> Result<(), String> {
        let anchors: Vec<_> = authorities
            .iter()
            .map(anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(|err| format!("an authority's certificate: {err}"))?;
        let usage = KeyUsage::required(CODE_SIGNING);
        let at = UnixTime::since_unix_epoch(at);
        let path = read(&self.der)?
            .verify_for_usage(ALGORITHMS, &anchors, between, at, usage, None, None)
            .map(drop);
        path.map_err(|err| format!("its certificate is not good: {err}"))
    }

    /// Whether it names that address, to the letter.
    pub(super) fn names_email(&self, wanted: &str) -> Result<(), String> {
        let names = self.extension(ALTERNATIVE_NAMES)?.unwrap_or_default();
        let (mut names, _) = element(names, SEQUENCE).unwrap_or_default();
        let mut told = Vec::new();
        while let Some((tag, name, rest)) = any(names) {
            names = rest;
            if tag == EMAIL && name == wanted.as_bytes() {
                return Ok(());
            }
            told.push(clip(&String::from_utf8_lossy(name)).to_owned());
        }
        Err(format!("it was made by {}", told.join(", ")))
    }

    /// Whether it names that host, by the rules of TLS.
    pub(super) fn names_host(&self, wanted: &str) -> Result<(), String> {
        let name = ServerName::try_from(wanted)
            .map_err(|_| format!("subjectHostname: {wanted:?} is no name of a host"))?;
        let valid = read(&self.der)?.verify_is_valid_for_subject_name(&name);
        valid.map_err(|err| format!("its certificate is not {wanted}'s: {err}"))
    }

    /// Whether that provider proved the identity to Fulcio.
    pub(super) fn was_given_by(&self, wanted: &str) -> Result<(), String> {
        let older = self.extension(OLD_ISSUER)?;
        let newer = match self.extension(ISSUER)? {
            Some(value) => Some(element(value, UTF8_STRING).ok_or("its issuer is no string")?.0),
            None => None,
        };
        let issuer = newer.or(older).ok_or("its certificate does not tell an issuer")?;
        if older.is_some_and(|older| older != issuer) {
            return Err("its certificate tells two issuers".into());
        }
        if issuer == wanted.as_bytes() {
            return Ok(());
        }
        Err(format!("its identity is from {:?}", clip(&String::from_utf8_lossy(issuer))))
    }

    /// The value of an extension.
    fn extension(&self, wanted: &[u8]) -> Result<Option<&[u8]>, String> {
        let broken = "its certificate cannot be read";
        let certificate = element(&self.der, SEQUENCE).ok_or(broken)?.0;
        let mut fields = element(certificate, SEQUENCE).ok_or(broken)?.0;
        let mut found = None;
        while let Some((tag, content, rest)) = any(fields) {
            fields = rest;
            if tag != EXTENSIONS {
                continue;
            }
            let mut all = element(content, SEQUENCE).ok_or(broken)?.0;
            while let Some((extension, rest)) = element(all, SEQUENCE) {
                all = rest;
                let (id, rest) = element(extension, OBJECT_ID).ok_or(broken)?;
                let rest = element(rest, BOOLEAN).map_or(rest, |(_, rest)| rest);
                let (value, _) = element(rest, OCTET_STRING).ok_or(broken)?;
                if id == wanted && found.replace(value).is_some() {
                    return Err("its certificate says the same twice".into());
                }
            }
        }
        Ok(found)
    }
}

fn read<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, String> {
    EndEntityCert::try_from(der).map_err(|err| format!("its certificate cannot be read: {err}"))
}
