//! Signatures that openssl made, and what policies make of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::identity::Identity;
use super::key::PublicKey;
use super::trust::{Signers, Trust};
use super::*;

mod certificates;

/// What was signed.
const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"r.io/a/b"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"cosign container image signature"},"optional":null}"#;

/// By kind: the key, and signatures of the payload by it.
const SIGNED: &[(&str, &str, &[&str])] = &[
    (
        "P-256",
        "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjeS4R6uemecDd/2BiIk4wubJJbe+\nWUY44l3BdKN5mbQKoHep255ZqlyGOxAbF5/T9qgRNGafOebrmNYBoyRBHg==\n-----END PUBLIC KEY-----\n",
        &[
            "MEUCIC9PPl6S+PnUZmhpTzdtJHwMQSkZ8jb2fEnL2ge6+AmNAiEA9YpoJVKELTbaSxy6EIPJJK3dyRxNUflVWT+DKtyjAwY=",
        ],
    ),
    (
        "P-384",
        "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE/YW/sjJPy4lDPrHUQ9C6KyZPdsEXblwR\noYtZKgpf0VvPT99xC4UYXwWwtwgs3taK1IlvsAT1PauNVd8YXdzYC5wL7poqSrLv\nkSOFR67AWyU7+eUO4ZNgpVelRzXRQJsL\n-----END PUBLIC KEY-----\n",
        &[
            "MGUCMHWwPbGmdfT2VJN4tH2Uom9Cv1luQI6edVej2z6QXODYAzRRLyr4KwEvJAzw5/NkHAIxAKC4v067fT1yrLyOLHuv5JoyseHTNWr/OX3BG4VeuDwRbutmABo9kVZM+F722eJTQQ==",
            "MGUCMDsfMMAYflz6/oF/dHxcOF1fgAMenU6ji/Ov5ovuvOhBS17os/BZ3Y62ZusJFy4DagIxAPnbczTuXMOlFbVUCk4GD7VLhHIMMGzQ7ZI/yzOEkcU8TmfUgAP6vAWE4zvTCWVoaw==",
        ],
    ),
    (
        "Ed25519",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAWZnWxsDsJqfrfs3wFg2YU8Ox0yFaSVG8duJNFGE7uFk=\n-----END PUBLIC KEY-----\n",
        &[
            "pLpIcsvFpVbdh+qKdVRJqfu48bswJeQ7XhJ1yCNTD+8oR5S2udfFDyWD7TJZLVe1cRUDgoKwA9rF7ZHca2o1Bw==",
        ],
    ),
    (
        "RSA",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlHLwBIC8+ybg+gvgnHF1\nNO9BdOer1q/oDgTyYKwGJPLwUhSrGnrkW4nvmKD6ljx4x5e5EbVg0MWPpczl8p+N\nhdXcm28hiwsTBSgd+fy5Dl1lTwbI4qQGcKbDT2cZRNCGFP1sVknQds/r2x6kiefS\nJW0YFQfMdfSPopsulMY3L9o/fpeNJESjLxcIBVq8tdNj4P6nZEI52APcybFOaNAm\naS/nMnuf3fcfeQX/ofiWsJhAYy/aoM+QU5djzVDd4xkxub9YwheRVypQkJwRjMV6\nUi7RJfdT7Rq7DNowxUP1fcFEiTo9KGehc+Didr8lFzk+RMPk6scsLE9DERtSZsoK\nzQIDAQAB\n-----END PUBLIC KEY-----\n",
        &[
            "cDVqdQqZWlsfC7tEq8MDKyX/lcIZvx0iUDG7ixgU+jJGS4fnobWiBZduksQBYK7vUUcV3GeJ/hboXmBkVbmF5XKqTUna3+2FXWVh1RRU9MdWnqBgV3ACNsMF1Nu6ZErIhZsER8CWSqPP8s8pE2Nu+e0WiEGWH6d2Y5moSfrDFan6pw6tbHBA/fR5jLSngc9+0kHvAxp2B94VAFqKA1NR6G2c6Rya9c8EQ1PyXmaK736a2ZY5xghUSQ9INGpzvg7vITJXKB19ltcOfKLNV/Y6E1dauzZ0qRYUzm30lvvDCTQAzvrXsJVb/KnG3Nqd/YquwmN1G9Q4WykXSRyO6p3CCg==",
        ],
    ),
];

