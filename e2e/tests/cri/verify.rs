//! Images that the node's operator wants signed, or wants others asked about.

use std::os::unix::fs::PermissionsExt;

use e2e::cosign::{Signer, attach, payload};
use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX, storage};
use e2e::image::{Image, Layer, index};
use e2e::pod::container;
use e2e::registry::HOST;
use e2e::{Options, World};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::refused;

const PREFIX: &str = "SignatureValidationFailed: ";

/// A world whose daemon is told to verify; `settings` are of `[image]`, with `{dir}` for the world's directory.
fn world(settings: &str, prepare: impl FnOnce(&World)) -> World {
    let mut world = World::without_daemon(Options::default());
    let dir = world.path("").display().to_string();
    let text = format!("[image]\n{}\n", settings.replace("{dir}", dir.trim_end_matches('/')));
    std::fs::write(world.path("conf.d/verify.toml"), text).unwrap();
    prepare(&world);
    world.begin();
    world
}

const POLICY: &str = "policy = \"{dir}/policy.json\"";

/// The policy from now on: what is wanted by scope, and everything else is let pass.
fn policy(world: &World, scopes: &[(&str, Value)]) {
    let scopes: serde_json::Map<String, Value> =
        scopes.iter().map(|(scope, wanted)| ((*scope).to_owned(), json!([wanted]))).collect();
    let text = json!({
        "default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": scopes},
    });
    std::fs::write(world.path("policy.new"), text.to_string()).unwrap();
    std::fs::rename(world.path("policy.new"), world.path("policy.json")).unwrap();
}

/// A requirement of a signature by the world's `cosign.pub`.
fn by_key(world: &World, identity: &Value) -> Value {
    let key = world.path("cosign.pub").display().to_string();
    json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity})
}

fn repository() -> Value {
    json!({"type": "matchRepository"})
}

fn exact() -> Value {
    json!({"type": "matchExact"})
}

fn reject() -> Value {
    json!({"type": "reject"})
}

/// An image that no other test has, under `name:1`.
fn image(name: &str) -> (Image, String) {
    let marker = Layer::new().file("marker", 0o644, name);
    let image = Image::new(&[catalogue::base(), marker], &json!({"Cmd": ["sleep", "3600"]}));
    let reference = storage().put(name, "1", &image);
    (image, reference)
}

#[track_caller]
fn fails(result: &Result<String, Status>, saying: &str) {
    refused(result, Code::Unknown, saying);
    let text = result.as_ref().unwrap_err().message();
    assert!(text.starts_with(PREFIX), "{text}");
}

fn is_here(world: &World, image: &str) -> bool {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    let request = ImageStatusRequest { image, verbose: false };
    world.client.image_status(request).unwrap().image.is_some()
}

#[test]
fn only_what_its_signer_signed_is_pulled() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let world = world(POLICY, |world| {
        std::fs::write(world.path("cosign.pub"), signer.public_key()).unwrap();
        policy(world, &[("127.0.0.1:5000/signed", by_key(world, &repository()))]);
    });
    let used = || {
        world.client.image_fs_info(ImageFsInfoRequest {}).unwrap().image_filesystems[0]
            .used_bytes
            .unwrap()
            .value
    };
    let before = used();
    let (of, reference) = image("signed/app");
    let name = format!("{HOST}/signed/app");
    let right = signer.sign(&payload(&name, &of.digest()));
    fails(&world.try_pull(&reference), "a signature is required and none is known");
    for (signature, told) in [
        (stranger.sign(&payload(&name, &of.digest())), "no trusted key made it"),
        (signer.sign(&payload(&format!("{HOST}/signed/other"), &of.digest())), "it is for \"127"),
        (signer.sign(&payload(&name, &image("signed/another").0.digest())), "it is for sha256:"),
        (
            e2e::cosign::Signature {
                payload: payload(&name, &of.digest()).replace_ascii("critical", "Critical"),
                ..right.clone()
            },
            "no trusted key made it",
        ),
        (signer.sign(b"{\"critical\":{}}"), "its payload"),
    ] {
        attach(storage(), "signed/app", &of.digest(), &[signature]);
        fails(&world.try_pull(&reference), told);
        assert!(!is_here(&world, &reference));
    }
    assert_eq!(used(), before, "nothing was fetched");
    // One good signature among others is enough, by tag and by digest.
    let wrong = stranger.sign(&payload(&name, &of.digest()));
    attach(storage(), "signed/app", &of.digest(), &[right, wrong]);
    assert_eq!(world.pull(&reference), of.id());
    assert_eq!(world.pull(&format!("{name}@{}", of.digest())), of.id());
    // The tag moves to what nobody signed; the image that was here stays as it was.
    let next = Image::new(&[catalogue::base()], &json!({"Cmd": ["true"]}));
    storage().put("signed/app", "1", &next);
    fails(&world.try_pull(&reference), "none is known");
    assert!(is_here(&world, &reference));
    let pod = world.pod("signed");
    pod.run(container("c", &reference, &[]));
    // Nobody asked for signatures of this one.
    world.pull(BUSYBOX);
    pod.end();
    world.finish();
}

