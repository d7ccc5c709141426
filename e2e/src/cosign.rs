//! Signatures as `cosign sign` leaves them in a registry, made by hand with keys of the test's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::image::{MANIFEST, digest};
use crate::registry::Storage;

/// What stands before the point in a SubjectPublicKeyInfo of P-256.
const SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Someone with a key.
#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
            .and_then(|key| Ok(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random)?));
        Self(pair.expect("a key can be made"))
    }

    /// `cosign.pub`.
    pub fn public_key(&self) -> String {
        let text = STANDARD.encode([SPKI, self.0.public_key().as_ref()].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// A signature over these bytes, as a layer of a manifest of signatures has it.
    pub fn sign(&self, payload: &[u8]) -> Signature {
        let signature = self.0.sign(&SystemRandom::new(), payload).expect("a key signs");
        Signature { payload: payload.to_vec(), signature: STANDARD.encode(signature.as_ref()) }
    }
}

impl Default for Signer {
    fn default() -> Self {
        Self::new()
    }
}

/// One signature and what it is over.
#[derive(Debug, Clone)]
pub struct Signature {
    pub payload: Vec<u8>,
    pub signature: String,
}

/// What cosign signs: the image's digest under a name.
pub fn payload(name: &str, digest: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// Puts signatures beside the image with that digest, in place of any that were there.
pub fn attach(storage: &Storage, repository: &str, of: &str, signatures: &[Signature]) {
    let config = b"{}";
    storage.blob(repository, config);
    let layer = |one: &Signature| {
        storage.blob(repository, &one.payload);
        json!({
            "mediaType": PAYLOAD, "digest": digest(&one.payload), "size": one.payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": one.signature},
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": config.len()},
        "layers": signatures.iter().map(layer).collect::<Vec<Value>>(),
    });
    let tag = format!("{}.sig", of.replace(':', "-"));
    storage.manifest(repository, &tag, manifest.to_string().as_bytes());
}
