//! Public keys of signers and of logs: PEM as `cosign generate-key-pair` and `openssl pkey -pubout` write it.

use std::path::PathBuf;

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::der::{BIT_STRING, OBJECT_ID, SEQUENCE, element};

/// Largest file of a key, or of certificates.
const MAX_FILE: u64 = 64 << 10;

/// Object identifiers of keys and curves, as DER holds them.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EDWARDS: &[u8] = &[0x2b, 0x65, 0x70];

/// Where a policy has a key or certificates: PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    /// In the policy itself, decoded.
    Here(Vec<u8>),
}

/// A key that signatures can be compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    kind: Kind,
    /// What stands in the bit string of its SubjectPublicKeyInfo.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl Source {
    /// Reads it, for `parse`. Blocks on a small file.
    pub(super) fn read<T>(
        &self,
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, String> {
        match self {
            Self::Here(pem) => parse(pem).map_err(|why| format!("in the policy: {why}")),
            Self::File(path) => {
                let told = |why: String| format!("{}: {why}", path.display());
                let pem = super::read_capped(path, MAX_FILE).map_err(told)?;
                parse(&pem).map_err(told)
            }
        }
    }
}

impl PublicKey {
    /// The one key of some PEM.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|err| format!("not PEM: {err}"))?;
        match keys.as_slice() {
            [key] => Self::from_spki(key).ok_or_else(|| {
                "neither an ECDSA key on P-256 or P-384, an Ed25519 nor an RSA key".to_owned()
            }),
            _ => Err(format!("{} PUBLIC KEY sections, one is needed", keys.len())),
        }
    }

    /// A SubjectPublicKeyInfo.
    pub(super) fn from_spki(der: &[u8]) -> Option<Self> {
        let (info, _) = element(der, SEQUENCE)?;
        let (algorithm, rest) = element(info, SEQUENCE)?;
        let (bits, _) = element(rest, BIT_STRING)?;
        let (of, parameters) = element(algorithm, OBJECT_ID)?;
        let curve = || element(parameters, OBJECT_ID).map(|(curve, _)| curve);
        let kind = match of {
            EC if curve() == Some(P256) => Kind::P256,
            EC if curve() == Some(P384) => Kind::P384,
            EDWARDS => Kind::Ed25519,
            RSA => Kind::Rsa,
            _ => return None,
        };
        // The first octet says how many bits of the last are unused: none, in a key.
        let (0, bytes) = bits.split_first().map(|(unused, bytes)| (*unused, bytes))? else {
            return None;
        };
        Some(Self { kind, bytes: bytes.to_vec() })
    }

    /// Whether its owner signed the message. cosign hashes with SHA-256 whatever the curve; other signers take the
    /// hash that is as wide as P-384.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1],
            Kind::Ed25519 => &[&ED25519],
            Kind::Rsa => &[&RSA_PKCS1_2048_8192_SHA256],
        };
        algorithms.iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.bytes).verify(message, signature).is_ok()
        })
    }
}