/// Bytes with some text in them replaced.
trait Replace {
    fn replace_ascii(self, from: &str, to: &str) -> Self;
}

impl Replace for Vec<u8> {
    fn replace_ascii(self, from: &str, to: &str) -> Self {
        String::from_utf8(self).unwrap().replace(from, to).into_bytes()
    }
}

#[test]
fn an_index_may_be_signed_or_the_manifest_in_it() {
    let signer = Signer::new();
    let world = world(POLICY, |world| {
        std::fs::write(world.path("cosign.pub"), signer.public_key()).unwrap();
        policy(world, &[("127.0.0.1:5000/many", by_key(world, &repository()))]);
    });
    let (ours, _) = image("many/ours");
    let other = Image::for_platform(&[catalogue::base()], &json!({"Cmd": ["x"]}), "s390x");
    for signed in ["index", "manifest", "other"] {
        let name = format!("many/{signed}");
        let list = index(&[(&other, "s390x"), (&ours, e2e::image::architecture())]);
        storage().put(&name, "ours", &ours);
        storage().put(&name, "other", &other);
        let reference = storage().manifest(&name, "1", &list);
        let digest = match signed {
            "index" => e2e::image::digest(&list),
            "manifest" => ours.digest(),
            _ => other.digest(),
        };
        let signature = signer.sign(&payload(&format!("{HOST}/{name}"), &digest));
        attach(storage(), &name, &digest, &[signature]);
        match signed {
            "other" => fails(&world.try_pull(&reference), "none is known"),
            _ => assert_eq!(world.pull(&reference), ours.id()),
        }
    }
    world.finish();
}

#[test]
fn a_mirrors_image_is_judged_by_the_name_that_was_asked_for() {
    let signer = Signer::new();
    let world = world(POLICY, |world| {
        std::fs::write(world.path("cosign.pub"), signer.public_key()).unwrap();
        policy(world, &[("*.example.com", by_key(world, &exact())), (HOST, reject())]);
        let dir = world.path("certs.d/images.example.com");
        std::fs::create_dir_all(&dir).unwrap();
        let text = format!("server = \"http://{HOST}\"\n[host.\"http://{HOST}\"]\n");
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    });
    let (of, here) = image("mirrored/app");
    fails(&world.try_pull(&here), "it is rejected");
    let reference = "images.example.com/mirrored/app:1";
    for (signed, good) in
        [(here.as_str(), false), ("images.example.com/mirrored/app:2", false), (reference, true)]
    {
        let signature = signer.sign(&payload(signed, &of.digest()));
        attach(storage(), "mirrored/app", &of.digest(), &[signature]);
        match good {
            true => assert_eq!(world.pull(reference), of.id()),
            false => fails(&world.try_pull(reference), "it is for"),
        }
    }
    world.finish();
}

#[test]
fn a_policy_holds_for_containers_of_images_that_are_here() {
    let signer = Signer::new();
    let mut world = world(POLICY, |world| {
        std::fs::write(world.path("cosign.pub"), signer.public_key()).unwrap();
        policy(world, &[]);
    });
    let (of, reference) = image("later/app");
    let name = format!("{HOST}/later/app");
    let signature = signer.sign(&payload(&name, &of.digest()));
    attach(storage(), "later/app", &of.digest(), &[signature]);
    let id = world.pull(&reference);
    world.pull(BUSYBOX);
    let pod = world.pod("policy");
    let as_kubelet = |image: &str, user: &str| {
        let mut config = container("c", image, &[]);
        config.image.as_mut().unwrap().user_specified_image = user.into();
        pod.try_create(config)
    };
    let volume = |user: &str| {
        let mut config = container("v", BUSYBOX, &[]);
        let image = ImageSpec {
            image: id.clone(),
            user_specified_image: user.into(),
            ..Default::default()
        };
        config.mounts.push(Mount {
            container_path: "/image".into(),
            readonly: true,
            image: Some(image),
            ..Default::default()
        });
        pod.try_create(config)
    };
    let remove = |created: Result<String, Status>| {
        world.remove_container(&created.unwrap_or_else(|err| panic!("{err}"))).unwrap();
    };
    remove(as_kubelet(&id, &reference));

    // From now on a signature is wanted, and none was asked for when the image came.
    policy(&world, &[("127.0.0.1:5000/later", by_key(&world, &repository()))]);
    for (image, user) in [(&id, &reference), (&reference, &String::new()), (&id, &String::new())] {
        fails(&as_kubelet(image, user), "none is known");
    }
    let status = volume(&reference).unwrap_err();
    assert!(status.message().starts_with("ImageVolumeMountFailed: "), "{status}");
    assert!(status.message().contains(PREFIX), "{status}");
    assert_eq!(world.pull(&reference), id);
    remove(as_kubelet(&id, &reference));
    remove(as_kubelet(&id, ""));
    remove(volume(&reference));
    // Under a name that the policy refuses, it is refused, whatever it is called here.
    policy(&world, &[(&reference, reject()), (BUSYBOX, reject())]);
    fails(&as_kubelet(&id, &reference), "it is rejected");
    fails(&as_kubelet(&id, BUSYBOX), "it is rejected");
    remove(as_kubelet(&id, &format!("{name}@{}", of.digest())));
    // A policy that cannot be read lets nothing pass.
    std::fs::write(world.path("policy.json"), "{\"default\":\n[}").unwrap();
    fails(&as_kubelet(&id, &reference), "line 2");
    fails(&world.try_pull(BUSYBOX), "policy.json");
    std::fs::remove_file(world.path("policy.json")).unwrap();
    fails(&as_kubelet(&id, &reference), "No such file");

    // The signature is on record: the registry is not asked, and another daemon knows it.
    pod.end();
    policy(&world, &[("127.0.0.1:5000/later", by_key(&world, &repository()))]);
    attach(storage(), "later/app", &of.digest(), &[]);
    world.end_daemon(rustix::process::Signal::KILL);
    world.start_daemon();
    let pod = world.pod("after");
    let mut config = container("c", &id, &[]);
    config.image.as_mut().unwrap().user_specified_image = reference;
    pod.run(config);
    pod.end();
    world.finish();
}

