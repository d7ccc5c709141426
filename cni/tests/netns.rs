//! Network namespaces on the real kernel.

mod support;

use std::fs;
use std::net::TcpListener;

use cni::{Error, netns};
use support::Node;

#[test]
fn a_namespace_lives_in_its_file() {
    let node = Node::new();
    let path = node.netns("a");
    netns::create(&path).unwrap();
    assert!(netns::is_netns(&path));
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let inside = || {
        TcpListener::bind("127.0.0.1:0").expect("the loopback is up");
        fs::read_link("/proc/thread-self/ns/net").unwrap()
    };
    let theirs = netns::run_in(&path, inside).unwrap();
    assert_ne!(theirs, ours);
    assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), ours, "our own is as it was");
    netns::loopback_up(&path).unwrap();

    let error = netns::create(&path).unwrap_err();
    let exists = |e: &Error| matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists);
    assert!(exists(&error), "{error}");
    assert_eq!(netns::run_in(&path, inside).unwrap(), theirs, "and did not touch it");

    let second = node.netns("b");
    netns::pin(&path, &second).unwrap();
    for _ in 0..2 {
        netns::remove(&path).unwrap();
    }
    assert!(!path.exists() && !netns::is_netns(&path));
    assert_eq!(netns::run_in(&second, inside).unwrap(), theirs);
    netns::remove(&second).unwrap();
    node.assert_clean();
}

#[test]
fn only_network_namespaces_count() {
    let node = Node::new();
    for path in ["/proc/self/ns/mnt", "/etc/passwd", "/none", "/proc"] {
        assert!(!netns::is_netns(path.as_ref()), "{path}");
        assert!(netns::run_in(path.as_ref(), || ()).is_err(), "{path}");
        assert!(netns::pin(path.as_ref(), &node.netns("x")).is_err(), "{path}");
    }
    assert!(netns::is_netns("/proc/self/ns/net".as_ref()));
    // Left over from a crash between making the file and mounting on it.
    fs::write(node.netns("x"), "").unwrap();
    netns::remove(&node.netns("x")).unwrap();
    netns::remove("/none/x".as_ref()).unwrap();
    node.assert_clean();
}

#[test]
fn the_directory_is_shared_once_however_many_begin() {
    let node = Node::new();
    let dir = node.path("many");
    std::thread::scope(|scope| {
        for i in 0..8 {
            let path = dir.join(format!("n{i}"));
            scope.spawn(move || netns::create(&path).unwrap());
        }
    });
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = format!(" {} ", dir.display());
    let mounts: Vec<_> = table.lines().filter(|line| line.contains(&at)).collect();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert!(mounts[0].contains("shared:"), "{mounts:?}");
    for i in 0..8 {
        netns::remove(&dir.join(format!("n{i}"))).unwrap();
    }
    rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    node.assert_clean();
}

#[test]
fn a_panic_inside_is_a_panic_outside() {
    let node = Node::new();
    let path = node.netns("host");
    let outcome = std::panic::catch_unwind(|| netns::run_in(&path, || panic!("inside")));
    assert_eq!(outcome.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
}
