//! Networks and registries that fail half-way: what is tried again, where, how often and how long.

use std::time::Instant;

use super::*;

/// A registry `example.invalid` that only these serve, the last as its server.
fn mirrors(node: &Node, fakes: &[&Fake]) {
    let url = |fake: &Fake| format!("http://{}", fake.address);
    let (server, mirrors) = fakes.split_last().unwrap();
    let mirrors: String =
        mirrors.iter().map(|fake| format!("[host.\"{}\"]\n", url(fake))).collect();
    node.hosts("example.invalid", &format!("server = \"{}\"\n{mirrors}", url(server)));
}

const NAME: &str = "example.invalid/demo:v1";

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_registry_is_left_alone_and_asked_again() {
    let node = Node::with(Limits { longest_retry_after: Duration::from_millis(50), ..limits() });
    let fake = Fake::start(&node.tasks).await;
    let blob = layer("a", b"x");
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    let busy = || Script::Answer(429, vec![("Retry-After", "3600".into())]);
    let date = "Fri, 31 Dec 2100 23:59:59 GMT";
    fake.script("/manifests/v1", busy());
    fake.script("/manifests/v1", Script::Answer(503, vec![("Retry-After", date.into())]));
    fake.script(Digest::sha256(&blob.0).as_str(), Script::Status(500));
    let started = Instant::now();
    node.pull(&fake.name("demo:v1")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(100), "it was not left alone");
    assert_eq!(fake.count("/manifests/v1"), 3);

    fake.always("/manifests/v2", busy());
    let err = node.fails(&fake.name("demo:v2")).await;
    assert!(err.starts_with("RegistryUnavailable: ") && err.contains("429"), "{err}");
    assert!(err.contains("left alone for 3600 s"), "{err}");
    assert_eq!(fake.count("/manifests/v2"), limits().rounds as usize);
    // Asked for once: what is refused for good is not asked again.
    fake.always("/manifests/v3", Script::Status(403));
    node.fails(&fake.name("demo:v3")).await;
    assert_eq!(fake.count("/manifests/v3"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_is_a_broken_connection() {
    let short = Duration::from_millis(300);
    let node = Node::with(Limits { stall: short, answer: short, ..limits() });
    let fake = Fake::start(&node.tasks).await;
    let blob = layer("a", &noise(200));
    let digest = Digest::sha256(&blob.0);
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script("/manifests/v1", Script::Hang);
    fake.script(digest.as_str(), Script::Drip);
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let ranges = fake.ranges();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert_ne!(ranges[0], "bytes=0-", "what had come is not fetched again");

    let node = Node::with(Limits { stall: short, setbacks: 2, ..limits() });
    let asked = fake.count(digest.as_str());
    fake.always(digest.as_str(), Script::Drip);
    let err = node.fails(&fake.name("demo:v1")).await;
    assert!(err.starts_with("RegistryUnavailable: ") && err.contains("bytes came in"), "{err}");
    // A trickle counts double.
    assert_eq!(fake.count(digest.as_str()), asked + 2);
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_without_ranges_or_with_wrong_ones() {
    let blob = layer("a", &noise(6_000));
    let digest = Digest::sha256(&blob.0);
    let total = blob.0.len();
    let wrong: [&'static str; 4] = [
        "bytes 0-99/100",
        "bytes 60000-60001/99999999",
        "nonsense",
        Box::leak(format!("bytes 49999-{}/{total}", total - 1).into_boxed_str()),
    ];
    let mut scripts = vec![Script::NoRange, Script::Answer(416, Vec::new())];
    scripts.extend(wrong.map(Script::WrongRange));
    for script in scripts {
        let node = Node::new();
        let fake = Fake::start(&node.tasks).await;
        fake.image("v1", std::slice::from_ref(&blob), "{}");
        fake.script(digest.as_str(), Script::CutAt(50_000));
        fake.script(digest.as_str(), script.clone());
        node.pull(&fake.name("demo:v1")).await.unwrap_or_else(|err| panic!("{script:?}: {err}"));
        assert_eq!(fake.ranges(), ["bytes=50000-"], "{script:?}");
    }
    // A length that is not the blob's.
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    for length in [total + 7, total - 7] {
        fake.script(digest.as_str(), Script::Length(length));
        let err = node.fails(&fake.name("demo:v1")).await;
        assert!(err.contains(&format!("has {length} bytes, the manifest says {total}")), "{err}");
    }
    // A manifest that ends early, then a whole one.
    fake.script("/manifests/v1", Script::CutAt(20));
    node.pull(&fake.name("demo:v1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_mirror_goes_on_where_one_broke_off() {
    let node = Node::new();
    let (first, second) = (Fake::start(&node.tasks).await, Fake::start(&node.tasks).await);
    let blob = layer("a", &noise(6_000));
    let digest = Digest::sha256(&blob.0);
    for fake in [&first, &second] {
        fake.image("v1", std::slice::from_ref(&blob), "{}");
    }
    first.always(digest.as_str(), Script::CutAt(50_000));
    mirrors(&node, &[&first, &second]);
    node.pull(NAME).await.unwrap();
    assert_eq!(first.count(digest.as_str()), 1);
    assert_eq!(second.ranges(), ["bytes=50000-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_is_not_asked_for_that_again() {
    let node = Node::new();
    let (first, second) = (Fake::start(&node.tasks).await, Fake::start(&node.tasks).await);
    let blob = layer("a", &noise(100));
    let digest = Digest::sha256(&blob.0);
    let (id, manifest) = second.image("v1", std::slice::from_ref(&blob), "{}");
    first.image("v1", std::slice::from_ref(&blob), "{}");
    let mut flipped = blob.0.clone();
    *flipped.last_mut().unwrap() ^= 1;
    first.always(digest.as_str(), Script::Instead(flipped));
    first.always(id.as_str(), Script::Instead(b"{}".to_vec()));
    first.always(manifest.as_str(), Script::Instead(b"{}".to_vec()));
    mirrors(&node, &[&first, &second]);
    assert_eq!(node.pull(NAME).await.unwrap(), id);
    assert_eq!(first.count(digest.as_str()), 1);
    let by_digest = format!("example.invalid/demo@{manifest}");
    assert_eq!(node.pull(&by_digest).await.unwrap(), id);
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_tells_what_every_endpoint_said() {
    let node = Node::new();
    let (busy, empty) = (Fake::start(&node.tasks).await, Fake::start(&node.tasks).await);
    busy.always("/manifests/v1", Script::Status(502));
    mirrors(&node, &[&busy, &empty]);
    let err = node.fails(NAME).await;
    let told = format!("{} answers 502 Bad Gateway", busy.address);
    assert!(err.contains(&told) && err.ends_with(": not found"), "{err}");
    mirrors(&node, &[&empty, &busy]);
    let err = node.fails(NAME).await;
    let missing = format!("{} does not have it", empty.address);
    assert!(err.starts_with("RegistryUnavailable: ") && err.contains(&missing), "{err}");
    node.hosts("example.invalid", "server = \"http://127.0.0.1:1\"\ncapabilities = [\"pull\"]\n");
    let err = node.fails(NAME).await;
    assert!(err.contains("no endpoint configured for example.invalid"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connection_gets_others_beside_it() {
    let segment = 64 << 10;
    let quick = Duration::from_millis(50);
    let parallel = Limits { segment, watched: quick, ..limits() };
    let blob = layer("a", &noise(60_000));
    let digest = Digest::sha256(&blob.0);
    assert!(blob.0.len() as u64 > 10 * segment);
    // The first connection comes to a stop until others are opened beside it.
    let slow = Script::WaitFor { at: 100_000, others: 2 };
    let node = Node::with(parallel.clone());
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script(digest.as_str(), slow.clone());
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let ranges = fake.ranges();
    let parts: std::collections::BTreeSet<_> = ranges.iter().collect();
    assert!(parts.len() > 5 && parts.len() == ranges.len(), "each part once: {ranges:?}");

    // The same of a registry that has no ranges: one connection brings all after all.
    let node = Node::with(parallel.clone());
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script(digest.as_str(), Script::WaitFor { at: 100_000, others: 1 });
    fake.always(digest.as_str(), Script::NoRange);
    node.pull(&fake.name("demo:v1")).await.unwrap();

    // Parts that break off are resumed, too.
    let node = Node::with(parallel.clone());
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script(digest.as_str(), slow.clone());
    for _ in 0..3 {
        fake.script(digest.as_str(), Script::CutAt(1_000));
    }
    node.pull(&fake.name("demo:v1")).await.unwrap();

    // And of parts that cannot be had at all, the rest still comes.
    let node = Node::with(Limits { setbacks: 1, rounds: 1, ..parallel.clone() });
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.script(digest.as_str(), Script::WaitFor { at: 100_000, others: 1 });
    fake.script(digest.as_str(), Script::Status(500));
    node.pull(&fake.name("demo:v1")).await.unwrap();

    // Without memory for parts there are none.
    let node = Node::with(Limits { ahead_in_all: 0, ..parallel });
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    node.pull(&fake.name("demo:v1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_no_more_requests_at_once_than_its_share() {
    let node = Node::with(Limits { per_host: 2, ..limits() });
    let fake = Fake::start(&node.tasks).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    let layers: Vec<_> = names.iter().map(|name| layer(name, &noise(3_000))).collect();
    fake.image("v1", &layers, "{}");
    node.pull(&fake.name("demo:v1")).await.unwrap();
    assert!(fake.busiest() <= 2, "{} at once", fake.busiest());
}