/// On a curve that is not supported.
const P521: &str = "-----BEGIN PUBLIC KEY-----\nMIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBHOeeNuVCkxDnepXa0gEWFiDHjrM8\nyZs5ZszqSyac4WXaIIros5p2oOeM+jhcpURgkW8CYnrMt5L2+l0u+/22It8B2yoK\n6wHN2ri5OrtZqMCYy3646x+2RdsvC5N9C5abG89tz+KRSpYi9vaEZMHdEQWAm+aA\nmgmO0Fno3RKQkA7Z+r0=\n-----END PUBLIC KEY-----\n";

fn empty() -> Digest {
    Digest::sha256(b"")
}

fn signature(payload: &str, signature: &str) -> Signature {
    let (certificate, chain, entry) = (None, None, None);
    let (payload, signature) = (payload.into(), signature.into());
    Signature { of: empty(), payload, signature, certificate, chain, entry }
}

fn key(pem: &str) -> Result<PublicKey, String> {
    key::Source::Here(pem.as_bytes().to_vec()).read(PublicKey::parse)
}

/// Whoever has one of the keys, logged or not.
fn held(keys: &[PublicKey]) -> Trust {
    Trust { signers: Signers::Keys(keys.to_vec()), logs: Vec::new() }
}

fn pulled() -> Reference {
    Reference::parse("r.io/a/b:1").unwrap()
}

#[test]
fn each_kind_of_key_verifies_its_signatures_and_no_others() {
    let keys: Vec<_> = SIGNED.iter().map(|(_, pem, _)| key(pem).unwrap()).collect();
    for (at, (kind, _, signatures)) in SIGNED.iter().enumerate() {
        for text in *signatures {
            let good = |payload: &str, text: &str, keys: &[PublicKey]| {
                let one = signature(payload, text);
                one.is_good(&held(keys), &Identity::MatchRepository, &pulled())
            };
            assert_eq!(good(PAYLOAD, text, &keys[at..=at]), Ok(()), "{kind}");
            assert_eq!(good(PAYLOAD, text, &keys), Ok(()), "{kind}");
            let others: Vec<_> = keys.iter().filter(|key| **key != keys[at]).cloned().collect();
            let err = good(PAYLOAD, text, &others).unwrap_err();
            assert!(err.contains("no trusted key"), "{kind}: {err}");
            for tampered in [PAYLOAD.replace("r.io", "s.io"), format!("{PAYLOAD} ")] {
                assert!(good(&tampered, text, &keys).unwrap_err().contains("no trusted key"));
            }
            let mut bytes = STANDARD.decode(text).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(good(PAYLOAD, &STANDARD.encode(&bytes), &keys).is_err());
            assert!(good(PAYLOAD, "no base64!", &keys).is_err());
            assert!(good(PAYLOAD, "", &keys).is_err());
        }
    }
}

#[test]
fn a_signature_is_for_one_digest_and_one_name() {
    let (_, pem, signatures) = SIGNED[0];
    let keys = held(&[key(pem).unwrap()]);
    let good = signature(PAYLOAD, signatures[0]);
    let moved = Signature { of: Digest::sha256(b"another"), ..good.clone() };
    let err = moved.is_good(&keys, &Identity::MatchRepository, &pulled()).unwrap_err();
    assert_eq!(err, format!("it is for {}", empty()));
    let err = good.is_good(&keys, &Identity::MatchExact, &pulled()).unwrap_err();
    assert_eq!(err, "it is for \"r.io/a/b\"");
    let other = Reference::parse("r.io/a/c:1").unwrap();
    assert!(good.is_good(&keys, &Identity::MatchRepository, &other).is_err());
}

