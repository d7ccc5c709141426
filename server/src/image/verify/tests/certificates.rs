//! Certificates of authorities made here, and entries of a log made here, by which signatures are good or are not.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, SigningKey, date_time_ymd,
};
use serde_json::{Value, json};

use super::*;
use crate::image::verify::certificate;

const EMAIL: &str = "dev@example.org";
const PROVIDER: &str = "https://accounts.example.org";
/// What says who proved the identity to Fulcio: as DER, and as bare bytes.
const ISSUER: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 8];
const OLD_ISSUER: [u64; 9] = [1, 3, 6, 1, 4, 1, 57264, 1, 1];
/// Certificates are good on the first of January 2026, of which this is noon.
const NOON: u64 = 1_767_268_800;

/// A root, an authority below it, and a log.
struct World {
    root: Certificate,
    between: Certificate,
    authority: Issuer<'static, KeyPair>,
    log: KeyPair,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}

/// The same but for what `change` does to it.
fn leaf_with(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = leaf();
    change(&mut params);
    params
}

/// A certificate as Fulcio gives them.
fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::Rfc822Name(EMAIL.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.custom_extensions = vec![newer(PROVIDER), older(PROVIDER)];
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 2));
    params
}

fn newer(provider: &str) -> CustomExtension {
    let length = u8::try_from(provider.len()).unwrap();
    CustomExtension::from_oid_content(&ISSUER, [&[0x0c, length], provider.as_bytes()].concat())
}

fn older(provider: &str) -> CustomExtension {
    CustomExtension::from_oid_content(&OLD_ISSUER, provider.as_bytes().to_vec())
}

impl World {
    fn new() -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = authority("root").self_signed(&root_key).unwrap();
        let above = Issuer::new(authority("root"), root_key);
        let mut params = authority("between");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let between = params.signed_by(&key, &above).unwrap();
        let authority = Issuer::new(params, key);
        Self { root, between, authority, log: KeyPair::generate().unwrap() }
    }

    /// Signs with a key for which there is that certificate, and has it recorded then.
    fn sign(&self, params: &CertificateParams, recorded: u64) -> Signature {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap().pem();
        let bytes = key.sign(PAYLOAD.as_bytes()).unwrap();
        let entry = self.entry(&body(&bytes, &certificate), recorded);
        Signature {
            certificate: Some(certificate),
            chain: Some(self.between.pem()),
            entry: Some(entry),
            ..signature(PAYLOAD, &STANDARD.encode(&bytes))
        }
    }

    fn entry(&self, body: &Value, recorded: u64) -> String {
        let body = STANDARD.encode(body.to_string());
        let signed = format!(
            r#"{{"body":"{body}","integratedTime":{recorded},"logID":"c0ffee","logIndex":7}}"#
        );
        let set = STANDARD.encode(self.log.sign(signed.as_bytes()).unwrap());
        let payload: Value = serde_json::from_str(&signed).unwrap();
        json!({"SignedEntryTimestamp": set, "Payload": payload}).to_string()
    }

    fn logs(&self) -> Vec<PublicKey> {
        vec![key(&self.log.public_key_pem()).unwrap()]
    }

    fn fulcio(&self) -> Trust {
        let authorities = certificate::some(self.root.pem().as_bytes()).unwrap();
        let signers = Signers::Fulcio { authorities, issuer: PROVIDER.into(), email: EMAIL.into() };
        Trust { signers, logs: self.logs() }
    }

    fn pki(&self, email: Option<&str>, hostname: Option<&str>) -> Trust {
        let signers = Signers::Pki {
            roots: certificate::some(self.root.pem().as_bytes()).unwrap(),
            intermediates: Some(certificate::some(self.between.pem().as_bytes()).unwrap()),
            email: email.map(Into::into),
            hostname: hostname.map(Into::into),
        };
        Trust { signers, logs: Vec::new() }
    }
}

fn body(signature: &[u8], signer: &str) -> Value {
    let hash = Digest::sha256(PAYLOAD.as_bytes()).as_str().replace("sha256:", "");
    json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": "sha256", "value": hash}},
        "signature": {
            "content": STANDARD.encode(signature),
            "publicKey": {"content": STANDARD.encode(signer)},
        },
    }})
}

fn judged(signature: &Signature, trust: &Trust) -> Result<(), String> {
    signature.is_good(trust, &Identity::MatchRepository, &pulled())
}

#[track_caller]
fn refused(signature: &Signature, trust: &Trust, told: &str) {
    let err = judged(signature, trust).unwrap_err();
    assert!(err.contains(told), "{err:?} does not say {told:?}");
}

