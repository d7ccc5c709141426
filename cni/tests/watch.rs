//! The watch on a directory that comes, goes and changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use cni::Watcher;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// True if something comes within the time.
fn readable(watcher: &Watcher, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(watcher, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

/// Waits until the watcher says that the directory is to be loaded again.
fn changed(watcher: &mut Watcher, what: &str) {
    while readable(watcher, Duration::from_secs(20)) {
        if watcher.drain().unwrap() {
            while readable(watcher, Duration::ZERO) {
                watcher.drain().unwrap();
            }
            return;
        }
    }
    panic!("unnoticed: {what}");
}

fn unchanged(watcher: &mut Watcher, what: &str) {
    // Events are there when the system call that makes them returns.
    assert!(!watcher.drain().unwrap(), "{what}");
}

fn write(dir: &Path, name: &str) {
    fs::write(dir.join(name), "{}").unwrap();
}

#[test]
fn files_that_come_change_and_go_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let mut watcher = Watcher::new(dir).unwrap();
    unchanged(&mut watcher, "nothing happened");
    let file = fs::File::create(dir.join("a")).unwrap();
    unchanged(&mut watcher, "a file that is still being written");
    drop(file);
    changed(&mut watcher, "written");
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    changed(&mut watcher, "renamed");
    symlink("b", dir.join("c")).unwrap();
    changed(&mut watcher, "linked");
    fs::hard_link(dir.join("b"), dir.join("d")).unwrap();
    changed(&mut watcher, "hard link");
    fs::remove_file(dir.join("b")).unwrap();
    changed(&mut watcher, "removed");
    unchanged(&mut watcher, "read all");
}

#[test]
fn the_directory_may_come_later_go_and_come_back() {
    let root = tempfile::tempdir().unwrap();
    let (dir, parent) = (root.path().join("cni/net.d"), root.path().join("cni"));
    let mut watcher = Watcher::new(&dir).unwrap();
    fs::write(root.path().join("other"), "").unwrap();
    unchanged(&mut watcher, "something else beside it");
    for round in 0..3 {
        fs::create_dir_all(&dir).unwrap();
        changed(&mut watcher, "made");
        write(&dir, "a");
        changed(&mut watcher, "written");
        match round {
            0 => fs::remove_dir_all(&parent).unwrap(),
            1 => fs::rename(&parent, root.path().join("moved")).unwrap(),
            _ => fs::rename(&dir, parent.join("moved")).unwrap(),
        }
        changed(&mut watcher, "gone");
    }
    unchanged(&mut watcher, "read all");
    write(&root.path().join("moved/net.d"), "b");
    unchanged(&mut watcher, "what was moved away is no longer ours");
}

#[test]
fn a_directory_that_was_filled_before_it_was_moved_in_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("net.d");
    let mut watcher = Watcher::new(&dir).unwrap();
    fs::create_dir(root.path().join("new")).unwrap();
    write(&root.path().join("new"), "a");
    fs::rename(root.path().join("new"), &dir).unwrap();
    changed(&mut watcher, "moved in");
    write(&dir, "b");
    changed(&mut watcher, "written");
}

#[test]
fn links_and_subdirectories_are_followed() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    let dir = root.path().join("net.d");
    symlink(&one, &dir).unwrap();
    let mut watcher = Watcher::new(&dir).unwrap();
    write(&one, "a");
    changed(&mut watcher, "through the link");
    fs::remove_file(&dir).unwrap();
    symlink(&two, &dir).unwrap();
    changed(&mut watcher, "the link leads elsewhere");
    write(&two, "a");
    changed(&mut watcher, "there");
    fs::create_dir(two.join("net")).unwrap();
    changed(&mut watcher, "the directory of a network");
    write(&two.join("net"), "10-a.conf");
    changed(&mut watcher, "a plugin of it");
}

#[test]
fn a_flood_of_events_is_one_change() {
    let root = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::new(root.path()).unwrap();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    write(root.path(), "a");
    // Each makes two events.
    for _ in 0..limit.min(100_000) / 4 + 10 {
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    assert!(watcher.drain().unwrap());
    unchanged(&mut watcher, "all read");
    write(root.path(), "c");
    changed(&mut watcher, "still watching");
}
