//! From an archive to a root file system.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::store::on_both;
use crate::tar::{Header, Tar};

#[test]
fn layers_become_a_root_file_system() {
    on_both(|store| {
        let below = Tar::new().dir("etc/").file("etc/a", "one").file("etc/b", "one").dir("var/");
        let below = store.layer(&below.end());
        let above = Tar::new().dir("etc/").file("etc/a", "two").whiteout("etc/.wh.b");
        let above = store.layer(&above.end());
        store.merged(&[below, above], |root| {
            assert_eq!(fs::read_to_string(root.join("etc/a")).unwrap(), "two");
            assert!(!root.join("etc/b").exists());
            assert!(root.join("var").is_dir());
            fs::write(root.join("etc/c"), "new").unwrap();
        });
    });
}

#[test]
fn owners_modes_times_and_links_are_kept() {
    on_both(|store| {
        let odd = Header { mode: 0o4751, uid: 1000, gid: 50, ..Header::new("bin/su", b'0') };
        let sticky = Header { mode: 0o3777, uid: 7, gid: 8, ..Header::new("tmp", b'5') };
        let tar = Tar::new()
            .dir("bin/")
            .entry(odd, b"")
            .entry(sticky, b"")
            .file("tmp/x", "x")
            .hardlink("bin/x", "tmp/x")
            .symlink("bin/sh", "x");
        let layer = store.layer(&tar.end());
        store.merged(&[layer], |root| {
            let stat = fs::metadata(root.join("bin/su")).unwrap();
            assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o4751, 1000, 50));
            assert_eq!(stat.mtime(), 1_000_000_000);
            let stat = fs::metadata(root.join("tmp")).unwrap();
            assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o3777, 7, 8));
            assert_eq!(stat.mtime(), 1_000_000_000);
            let (a, b) = (fs::metadata(root.join("tmp/x")), fs::metadata(root.join("bin/x")));
            let (a, b) = (a.unwrap(), b.unwrap());
            assert_eq!((a.ino(), a.nlink(), a.gid()), (b.ino(), 2, 0));
            assert_eq!(fs::read_to_string(root.join("bin/sh")).unwrap(), "x");
        });
    });
}