#[test]
fn fulcio_vouches_for_who_signed_while_its_certificate_was_good() {
    let world = World::new();
    let trust = world.fulcio();
    assert_eq!(judged(&world.sign(&leaf(), NOON), &trust), Ok(()));
    for issuers in [vec![newer(PROVIDER)], vec![older(PROVIDER)]] {
        let params = leaf_with(|params| params.custom_extensions = issuers);
        assert_eq!(judged(&world.sign(&params, NOON), &trust), Ok(()));
    }
    for late in [NOON - 86_400, NOON + 86_400] {
        refused(&world.sign(&leaf(), late), &trust, "its certificate is not good");
    }
    for (issuers, told) in [
        (vec![], "does not tell an issuer"),
        (vec![newer("https://else.org")], "its identity is from \"https://else.org\""),
        (vec![newer(PROVIDER), older("https://else.org")], "two issuers"),
        (vec![newer(PROVIDER), newer(PROVIDER)], "the same twice"),
    ] {
        let params = leaf_with(|params| params.custom_extensions = issuers);
        refused(&world.sign(&params, NOON), &trust, told);
    }
    let other = vec![SanType::Rfc822Name("eve@example.org".try_into().unwrap())];
    let params = leaf_with(|params| params.subject_alt_names = other);
    refused(&world.sign(&params, NOON), &trust, "it was made by eve@example.org");
    let uri = vec![SanType::URI(EMAIL.try_into().unwrap())];
    let params = leaf_with(|params| params.subject_alt_names = uri);
    refused(&world.sign(&params, NOON), &trust, "it was made by");
    let tls = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for usages in [tls, vec![]] {
        let params = leaf_with(|params| params.extended_key_usages = usages);
        refused(&world.sign(&params, NOON), &trust, "its certificate is not good");
    }
    refused(&World::new().sign(&leaf(), NOON), &trust, "no trusted log");
    let other =
        World { log: KeyPair::from_pem(&world.log.serialize_pem()).unwrap(), ..World::new() };
    refused(&other.sign(&leaf(), NOON), &trust, "its certificate is not good");
}

#[test]
fn what_is_missing_or_from_another_signature_is_told() {
    let world = World::new();
    let trust = world.fulcio();
    let (good, another) = (world.sign(&leaf(), NOON), world.sign(&leaf(), NOON));
    for (bad, told) in [
        (Signature { entry: None, ..good.clone() }, "no log's entry"),
        (Signature { certificate: None, ..good.clone() }, "no certificate"),
        (Signature { chain: None, ..good.clone() }, "not good"),
        (Signature { entry: another.entry.clone(), ..good.clone() }, "entry is of another"),
        (
            Signature { certificate: another.certificate.clone(), ..good.clone() },
            "certificate's key did not make it",
        ),
        (Signature { chain: Some("chain".into()), ..good.clone() }, "no CERTIFICATE section"),
        (Signature { certificate: Some(world.log.public_key_pem()), ..good.clone() }, "no CERT"),
        (Signature { entry: Some("[]".into()), ..good.clone() }, "not a JSON object"),
    ] {
        refused(&bad, &trust, told);
    }
    // A log says when: another time is another entry.
    let entry = good.entry.as_deref().unwrap();
    let later = entry.replace(&NOON.to_string(), &(NOON + 1).to_string());
    assert_ne!(later, entry);
    refused(&Signature { entry: Some(later), ..good.clone() }, &trust, "no trusted log");
    let bytes = STANDARD.decode(&good.signature).unwrap();
    let certificate = good.certificate.as_deref().unwrap();
    for (field, value) in [("kind", "intoto"), ("apiVersion", "0.0.2")] {
        let mut body = body(&bytes, certificate);
        body[field] = value.into();
        let entry = Some(world.entry(&body, NOON));
        refused(&Signature { entry, ..good.clone() }, &trust, "its entry is a");
    }
}

#[test]
fn a_log_may_be_wanted_of_a_key_as_well() {
    let world = World::new();
    let signer = KeyPair::generate().unwrap();
    let bytes = signer.sign(PAYLOAD.as_bytes()).unwrap();
    let pem = signer.public_key_pem();
    let signers = Signers::Keys(vec![key(&pem).unwrap()]);
    let trust = Trust { signers, logs: world.logs() };
    let bare = signature(PAYLOAD, &STANDARD.encode(&bytes));
    refused(&bare, &trust, "no log's entry");
    let by = |pem: &str| Signature {
        entry: Some(world.entry(&body(&bytes, pem), NOON)),
        ..bare.clone()
    };
    assert_eq!(judged(&by(&pem), &trust), Ok(()));
    refused(&by(&world.log.public_key_pem()), &trust, "entry is of another");
    refused(&by(&world.root.pem()), &trust, "entry is of another");
    refused(&by("nobody"), &trust, "its entry's signer");
}

#[test]
fn a_pki_vouches_at_this_moment() {
    let world = World::new();
    let mut params = leaf();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2039, 1, 1));
    params.subject_alt_names.push(SanType::DnsName("build.example.org".try_into().unwrap()));
    let good = Signature { chain: None, entry: None, ..world.sign(&params, NOON) };
    let host = Some("build.example.org");
    for trust in [world.pki(Some(EMAIL), None), world.pki(None, host), world.pki(Some(EMAIL), host)]
    {
        assert_eq!(judged(&good, &trust), Ok(()));
        let passed = Signature { entry: None, ..world.sign(&leaf(), NOON) };
        refused(&passed, &trust, "its certificate is not good");
        refused(&World::new().sign(&params, NOON), &trust, "its certificate is not good");
    }
    refused(&good, &world.pki(Some("eve@example.org"), host), "it was made by");
    refused(&good, &world.pki(Some(EMAIL), Some("else.org")), "is not else.org's");
}
