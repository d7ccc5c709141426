//! Archives in and out: the records of a pull, and nothing of what is hostile.

use bytes::Bytes;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::fake::descriptor;
use super::*;
use crate::image::{Imported, Sent, incoming};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Sends an archive as a client would.
async fn import(node: &Node, archive: &[u8], names: &[&str]) -> Result<Vec<Imported>, Error> {
    let (sender, incoming) = incoming();
    let pieces: Vec<Bytes> = archive.chunks(1000).map(Bytes::copy_from_slice).collect();
    let sending = async move {
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        sender.send(Bytes::new()).await.ok();
    };
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    tokio::join!(sending, node.images.import(incoming, &names)).1
}

/// The archive, and why its digests are others than the registry's, where they are.
async fn export(node: &Node, name: &str) -> Result<(Vec<u8>, Option<String>), Error> {
    let mut stream = node.images.export(name)?;
    let (mut bytes, mut why) = (Vec::new(), None);
    while let Some(piece) = stream.recv().await {
        match piece? {
            Sent::Data(more) => bytes.extend_from_slice(&more),
            Sent::DigestsChange(reason) => {
                assert!(bytes.is_empty(), "it is told first");
                why = Some(reason);
            }
        }
    }
    Ok((bytes, why))
}

/// A layout of one image: its files, its id and its manifest's digest.
struct Layout {
    files: Vec<(String, Vec<u8>)>,
    id: Digest,
    manifest: Digest,
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn config(tars: &[&[u8]]) -> String {
    let diffs: Vec<Digest> = tars.iter().map(|tar| Digest::sha256(tar)).collect();
    let (diffs, arch) = (serde_json::to_string(&diffs).unwrap(), platform());
    format!(
        r#"{{"os":"linux","architecture":"{arch}","config":{{"Cmd":["sh"]}},"rootfs":{{"diff_ids":{diffs}}}}}"#
    )
}

fn layout(annotations: &str) -> Layout {
    let (blob, tar) = layer("file", b"of an archive");
    let config = config(&[&tar]);
    let (id, layer) = (Digest::sha256(config.as_bytes()), Digest::sha256(&blob));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(CONFIG, &id, config.len()),
        descriptor(LAYER, &layer, blob.len())
    );
    let digest = Digest::sha256(manifest.as_bytes());
    let mut entry = descriptor(fake::OCI_MANIFEST, &digest, manifest.len());
    entry.pop();
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{entry},"annotations":{{{annotations}}}}}]}}"#);
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let files = vec![
        (path(&layer), blob),
        (path(&digest), manifest.into_bytes()),
        (path(&id), config.into_bytes()),
        ("index.json".to_owned(), index.into_bytes()),
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
    ];
    Layout { files, id, manifest: digest }
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries = files.iter().map(|(name, bytes)| entry(name, EntryType::Regular, "", bytes));
    let mut archive: Vec<u8> = entries.flatten().collect();
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// One entry of any type, without the archive's end.
fn entry(name: &str, kind: EntryType, link: &str, bytes: &[u8]) -> Vec<u8> {
    let mut entry = EntryBuilder::new_gnu();
    entry.path(name).entry_type(kind).link_name(link);
    entry.mode(0o644).unwrap().size(bytes.len() as u64).unwrap().mtime(0).unwrap();
    let mut all = entry.finish_bytes();
    all.extend_from_slice(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

const NAMED: &str = r#""io.containerd.image.name":"r.example/a/b:1""#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_had_again_is_made_of_its_files() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let twice = (tar(&[("b", b"two")]), tar(&[("b", b"two")]));
    fake.image("v1", &[layer("a", b"one"), twice.clone(), twice], r#"{"Env":["A=1"]}"#);
    let name = fake.name("demo:v1");
    let id = node.pull(&name).await.unwrap();
    drop(fake);
    let (archive, why) = export(&node, &name).await.unwrap();
    assert!(why.as_ref().is_some_and(|why| why.contains("keep_blobs")), "{why:?}");
    assert_eq!(export(&node, &name).await.unwrap(), (archive.clone(), why));

    let other = Node::new();
    let imported = import(&other, &archive, &[]).await.unwrap();
    assert_eq!(imported[0].name, name);
    assert_ne!(imported[0].id, id);
    let (was, is) = (node.images.resolve(&name).unwrap(), other.images.resolve(&name).unwrap());
    assert_eq!(was.config, is.config);
    assert_eq!(was.layers().len(), is.layers().len());
    assert_eq!(export(&other, &name).await.unwrap().0, archive, "and once more");
    other.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_back_as_the_pull_that_it_was() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let layers = [layer("a", b"one"), (tar(&[("b", b"two")]), tar(&[("b", b"two")]))];
    fake.image("v1", &layers, r#"{"Env":["A=1"]}"#);
    let name = fake.name("demo:v1");
    node.pull(&name).await.unwrap();
    let (archive, changes) = export(&node, &name).await.unwrap();
    assert_eq!(changes, None);
    assert_eq!(export(&node, &name).await.unwrap().0, archive, "the same each time");

    for archive in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        let other = Node::new();
        let imported = import(&other, &archive, &[]).await.unwrap();
        let (was, is) = (node.images.resolve(&name).unwrap(), other.images.resolve(&name).unwrap());
        assert_eq!(imported[0].id, was.id);
        assert_eq!((&was.tags, &was.digests, was.size), (&is.tags, &is.digests, is.size));
        assert_eq!((&was.chain_id, &was.config), (&is.chain_id, &is.config));
        assert_eq!((was.layers(), &was.files), (is.layers(), &is.files));
        // A pull brings nothing new.
        let before = fake.count("/blobs/");
        other.pull(&name).await.unwrap();
        assert_eq!(fake.count("/blobs/"), before);
        other.is_clean().await;
    }

    assert!(matches!(node.images.export("r.example/none:1"), Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_keep_their_digests_and_take_names() {
    let node = Node::new();
    let Layout { files, id, manifest } = layout(NAMED);
    let imported = import(&node, &tar_of(&files), &[]).await.unwrap();
    assert_eq!((&imported[0].id, &imported[0].digest), (&id, &manifest));
    let image = node.images.resolve("r.example/a/b:1").unwrap();
    assert_eq!(image.digests, [format!("r.example/a/b@{manifest}")]);

    // Names that are given replace the archive's own.
    import(&node, &tar_of(&files), &["busybox", "c.example/d:2"]).await.unwrap();
    let image = node.images.resolve("busybox").unwrap();
    assert_eq!(
        image.tags,
        ["r.example/a/b:1", "docker.io/library/busybox:latest", "c.example/d:2"]
    );

    let node = Node::new();
    let tag = r#""org.opencontainers.image.ref.name":"latest""#;
    for annotations in [tag, ""] {
        let archive = tar_of(&layout(annotations).files);
        let err = import(&node, &archive, &[]).await.unwrap_err().to_string();
        assert!(err.contains("name"), "{err}");
        import(&node, &archive, &["e.example/f:3"]).await.unwrap();
    }
    let archive = tar_of(&files);
    let wrong = format!("a.example/b@sha256:{}", "1".repeat(64));
    assert!(import(&node, &archive, &[&wrong]).await.is_err());
    let right = format!("a.example/b@{manifest}");
    import(&node, &archive, &[&right]).await.unwrap();
    assert!(node.images.resolve(&right).is_some());
    node.is_clean().await;
}

/// Two images of two layers each, one shared through a link as old versions of Docker do, one compressed.
fn docker_archive() -> (Vec<u8>, String, Vec<Digest>) {
    let (zipped, base) = layer("base", b"shared");
    let top = tar(&[("top", b"own")]);
    let one = config(&[&base, &top]);
    let two = config(&[&base]);
    let list = r#"[
        {"Config":"one.json","RepoTags":["one:1","r.example/one:2"],"Layers":["x/layer.tar","top.tar"]},
        {"Config":"two.json","RepoTags":["two"],"Layers":["y/layer.tar"]}]"#;
    let mut archive = Vec::new();
    for (name, bytes) in [
        ("x/layer.tar", zipped.as_slice()),
        ("top.tar", &top),
        ("one.json", one.as_bytes()),
        ("two.json", two.as_bytes()),
        ("manifest.json", list.as_bytes()),
    ] {
        archive.extend(entry(name, EntryType::Regular, "", bytes));
    }
    archive.extend(entry("y/layer.tar", EntryType::Symlink, "../x/layer.tar", b""));
    archive.resize(archive.len() + 1024, 0);
    let described =
        |kind: &str, bytes: &[u8]| descriptor(kind, &Digest::sha256(bytes), bytes.len());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[{},{}]}}"#,
        described("application/vnd.docker.container.image.v1+json", one.as_bytes()),
        described("application/vnd.docker.image.rootfs.diff.tar.gzip", &zipped),
        described("application/vnd.docker.image.rootfs.diff.tar", &top),
    );
    let ids = [one, two].map(|config| Digest::sha256(config.as_bytes()));
    (archive, manifest, ids.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saves_gets_the_digest_that_containerd_makes() {
    let node = Node::new();
    let (archive, manifest, ids) = docker_archive();
    let imported = import(&node, &gzip(&archive), &[]).await.unwrap();
    assert_eq!(imported.len(), 3);
    let image = node.images.resolve("docker.io/library/one:1").unwrap();
    let digest = Digest::sha256(manifest.as_bytes());
    assert_eq!(image.id, ids[0]);
    assert_eq!(
        image.digests,
        [format!("docker.io/library/one@{digest}"), format!("r.example/one@{digest}")]
    );
    assert_eq!(image.layers().len(), 2);
    assert_eq!(node.images.resolve("two").unwrap().id, ids[1]);
    assert!(import(&node, &archive, &["x:1"]).await.is_err(), "a name for two images");
    node.is_clean().await;
}

/// Changes a good archive into a bad one.
type Spoil = fn(&mut Vec<(String, Vec<u8>)>);

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_and_leave_nothing() {
    let node = Node::new();
    let spoils: [(&str, Spoil); 9] = [
        ("does not have it", |files| drop(files.remove(0))),
        ("something else", |files| files[2].1[0] = b'['),
        ("instead", |files| *files[0].1.last_mut().unwrap() ^= 1),
        ("bytes, its descriptor says", |files| files[0].1.push(0)),
        ("twice", |files| files.push(files[0].clone())),
        ("the name", |files| files.push(("../../etc/cron.d/x".into(), vec![]))),
        ("the name", |files| files.push(("/etc/passwd".into(), vec![]))),
        ("neither oci-layout nor manifest.json", |files| drop(files.pop())),
        ("no index.json", |files| drop(files.remove(3))),
    ];
    for (saying, spoil) in spoils {
        let mut files = layout(NAMED).files;
        spoil(&mut files);
        let err = import(&node, &tar_of(&files), &[]).await.unwrap_err().to_string();
        assert!(err.contains(saying), "{err:?} does not say {saying:?}");
    }
    let whole = tar_of(&layout(NAMED).files);
    let with = |kind, link: &str| [entry("extra", kind, link, b""), whole.clone()].concat();
    let bomb = {
        let mut zeros = entry("zeros", EntryType::Regular, "", &vec![0; 64 << 20]);
        zeros.extend_from_slice(&whole);
        gzip(&zeros)
    };
    let circle = [
        entry("manifest.json", EntryType::Symlink, "other", b""),
        entry("other", EntryType::Symlink, "manifest.json", b""),
    ]
    .concat();
    for (saying, archive) in [
        ("ends early", whole[..600].to_vec()),
        ("no regular file", with(EntryType::Block, "")),
        ("no regular file", with(EntryType::Fifo, "")),
        ("the link", with(EntryType::Symlink, "/etc/shadow")),
        ("the link", with(EntryType::Symlink, "../../x")),
        ("link to a link", circle),
        ("refused", gzip(&whole)[..200].to_vec()),
        ("neither", vec![]),
        ("", vec![0xff; 5000]),
        ("justify", bomb),
    ] {
        let err = import(&node, &archive, &[]).await.unwrap_err().to_string();
        assert!(err.contains(saying), "{err:?} does not say {saying:?}");
    }
    assert!(node.images.list().is_empty());
    // A client that goes away in the middle.
    let (sender, incoming) = incoming();
    sender.send(Bytes::from(whole)).await.unwrap();
    drop(sender);
    let err = node.images.import(incoming, &[]).await.unwrap_err().to_string();
    assert!(err.contains("broke off"), "{err}");
    node.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_import_directory_is_imported_once() {
    let node = Node::new();
    let dir = node.root.path().join("import");
    let mut drop_in = DropIn::open(node.images.clone(), dir.clone());
    drop_in.look().await;
    std::fs::create_dir(&dir).unwrap();
    let Layout { files, id, .. } = layout(NAMED);
    std::fs::write(dir.join("a.tar.gz"), gzip(&tar_of(&files))).unwrap();
    std::fs::write(dir.join("broken.tar"), b"half of it").unwrap();
    std::fs::write(dir.join(".draft.tar"), b"").unwrap();
    drop_in.look().await;
    assert_eq!(node.images.resolve("r.example/a/b:1").unwrap().id, id);
    assert_eq!(node.images.list().len(), 1);

    // Removed, it stays away: for this daemon and the next.
    node.images.remove(id.as_str()).await.unwrap();
    drop_in.look().await;
    DropIn::open(node.images.clone(), dir.clone()).look().await;
    assert!(node.images.list().is_empty());

    // What changed is looked at again; a layout may lie there as it is.
    std::fs::write(
        dir.join("broken.tar"),
        tar_of(&layout(r#""io.containerd.image.name":"now:1""#).files),
    )
    .unwrap();
    for (name, bytes) in layout(r#""org.opencontainers.image.ref.name":"l.example/x:1""#).files {
        let path = dir.join("layout").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    drop_in.look().await;
    let image = node.images.resolve("l.example/x:1").unwrap();
    assert_eq!((image.tags.len(), &image.id), (2, &id));
    node.is_clean().await;
}