#[test]
fn what_is_no_key_is_told() {
    for (pem, told) in [
        (P521, "neither an ECDSA key"),
        ("", "0 PUBLIC KEY sections"),
        ("-----BEGIN PUBLIC KEY-----\nnot base64\n-----END PUBLIC KEY-----\n", "not PEM"),
        (&format!("{}{}", SIGNED[0].1, SIGNED[1].1), "2 PUBLIC KEY sections"),
        ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "neither an ECDSA key"),
    ] {
        let err = key(pem).unwrap_err();
        assert!(err.contains(told), "{err}");
    }
    let missing = key::Source::File("/nowhere/cosign.pub".into());
    let missing = missing.read(PublicKey::parse).unwrap_err();
    assert!(missing.starts_with("/nowhere/cosign.pub: "), "{missing}");
}

#[test]
fn a_policy_takes_one_good_signature_and_all_of_its_requirements() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.json");
    for (at, (_, pem, _)) in SIGNED.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{at}.pub")), pem).unwrap();
    }
    let file = |at: usize| dir.path().join(format!("{at}.pub")).display().to_string();
    let by = |keys: &str| {
        format!(
            r#"{{"type":"sigstoreSigned",{keys},"signedIdentity":{{"type":"matchRepository"}}}}"#
        )
    };
    let judged = |requirements: &str, signatures: &[Signature]| {
        std::fs::write(&path, format!(r#"{{"default": [{requirements}]}}"#)).unwrap();
        let wanted = wants_signatures(&path, &pulled()).unwrap();
        (wanted, judge(&path, &pulled(), signatures))
    };
    let good = |at: usize| signature(PAYLOAD, SIGNED[at].2[0]);
    let one = by(&format!(r#""keyPath":"{}""#, file(0)));
    let data = by(&format!(r#""keyData":"{}""#, STANDARD.encode(SIGNED[1].1)));
    let two = by(&format!(r#""keyPaths":["{}","{}"]"#, file(0), file(1)));
    let bad = signature(&PAYLOAD.replace("r.io", "s.io"), SIGNED[0].2[0]);

    assert_eq!(judged(r#"{"type":"insecureAcceptAnything"}"#, &[]), (false, Ok(())));
    assert_eq!(judged(&one, &[good(0)]), (true, Ok(())));
    assert_eq!(judged(&one, &[bad.clone(), good(1), good(0)]).1, Ok(()));
    assert_eq!(judged(&two, &[good(1)]).1, Ok(()));
    assert_eq!(judged(&data, &[good(1)]).1, Ok(()));
    let both = format!("{one},{data}");
    assert_eq!(judged(&both, &[good(0), good(1)]).1, Ok(()));
    for (requirements, signatures, wanted, told) in [
        (r#"{"type":"reject"}"#.to_owned(), vec![good(0)], false, "(default): it is rejected"),
        (one.clone(), vec![], true, "a signature is required and none is known"),
        (one.clone(), vec![good(1), bad], true, "none of 2 is good: no trusted key made it; "),
        (both, vec![good(0)], true, "none of 1 is good"),
        (format!(r#"{one},{{"type":"reject"}}"#), vec![good(0)], false, "rejected"),
        (r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#.into(), vec![], false, "GPG"),
        (
            format!(
                r#"{one},{{"type":"signedBaseLayer","baseLayerIdentity":{{"type":"matchExact"}}}}"#
            ),
            vec![good(0)],
            false,
            "signedBaseLayer cannot be verified here",
        ),
        (by(r#""keyPath":"/nowhere/k""#), vec![good(0)], true, "/nowhere/k: No such file"),
    ] {
        let (asks, result) = judged(&requirements, &signatures);
        let err = result.unwrap_err();
        assert!(err.contains(told) && err.contains("policy.json"), "{requirements}: {err}");
        assert_eq!(asks, wanted, "{requirements}");
    }
}
