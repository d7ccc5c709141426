//! What an image is called, and what becomes of it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_found_by_every_name_and_survives_a_restart() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let layers = [layer("a", b"one"), (tar(&[("b", b"two")]), tar(&[("b", b"two")]))];
    let config = r#"{"Env":["A=1"],"Cmd":["sh"],"User":"1000:0"}"#;
    let (id, manifest) = fake.image("v1", &layers, config);
    let name = fake.name("demo");
    assert_eq!(node.pull(&format!("{name}:v1")).await.unwrap(), id);

    let image = node.images.resolve(&format!("{name}:v1")).unwrap();
    assert_eq!(image.tags, [format!("{name}:v1")]);
    assert_eq!(image.digests, [format!("{name}@{manifest}")]);
    assert_eq!(image.config.env, ["A=1"]);
    assert_eq!(image.config.image_user(), Some(ImageUser::Uid(1000)));
    assert_eq!(image.layers().len(), 2);
    assert!(image.size > layers.iter().map(|(blob, _)| blob.len() as u64).sum());
    assert!(node.images.usage().bytes > 0);
    let raw = node.images.raw_config(&image).unwrap();
    assert_eq!(raw.pointer("/config/Cmd/0").unwrap(), "sh");
    let by = |text: &str| node.images.resolve(text).map(|image| image.id.clone());
    for text in
        [&format!("{name}@{manifest}"), id.as_str(), id.hex(), &id.hex()[..12], &id.as_str()[..20]]
    {
        assert_eq!(by(text), Some(id.clone()), "{text}");
    }
    for text in [&format!("{name}:v2"), "", "sha256:", &"0".repeat(64), name.as_str()] {
        assert_eq!(by(text), None, "{text}");
    }

    let usage = node.images.usage();
    drop(image);
    let node = node.restart();
    assert_eq!(node.images.list().len(), 1);
    assert_eq!(node.images.usage(), usage);
    assert_eq!(node.images.resolve(&format!("{name}:v1")).unwrap().id, id);
    let before = fake.count("/blobs/");
    node.is_clean().await;
    node.pull(&format!("{name}:v1")).await.unwrap();
    assert_eq!(fake.count("/blobs/"), before, "what is here is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_digests_follow_the_contract() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let other = Fake::start(&node.tasks).await;
    let (old, old_manifest) = fake.image("v1", &[layer("a", b"old")], "{}");
    let name = fake.name("demo");
    let names = |id: &Digest| {
        let image = node.images.resolve(id.as_str()).unwrap();
        (image.tags.clone(), image.digests.clone())
    };

    // By digest: no tag, exactly that digest; with a tag as well the digest wins.
    node.pull(&format!("{name}@{old_manifest}")).await.unwrap();
    node.pull(&format!("{name}:other@{old_manifest}")).await.unwrap();
    assert_eq!(names(&old), (vec![], vec![format!("{name}@{old_manifest}")]));

    // The same image elsewhere is the same entry.
    node.pull(&format!("{name}:v1")).await.unwrap();
    other.image("x", &[layer("a", b"old")], "{}");
    assert_eq!(node.pull(&other.name("copy:x")).await.unwrap(), old);
    assert_eq!(names(&old).0, [format!("{name}:v1"), other.name("copy:x")]);
    assert_eq!(names(&old).1.len(), 2);

    // A tag that moves leaves the old image with its digests.
    let (new, _) = fake.image("v1", &[layer("a", b"new")], "{}");
    assert_eq!(node.pull(&format!("{name}:v1")).await.unwrap(), new);
    assert_eq!(names(&old).0, [other.name("copy:x")]);
    assert_eq!(names(&old).1.len(), 2);
    assert_eq!(node.images.list().len(), 2);
    assert_eq!(node.images.resolve(&format!("{name}:v1")).unwrap().id, new);

    // One name removes all of them; again is fine; five at once are fine.
    let by_digest = format!("{name}@{old_manifest}");
    let removals = (0..5).map(|_| node.images.remove(&by_digest));
    futures_util::future::try_join_all(removals).await.unwrap();
    assert!(node.images.resolve(&other.name("copy:x")).is_none());
    assert_eq!(node.images.list().len(), 1);
    node.images.remove(new.hex()).await.unwrap();
    node.images.remove("nothing/like:that").await.unwrap();
    assert_eq!((node.images.list().len(), node.images.usage().bytes), (0, 0));
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_a_container_holds_outlive_their_image() {
    let node = Node::new();
    node.images.start_collecting();
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", &[layer("a", b"held")], "{}");
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let image = node.images.resolve(&fake.name("demo:v1")).unwrap();
    let layers = image.layers().to_vec();
    node.images.hold("container", &layers).unwrap();
    drop(image);
    node.images.remove(&fake.name("demo:v1")).await.unwrap();
    assert!(node.images.list().is_empty());
    assert!(node.images.usage().bytes > 0);
    assert!(node.images.hold("other", &layers).is_ok(), "the layer is still here");
    node.images.unhold("other");
    node.images.unhold("container");
    node.images.unhold("container");
    node.is_clean().await;
    assert!(node.images.hold("late", &layers).is_err());

    // A snapshot that is removed only after its container let go: the next removal sees to the layer.
    let snapshotter = node.images.0.layers.snapshotter();
    fake.image("v2", &[layer("b", b"next")], "{}");
    for name in [fake.name("demo:v1"), fake.name("demo:v2")] {
        node.pull(&name).await.unwrap();
    }
    snapshotter.prepare("key", &layers).unwrap();
    node.images.remove(&fake.name("demo:v1")).await.unwrap();
    let queued = || node.images.0.layers.idle_with(1);
    wait(queued).await;
    snapshotter.remove("key").unwrap();
    node.images.remove(&fake.name("demo:v2")).await.unwrap();
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_this_machine_and_its_digest_names_the_image() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let (id, manifest) = fake.image("plain", &[layer("a", b"x")], "{}");
    let entry = |arch: &str| {
        let digest = fake::descriptor(fake::OCI_MANIFEST, &manifest, 500);
        digest.replacen(
            '{',
            &format!(r#"{{"platform":{{"os":"linux","architecture":"{arch}"}},"#),
            1,
        )
    };
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = |archs: &[&str]| {
        let entries: Vec<_> = archs.iter().map(|arch| entry(arch)).collect();
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
    };
    let digest = fake.document(Some("multi"), fake::OCI_INDEX, &index(&["s390x", arch]));
    let nested = fake::descriptor(fake::OCI_INDEX, &digest, 500);
    fake.document(
        Some("nested"),
        fake::OCI_INDEX,
        &format!(r#"{{"schemaVersion":2,"manifests":[{nested}]}}"#),
    );
    fake.document(Some("foreign"), fake::OCI_INDEX, &index(&["s390x", "riscv64"]));

    assert_eq!(node.pull(&fake.name("demo:multi")).await.unwrap(), id);
    let image = node.images.resolve(id.as_str()).unwrap();
    assert_eq!(image.digests, [format!("{}@{digest}", fake.name("demo"))]);
    assert_eq!(node.pull(&fake.name("demo:nested")).await.unwrap(), id);
    let err = node.fails(&fake.name("demo:foreign")).await;
    assert!(err.contains("linux/s390x, linux/riscv64"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_share_their_work_and_outlive_each_other() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let big = layer("a", &[7; 300_000]);
    let (id, _) = fake.image("v1", &[big.clone(), layer("b", b"y")], "{}");
    fake.image("v2", &[big.clone(), layer("c", b"z")], "{}");
    let pull = |tag: &str| {
        node.images.pull(&fake.name(&format!("demo:{tag}")), Credentials::default()).unwrap()
    };
    let (first, second, third) = (pull("v1"), pull("v1"), pull("v2"));
    assert_eq!(node.images.pulls().len(), 2);
    drop(first);
    let (second, third) = tokio::join!(second, third);
    assert_eq!(second.unwrap(), id);
    third.unwrap();
    assert_eq!(fake.count(Digest::sha256(&big.0).as_str()), 1, "the common layer came once");
    assert_eq!(fake.count("/manifests/v1"), 1);
    assert!(node.images.pulls().is_empty());
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_when_nobody_waits_for_it() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let (id, _) = fake.image("v1", &[layer("a", &[7; 300_000]), layer("b", b"y")], "{}");
    drop(node.images.pull(&fake.name("demo:v1"), Credentials::default()).unwrap());
    wait(|| !node.images.list().is_empty() && node.images.pulls().is_empty()).await;
    assert_eq!(node.pull(&fake.name("demo:v1")).await.unwrap(), id);
    assert_eq!(fake.count(Digest::sha256(&layer("b", b"y").0).as_str()), 1);
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_of_a_caller_that_gave_up_joins() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let stuck = layer("a", b"never");
    fake.image("v1", std::slice::from_ref(&stuck), "{}");
    fake.script(Digest::sha256(&stuck.0).as_str(), Script::Hang);
    for _ in 0..2 {
        let pull = node.images.pull(&fake.name("demo:v1"), Credentials::default()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(300), pull).await.is_err());
        assert_eq!(node.images.pulls().len(), 1);
    }
    wait(|| fake.count("/manifests/v1") > 0).await;
    assert_eq!(fake.count("/manifests/v1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_try_finds_what_a_failed_one_brought() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    // As many as are under way at a time: the last one begins only when one of them is here.
    let fine = [layer("a", b"1"), layer("b", b"2"), layer("c", b"3")];
    let bad = layer("d", b"refused once");
    let all: Vec<_> = fine.iter().cloned().chain([bad.clone()]).collect();
    fake.image("v1", &all, "{}");
    fake.script(Digest::sha256(&bad.0).as_str(), Script::Status(404));
    node.fails(&fake.name("demo:v1")).await;
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let came: usize = fine.iter().map(|one| fake.count(Digest::sha256(&one.0).as_str())).sum();
    assert!(came < 6, "{came}");
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_layer_is_fetched_again_alone() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", &[layer("a", b"first"), layer("b", b"second")], "{}");
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let image = node.images.resolve(&fake.name("demo:v1")).unwrap();
    let snapshotter = node.images.0.layers.snapshotter();
    let damaged = image.layers()[1].clone();
    let file = |layer: &LayerId, name: &str| {
        node.root.path().join("snapshots/layers").join(layer.hex()).join("fs/dir").join(name)
    };
    std::fs::write(file(&damaged, "b"), "rotten").unwrap();
    assert!(!snapshotter.verify(&damaged).unwrap().is_empty());

    // What a container stands on is left.
    snapshotter.prepare("container", image.layers()).unwrap();
    let err = node.images.repair(&damaged).await.unwrap_err().to_string();
    assert!(err.contains("container"), "{err}");
    assert_eq!(std::fs::read(file(&damaged, "b")).unwrap(), b"rotten");
    snapshotter.remove("container").unwrap();

    let before = fake.count("/blobs/");
    node.images.repair(&damaged).await.unwrap();
    assert_eq!(fake.count("/blobs/"), before + 1);
    assert_eq!(std::fs::read(file(&damaged, "b")).unwrap(), b"second");
    assert!(image.layers().iter().all(|layer| snapshotter.verify(layer).unwrap().is_empty()));
    node.is_clean().await;

    // A registry that has something else by now repairs nothing, and damages nothing.
    std::fs::write(file(&damaged, "b"), "rotten").unwrap();
    let blob = layer("b", b"second").0;
    fake.always(Digest::sha256(&blob).as_str(), Script::Instead(vec![0; blob.len()]));
    assert!(node.images.repair(&damaged).await.is_err());
    assert!(file(&damaged, "b").exists());
    let nobody = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    assert!(matches!(node.images.repair(&nobody).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_layer_is_gone_is_not_listed_and_the_next_pull_brings_it_back() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let layers = [layer("a", b"first"), layer("b", b"second")];
    fake.image("v1", &layers, "{}");
    let asked = || layers.each_ref().map(|(blob, _)| fake.count(Digest::sha256(blob).as_str()));
    let name = fake.name("demo:v1");
    node.pull(&name).await.unwrap();
    assert_eq!(asked(), [1, 1]);
    let gone = node.images.resolve(&name).unwrap().layers()[0].clone();
    let dir = node.root.path().join("snapshots/layers").join(gone.hex());
    std::fs::remove_dir_all(&dir).unwrap();
    let node = node.restart();
    assert!(node.images.resolve(&name).is_none());
    // What is left of it waits for the pull.
    node.images.start_collecting();
    wait(|| node.images.0.layers.idle_with(0)).await;
    node.pull(&name).await.unwrap();
    assert_eq!(asked(), [2, 1], "the other layer is still here");
    assert!(dir.join("fs/dir/a").exists());
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_told_and_a_removal_is_obeyed_all_the_same() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", &[layer("a", b"x")], "{}");
    for (name, pinned) in [("other:v1", false), ("pinned:v1", true)] {
        node.pull(&fake.name(name)).await.unwrap();
        let image = node.images.resolve(&fake.name(name)).unwrap();
        assert_eq!(node.images.is_pinned(&image), pinned, "{name}");
    }
    node.images.remove(&fake.name("pinned:v1")).await.unwrap();
    assert!(node.images.list().is_empty());
}
