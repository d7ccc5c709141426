//! What GNU tar writes, in each of its formats.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use crate::store::on_both;

#[test]
fn sparse_files_of_every_format_come_out_as_they_were() {
    on_both(|store| {
        let source = store.place.dir("source");
        let long = "n".repeat(150);
        let file = fs::File::create(source.join(&long)).unwrap();
        // More regions than fit a header, and a hole at the end.
        for n in 0..60u64 {
            file.write_all_at(&[n as u8 + 1; 4096], n * 65536).unwrap();
        }
        file.set_len(64 << 20).unwrap();
        fs::File::create(source.join("hole")).unwrap().set_len(1 << 20).unwrap();
        let formats: [&[&str]; 4] = [
            &["--format=gnu"],
            &["--format=posix", "--sparse-version=0.0"],
            &["--format=posix", "--sparse-version=0.1"],
            &["--format=posix", "--sparse-version=1.0"],
        ];
        for format in formats {
            let tar = Command::new("tar")
                .args(["-C", source.to_str().unwrap(), "--sparse", "-cf", "-", "."])
                .args(format)
                .output()
                .unwrap();
            assert!(tar.status.success(), "{format:?}");
            let layer = store.layer(&tar.stdout);
            assert!(store.snapshotter.verify(&layer).unwrap().is_empty(), "{format:?}");
            store.merged(&[layer], |root| {
                let whole = fs::read(source.join(&long)).unwrap();
                assert!(fs::read(root.join(&long)).unwrap() == whole, "{format:?}");
                assert!(fs::metadata(root.join(&long)).unwrap().blocks() < 2000, "{format:?}");
                assert_eq!(fs::metadata(root.join("hole")).unwrap().len(), 1 << 20);
            });
        }
        fs::remove_dir_all(source).unwrap();
    });
}