const VERIFIERS: &str = "verifier_dir = \"{dir}/verifiers\"\nverifier_timeout_seconds = 2";

/// Puts a verifier in place; the script may use `$world`.
fn verifier(world: &World, name: &str, script: &str) {
    let dir = world.path("verifiers");
    std::fs::create_dir_all(&dir).unwrap();
    let text = format!("#!/bin/sh\nworld={}\n{script}\n", world.path("").display());
    // Renamed into place: a script that is open for writing cannot be run.
    let new = world.path("verifier.new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, dir.join(name)).unwrap();
}

#[test]
fn verifiers_are_asked_about_the_digest_and_all_have_to_agree() {
    const ACCEPTS: &str = "echo \"$*\" >>$world/asked; cat >>$world/asked; echo fine";
    let world = world(VERIFIERS, |world| verifier(world, "10-first", ACCEPTS));
    let (of, reference) = image("asked/app");
    let id = world.pull(&reference);
    let asked = || world.read(world.path("asked"));
    let digest = of.digest();
    let words = format!(
        "-name {reference} -digest {digest} -stdin-media-type application/vnd.oci.descriptor.v1+json\n"
    );
    let (first, descriptor) =
        asked().split_once('\n').map(|(a, b)| (format!("{a}\n"), b.to_owned())).unwrap();
    assert_eq!(first, words);
    let descriptor: Value = serde_json::from_str(&descriptor).unwrap();
    assert_eq!(descriptor["digest"], digest.as_str());
    assert_eq!(descriptor["size"], of.manifest.len());

    // What was accepted stays so for containers, until the verifiers change.
    let pod = world.pod("asked");
    let create = |user: &str| {
        let mut config = container("c", &id, &[]);
        config.image.as_mut().unwrap().user_specified_image = user.into();
        pod.try_create(config)
    };
    let before = asked();
    world.remove_container(&create(&reference).unwrap()).unwrap();
    assert_eq!(asked(), before, "the verdict is on record");
    verifier(&world, "20-second", "echo 'not on this node'; echo no >>$world/asked; exit 7");
    fails(&create(&reference), "20-second rejects it (exit status: 7): not on this node");
    fails(&world.try_pull(&reference), "not on this node");
    assert!(is_here(&world, &reference));
    let (_, next) = image("asked/next");
    fails(&world.try_pull(&next), "not on this node");
    assert!(!is_here(&world, &next));
    // One that hangs, with children, or floods us, is ended in its time and has not accepted.
    for script in ["sleep 1000 & sleep 1000", "exec cat /dev/zero", "trap '' TERM INT; sleep 1000"]
    {
        verifier(&world, "20-second", script);
        fails(&world.try_pull(&next), "20-second: it does not answer in time");
    }
    assert!(!world.sh("busybox ps -o args").contains("sleep 1000"), "nothing of it stays");
    std::fs::remove_file(world.path("verifiers/20-second")).unwrap();
    world.remove_container(&create(&reference).unwrap()).unwrap();
    world.pull(&next);
    std::fs::rename(world.path("verifiers"), world.path("gone")).unwrap();
    fails(&create(&reference), "No such file");
    fails(&world.try_pull(&next), "No such file");
    pod.end();
    world.finish();
}
