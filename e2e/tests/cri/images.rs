//! Image calls on good images.

use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX, MULTI, USERS};
use e2e::image::{Image, Layer};
use e2e::pod::container;
use e2e::registry::HOST;
use e2e::{Options, World};
use serde_json::json;
use tonic::Code;

fn status(world: &World, image: &str) -> Option<e2e::cri::Image> {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    world.client.image_status(ImageStatusRequest { image, verbose: false }).unwrap().image
}

fn list(world: &World, image: &str) -> Vec<e2e::cri::Image> {
    let image = Some(ImageSpec { image: image.into(), ..Default::default() });
    let filter = (!image.as_ref().unwrap().image.is_empty()).then_some(ImageFilter { image });
    world.client.list_images(ListImagesRequest { filter }).unwrap().images
}

#[test]
fn every_form_of_reference_names_the_image() {
    let world = World::start(Options::default());
    let id = world.pull(BUSYBOX);
    assert_eq!(world.pull(BUSYBOX), id, "pulled again, the same");
    let image = status(&world, BUSYBOX).unwrap();
    assert_eq!(image.id, id);
    assert!(image.size > 100_000);
    assert_eq!(image.repo_tags, [BUSYBOX]);
    assert_eq!(image.repo_digests.len(), 1);
    assert!(image.repo_digests[0].starts_with(&format!("{HOST}/busybox@sha256:")));
    let bare = id.trim_start_matches("sha256:");
    for form in [id.as_str(), bare, &bare[..16], image.repo_digests[0].as_str()] {
        assert_eq!(status(&world, form).as_ref(), Some(&image), "{form}");
    }
    assert!(status(&world, "127.0.0.1:5000/other:1").is_none());
    assert_eq!(list(&world, "").len(), 1);
    assert_eq!(list(&world, BUSYBOX).len(), 1);
    assert!(list(&world, "127.0.0.1:5000/other:1").is_empty());
    world.remove_image(BUSYBOX);
    world.finish();
}

#[test]
fn verbose_status_has_the_configuration() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let image = Some(ImageSpec { image: BUSYBOX.into(), ..Default::default() });
    let info = world.client.image_status(ImageStatusRequest { image, verbose: true }).unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["imageSpec"]["config"]["Cmd"][0], "sleep");
    world.finish();
}

#[test]
fn by_digest_there_is_no_tag() {
    let world = World::start(Options::default());
    let busybox = Image::new(&[catalogue::base()], &json!({"Cmd": ["sleep", "9"]}));
    catalogue::storage().put("digests", "unused", &busybox);
    let reference = format!("{HOST}/digests@{}", busybox.digest());
    assert_eq!(world.pull(&reference), busybox.id());
    let image = status(&world, &reference).unwrap();
    assert!(image.repo_tags.is_empty(), "{image:?}");
    assert_eq!(image.repo_digests, [reference]);
    world.finish();
}

#[test]
fn one_image_under_several_names_is_one_and_goes_whole() {
    let world = World::start(Options::default());
    let image = Image::new(&[catalogue::base()], &json!({"Cmd": ["sleep", "7"]}));
    let names: Vec<String> = ["a", "b", "latest"]
        .iter()
        .map(|tag| catalogue::storage().put("names", tag, &image))
        .collect();
    for name in &names[..2] {
        assert_eq!(world.pull(name), image.id());
    }
    assert_eq!(world.pull(&format!("{HOST}/names")), image.id(), "no tag means latest");
    let listed = list(&world, "");
    assert_eq!(listed.len(), 1);
    let mut tags = listed[0].repo_tags.clone();
    tags.sort();
    assert_eq!(tags, names);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| world.remove_image(&names[1]));
        }
    });
    assert!(list(&world, "").is_empty());
    assert!(names.iter().all(|name| status(&world, name).is_none()));
    world.remove_image(&names[0]);
    world.remove_image(&image.id());
    world.finish();
}

#[test]
fn users_are_told_as_numbers_or_names() {
    let world = World::start(Options::default());
    for (number, (user, uid, username, _)) in USERS.iter().enumerate() {
        let name = catalogue::user_image(number);
        world.pull(&name);
        let image = status(&world, &name).unwrap();
        let told = (image.uid.map(|uid| uid.value), image.username.as_str());
        assert!(
            told == (*uid, *username) || (user.is_empty() && told == (None, "")),
            "{user}: {told:?}"
        );
    }
    world.finish();
}

