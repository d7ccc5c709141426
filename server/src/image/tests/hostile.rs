//! Registries that refuse, redirect, break off and lie.

use super::*;
use crate::image::error::Error;

#[tokio::test(flavor = "multi_thread")]
async fn bearer_and_basic_logins() {
    let node = Node::new();
    let bearer = Fake::start(&node.tasks).await;
    let basic = Fake::start(&node.tasks).await;
    for fake in [&bearer, &basic] {
        fake.image("v1", &[layer("a", b"secret")], "{}");
    }
    bearer.auth(Auth::Bearer { password: "right" });
    basic.auth(Auth::Basic { password: "right" });
    for fake in [&bearer, &basic] {
        let name = fake.name("demo:v1");
        let err = node.fails(&name).await;
        assert!(err.contains("401"), "{err}");
        let err = node.pull_as(&name, password("wrong")).await.unwrap_err();
        assert!(matches!(*err, Error::Refused(_)) && !err.to_string().contains("wrong"), "{err}");
        node.pull_as(&name, password("right")).await.unwrap();
    }
    let identity = AuthFields { identity_token: "right", ..AuthFields::default() };
    let identity = Credentials::from_auth(&identity).unwrap();
    node.pull_as(&bearer.name("demo:v1"), identity).await.unwrap();
    let token = AuthFields { registry_token: "sold0", ..AuthFields::default() };
    let token = Credentials::from_auth(&token).unwrap();
    node.pull_as(&bearer.name("demo:v1"), token).await.unwrap();
    // No pull rides on another's login.
    let err = node.fails(&bearer.name("demo:v1")).await;
    assert!(err.contains("401"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_never_follow_a_redirect() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let elsewhere = Fake::start(&node.tasks).await;
    let blob = layer("a", b"x");
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.auth(Auth::Basic { password: "right" });
    let digest = elsewhere.blob(&blob.0);
    let target = format!("http://{}/v2/any/blobs/{digest}?signed=1", elsewhere.address);
    fake.script(digest.as_str(), Script::Redirect(target));
    node.pull_as(&fake.name("demo:v1"), password("right")).await.unwrap();
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, None);

    let fake = Fake::start(&node.tasks).await;
    for _ in 0..20 {
        fake.script("/manifests/loop", Script::Redirect("/v2/demo/manifests/loop".into()));
    }
    let err = node.fails(&fake.name("demo:loop")).await;
    assert!(err.contains("too often"), "{err}");
    fake.script("/manifests/odd", Script::Redirect("file:///etc/passwd".into()));
    let err = node.fails(&fake.name("demo:odd")).await;
    assert!(err.contains("redirects to nowhere"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_resumed_and_a_short_blob_refused() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let blob = layer("a", &noise(6_000));
    let digest = Digest::sha256(&blob.0);
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script(digest.as_str(), Script::CutAt(50_000));
    fake.script(digest.as_str(), Script::CutAt(0));
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let ranges: Vec<_> = fake.seen().into_iter().filter_map(|seen| seen.range).collect();
    assert_eq!(ranges, ["bytes=50000-", "bytes=50000-"]);
    node.images.remove(&fake.name("demo:v1")).await.unwrap();
    node.is_clean().await;

    for _ in 0..6 {
        fake.script(digest.as_str(), Script::CutAt(10));
    }
    let node = Node::new();
    let err = node.fails(&fake.name("demo:v1")).await;
    let told = "again and again, last after 60 of";
    assert!(err.starts_with("RegistryUnavailable: blob ") && err.contains(told), "{err}");
    fake.script(digest.as_str(), Script::Instead(blob.0[..1000].to_vec()));
    let err = node.fails(&fake.name("demo:v1")).await;
    assert!(err.contains("has 1000 bytes, the manifest says"), "{err}");
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_promised_is_refused() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let good = layer("a", b"content");
    let (_, manifest) = fake.image("v1", std::slice::from_ref(&good), "{}");
    let digest = Digest::sha256(&good.0);

    let mut flipped = good.0.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for body in [flipped, vec![b'x'; good.0.len()], gzip(&vec![9; good.0.len()])] {
        if body.len() == good.0.len() {
            fake.script(digest.as_str(), Script::Instead(body));
            let err = node.fails(&fake.name("demo:v1")).await;
            assert!(err.contains("the registry sent sha256:"), "{err}");
        }
    }
    fake.script(manifest.as_str(), Script::Instead(b"{}".to_vec()));
    let err = node.fails(&format!("{}@{manifest}", fake.name("demo"))).await;
    assert!(err.contains("sent something else: its digest differs"), "{err}");

    // The blob is the one of the manifest, but not what the config says.
    fake.image("lies", &[(good.0.clone(), b"something else".to_vec())], "{}");
    let err = node.fails(&fake.name("demo:lies")).await;
    assert!(err.contains("the image config says"), "{err}");

    for (tag, content) in [
        ("gzip", b"\x1f\x8b\x08\x00broken deflate".to_vec()),
        ("zstd", b"\x28\xb5\x2f\xfdxxxxxxxx".to_vec()),
    ] {
        fake.image(tag, &[(content, b"".to_vec())], "{}");
        let err = node.fails(&fake.name(&format!("demo:{tag}"))).await;
        assert!(err.contains("corrupt"), "{err}");
    }
    assert!(node.images.list().is_empty());
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_stopped() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let zeros = tar(&[("zeros", &vec![0; 8 << 20])]);
    let zstd = zstd::encode_all(&zeros[..], 3).unwrap();
    for (tag, blob) in [("gzip", gzip(&zeros)), ("zstd", zstd)] {
        fake.image(tag, &[(blob, zeros.clone())], "{}");
        let err = node.fails(&fake.name(&format!("demo:{tag}"))).await;
        assert!(err.contains("inflates to more than 1048576 bytes"), "{err}");
    }
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_images_and_dead_registries_are_told_apart() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let name = fake.name("demo:none");
    let err = node.pull(&name).await.unwrap_err();
    assert_eq!(err.to_string(), format!("{name}: not found"));
    fake.always("/manifests/none", Script::Status(503));
    let err = node.fails(&name).await;
    assert!(err.starts_with("RegistryUnavailable: ") && err.contains("503"), "{err}");
    let err = node.fails("127.0.0.1:1/demo:v1").await;
    assert!(err.starts_with("RegistryUnavailable: ") && err.contains("refused"), "{err}");
    assert!(node.images.pull("lower/UPPER", Credentials::default()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_told_whom_they_stand_for() {
    let node = Node::new();
    let empty = Fake::start(&node.tasks).await;
    let full = Fake::start(&node.tasks).await;
    let (id, _) = full.image("v1", &[layer("a", b"m")], "{}");
    let dir = node.root.path().join("certs.d/example.invalid");
    std::fs::create_dir_all(&dir).unwrap();
    let hosts = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n[host.\"http://{}\"]\n",
        empty.address, full.address
    );
    std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    assert_eq!(node.pull("example.invalid/demo:v1").await.unwrap(), id);
    assert_eq!(empty.seen()[0].path, "/v2/demo/manifests/v1?ns=example.invalid");
    assert_eq!(node.images.list()[0].tags, ["example.invalid/demo:v1"]);
    std::fs::write(dir.join("hosts.toml"), "server = 7").unwrap();
    let err = node.fails("example.invalid/demo:v1").await;
    assert!(err.contains("hosts.toml"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_all_kinds_of_compression_and_digest() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let tars = [tar(&[("g", b"1")]), tar(&[("z", b"2")]), tar(&[("p", b"3")])];
    let layers = [
        (gzip(&tars[0]), tars[0].clone()),
        (zstd::encode_all(&tars[1][..], 3).unwrap(), tars[1].clone()),
        (tars[2].clone(), tars[2].clone()),
    ];
    fake.image("v1", &layers, "{}");
    node.pull(&fake.name("demo:v1")).await.unwrap();
    // The same content compressed otherwise is the same layer; one that occurs twice is mounted once.
    let twice = [layers[1].clone(), layers[0].clone(), (tars[1].clone(), tars[1].clone())];
    fake.image("v2", &twice, "{}");
    node.pull(&fake.name("demo:v2")).await.unwrap();
    let image = node.images.resolve(&fake.name("demo:v2")).unwrap();
    assert_eq!(image.layers().len(), 2);
    fake.image("none", &[], "{}");
    node.pull(&fake.name("demo:none")).await.unwrap();
    let image = node.images.resolve(&fake.name("demo:none")).unwrap();
    assert!(image.layers().is_empty() && image.chain_id.is_none() && image.size > 0);
}
