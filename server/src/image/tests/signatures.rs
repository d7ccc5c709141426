//! Where the signatures of an image are found.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use super::fake::OCI_MANIFEST;
use super::*;

const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A node that wants images signed with a key.
fn strict(key: &KeyPair) -> Node {
    let root = tempfile::tempdir().unwrap();
    let policy = json!({"default": [{
        "type": "sigstoreSigned", "keyData": STANDARD.encode(key.public_key_pem()),
    }]});
    std::fs::write(root.path().join("policy.json"), policy.to_string()).unwrap();
    let records = root.path().join("images/records");
    let store = Store::open(&root.path().join("images.redb"), &records, &[RECORDS]).unwrap();
    Node::on(root, store, limits())
}

/// Puts the manifest of a signature of `manifest` under `name` into the registry.
fn sign(fake: &Fake, key: &KeyPair, name: &str, manifest: &Digest, tag: Option<&str>) -> Digest {
    let payload = json!({"critical": {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": manifest.as_str()},
        "type": "cosign container image signature",
    }, "optional": null})
    .to_string();
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
    let digest = fake.blob(payload.as_bytes());
    let layer = json!({
        "mediaType": PAYLOAD, "digest": digest.as_str(), "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    });
    let config = fake.blob(b"{}");
    let text = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": ARTIFACT,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config.as_str(), "size": 2},
        "layers": [layer], "subject": {"mediaType": OCI_MANIFEST, "digest": manifest.as_str(), "size": 1},
    });
    fake.document(tag, OCI_MANIFEST, &text.to_string())
}

fn refers(to: &Digest, kind: &str) -> Value {
    json!({"mediaType": OCI_MANIFEST, "digest": to.as_str(), "size": 1, "artifactType": kind})
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_found_by_tag_and_among_what_refers_to_the_image() {
    let key = KeyPair::generate().unwrap();
    let node = strict(&key);
    let fake = Fake::start(&node.tasks).await;
    let name = fake.name("demo:v1");
    let (id, manifest) = fake.image("v1", &[layer("a", b"content")], "{}");
    assert!(node.fails(&name).await.contains("a signature is required and none is known"));
    assert_eq!(fake.count(&format!("/referrers/{manifest}")), 1);

    // Something else refers to it, then a signature of somebody else, then the right one.
    let stranger = KeyPair::generate().unwrap();
    let by = |key: &KeyPair| sign(&fake, key, &name, &manifest, None);
    let (wrong, right) = (by(&stranger), by(&key));
    for (all, told) in [
        (vec![refers(&right, "application/spdx+json")], Some("none is known")),
        (vec![refers(&wrong, ARTIFACT)], Some("no trusted key made it")),
        (vec![refers(&wrong, ARTIFACT), refers(&right, ARTIFACT)], None),
    ] {
        let index = json!({"schemaVersion": 2, "manifests": all}).to_string().into_bytes();
        fake.script(&format!("/referrers/{manifest}"), Script::Instead(index));
        match told {
            Some(told) => assert!(node.fails(&name).await.contains(told)),
            None => assert_eq!(node.pull(&name).await.unwrap(), id),
        }
    }

    let (second, manifest) = fake.image("v2", &[layer("b", b"more")], "{}");
    let tag = format!("{}.sig", manifest.as_str().replace(':', "-"));
    sign(&fake, &key, &fake.name("demo:v2"), &manifest, Some(&tag));
    assert_eq!(node.pull(&fake.name("demo:v2")).await.unwrap(), second);
    assert_eq!(fake.count(&format!("/referrers/{manifest}")), 0, "the tag is enough");
    node.is_clean().await;
}
