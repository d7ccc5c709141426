//! Image calls on good images.

use e2e::cri::*;
use e2e::image::catalogue::{self, BUSYBOX, MULTI, USERS};
use e2e::image::{Image, Layer};
use e2e::pod::container;
use e2e::registry::HOST;
use e2e::{Options, World};
use serde_json::json;

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