#[test]
fn an_index_gives_this_platforms_image() {
    let world = World::start(Options::default());
    let id = world.pull(MULTI);
    assert_eq!(id, world.pull(BUSYBOX), "the same image inside");
    let pod = world.pod("multi");
    pod.run(container("c", MULTI, &[]));
    pod.end();
    world.finish();
}

#[test]
fn layers_are_shared_and_go_with_the_last_image() {
    let world = World::start(Options::default());
    let used = || {
        let info = world.client.image_fs_info(ImageFsInfoRequest {}).unwrap();
        let of = &info.image_filesystems[0];
        assert!(of.timestamp > 0);
        let mountpoint = of.fs_id.clone().unwrap().mountpoint;
        assert!(std::path::Path::new(&mountpoint).is_absolute(), "{mountpoint}");
        of.used_bytes.unwrap().value
    };
    let before = used();
    world.pull(BUSYBOX);
    let one = used();
    assert!(one > before + 1_000_000, "{before} to {one}");
    let web = e2e::image::catalogue::WEB;
    world.pull(web);
    assert!(used() < one + 1_000_000, "the base is shared");
    world.remove_image(BUSYBOX);
    world.remove_image(web);
    e2e::eventually("the space to be free", || (used() <= before + 65536).then_some(()));
    world.finish();
}

#[test]
fn a_pod_outlives_its_image() {
    let world = World::start(Options::default());
    let id = world.pull(BUSYBOX);
    let pod = world.pod("outlives");
    let container_id = pod.run(container("c", BUSYBOX, &[]));
    world.remove_image(BUSYBOX);
    assert!(list(&world, "").is_empty());
    assert_eq!(world.exec(&container_id, "echo still here"), "still here\n");
    assert_eq!(world.container_status(&container_id).unwrap().image_id, id);
    pod.end();
    world.finish();
}

#[test]
fn pulls_at_once_share_the_work() {
    let world = World::start(Options::default());
    let ids: Vec<String> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..6).map(|_| scope.spawn(|| world.pull(MULTI))).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(list(&world, "").len(), 1);
    world.finish();
}

#[test]
fn an_image_without_layers_and_one_with_a_layer_twice() {
    let world = World::start(Options::default());
    let base = catalogue::base();
    let twice = Layer::new().file("twice", 0o644, "twice");
    let config = json!({"Cmd": ["sleep", "60"], "Env": ["PATH=/bin"]});
    let image = Image::new(&[base, twice.clone(), twice], &config);
    let name = catalogue::storage().put("twice", "1", &image);
    world.pull(&name);
    let pod = world.pod("twice");
    let id = pod.run(container("c", &name, &[]));
    assert_eq!(world.exec(&id, "cat /twice"), "twice");
    let none = catalogue::storage().put("none", "1", &Image::new(&[], &json!({"Cmd": ["/x"]})));
    world.pull(&none);
    let id = pod.create(container("none", &none, &[]));
    assert!(world.start_container(&id).is_err());
    pod.end();
    world.finish();
}

/// Whoever pulled an image by then either gets its container, which works, or is told that the image is gone.
#[test]
fn a_removal_beside_a_create_loses_nothing_but_the_image() {
    let world = World::start(Options::default());
    let pod = world.pod("races");
    let made = std::sync::atomic::AtomicU32::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                world.remove_image(BUSYBOX);
            }
        });
        let creators: Vec<_> = (0..2)
            .map(|creator| {
                let (pod, made, world) = (&pod, &made, &world);
                scope.spawn(move || {
                    for number in 0..8 {
                        let id = world.pull(BUSYBOX);
                        let config = container(&format!("c{creator}-{number}"), &id, &[]);
                        match pod.try_create(config) {
                            Ok(id) => {
                                world.start_container(&id).unwrap();
                                assert_eq!(world.exec(&id, "echo here"), "here\n");
                                world.remove_container(&id).unwrap();
                                made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = creators.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        remover.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    println!("{} of 16 were made before the image was gone", made.into_inner());
    world.remove_image(BUSYBOX);
    pod.end();
    world.finish();
}

#[test]
fn one_id_is_told_everywhere() {
    let world = World::start(Options::default());
    let id = world.pull(BUSYBOX);
    let image = status(&world, BUSYBOX).unwrap();
    let pod = world.pod("ids");
    let mut config = container("c", &id, &[]);
    let spec = config.image.as_mut().unwrap();
    spec.user_specified_image = BUSYBOX.into();
    spec.annotations = [("key".to_owned(), "value".to_owned())].into();
    let made = pod.create(config);
    let told = world.container_status(&made).unwrap();
    assert_eq!((told.image_id.as_str(), told.image_ref.as_str()), (&*id, &*image.repo_digests[0]));
    let spec = told.image.unwrap();
    assert_eq!((spec.image.as_str(), spec.user_specified_image.as_str()), (BUSYBOX, BUSYBOX));
    assert_eq!(spec.annotations["key"], "value");
    let listed = world.client.list_containers(ListContainersRequest::default()).unwrap().containers;
    assert_eq!((&listed[0].image_id, &listed[0].image_ref), (&id, &id));
    assert_eq!(list(&world, "")[0], image, "List and Status agree");
    pod.end();
    world.finish();
}

#[test]
fn a_tag_that_moves_leaves_its_image_by_digest() {
    let world = World::start(Options::default());
    let images = ["old", "new"].map(|what| {
        Image::new(&[catalogue::base()], &json!({"Cmd": ["sleep", "8"], "Env": [what]}))
    });
    let digest = |at: usize| format!("{HOST}/moves@{}", images[at].digest());
    let name = catalogue::storage().put("moves", "1", &images[0]);
    world.pull(&name);
    catalogue::storage().put("moves", "1", &images[1]);
    assert_eq!(world.pull(&name), images[1].id());
    let old = status(&world, &images[0].id()).unwrap();
    assert_eq!((old.repo_tags.len(), old.repo_digests), (0, vec![digest(0)]));
    let new = status(&world, &name).unwrap();
    assert_eq!((new.repo_tags, new.repo_digests), (vec![name.clone()], vec![digest(1)]));
    // With a tag and a digest the digest decides and no tag is kept.
    assert_eq!(world.pull(&format!("{HOST}/moves:other@{}", images[0].digest())), images[0].id());
    assert!(status(&world, &digest(0)).unwrap().repo_tags.is_empty());
    assert!(status(&world, &format!("{HOST}/moves:other")).is_none());
    assert_eq!(list(&world, "").len(), 2);
    world.finish();
}

#[test]
fn the_same_image_of_two_registries_is_one() {
    let world = World::start(Options::default());
    let dir = world.path("certs.d/other.example");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hosts.toml"), format!("server = \"http://{HOST}\"\n")).unwrap();
    let id = world.pull(BUSYBOX);
    assert_eq!(world.pull("other.example/busybox:1"), id);
    let all = list(&world, "");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].repo_tags, [BUSYBOX, "other.example/busybox:1"]);
    assert_eq!(all[0].repo_digests.len(), 2);
    assert_eq!(status(&world, "other.example/busybox:1").unwrap(), all[0]);
    world.remove_image("other.example/busybox:1");
    assert!(status(&world, BUSYBOX).is_none(), "one name takes all of them with it");
    world.finish();
}

#[test]
fn the_file_systems_of_images_and_containers_are_told_whole() {
    let world = World::start(Options::default());
    world.pull(BUSYBOX);
    let info = world.client.image_fs_info(ImageFsInfoRequest {}).unwrap();
    for of in [&info.image_filesystems, &info.container_filesystems] {
        assert_eq!(of.len(), 1);
        assert!(of[0].timestamp > 0 && of[0].inodes_used.unwrap().value > 0, "{of:?}");
        let mountpoint = &of[0].fs_id.as_ref().unwrap().mountpoint;
        assert!(world.seen(mountpoint).is_dir(), "{mountpoint}");
    }
    let image = Some(ImageSpec {
        image: BUSYBOX.into(),
        runtime_handler: "no-such-handler".into(),
        ..Default::default()
    });
    let pull = world.client.pull_image(PullImageRequest { image, ..Default::default() });
    assert!(pull.unwrap_err().message().contains("no-such-handler"));
    world.finish();
}
