//! The images that tests share, built once a process from Debian's busybox-static.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::json;

use super::{Image, Layer, architecture, index};
use crate::place;
use crate::registry::{HOST, Storage};

const APPLETS: &[&str] = &[
    "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "false", "find",
    "free", "grep", "head", "hostname", "httpd", "id", "ifconfig", "ip", "kill", "ln", "ls",
    "mkdir", "mount", "nc", "netstat", "nslookup", "nproc", "ping", "printf", "ps", "pwd",
    "readlink", "rm", "route", "seq", "sh", "sleep", "sort", "stat", "stty", "sync", "sysctl",
    "tail", "tar", "test", "timeout", "top", "touch", "tr", "true", "tty", "umount", "uname",
    "usleep", "wc", "wget", "whoami", "yes",
];

/// A shell and its tools; sleeps unless told otherwise.
pub const BUSYBOX: &str = "127.0.0.1:5000/busybox:1";
/// Answers HTTP on port 80 with `hello from podwright`.
pub const WEB: &str = "127.0.0.1:5000/web:1";
/// Writes the time to its log each second.
pub const CLOCK: &str = "127.0.0.1:5000/clock:1";
/// Three layers with whiteouts, an opaque directory, hard links, extended attributes and odd files.
pub const LAYERS: &str = "127.0.0.1:5000/layers:1";
/// An index with this platform and another.
pub const MULTI: &str = "127.0.0.1:5000/multi:1";
/// An index without this platform.
pub const FOREIGN: &str = "127.0.0.1:5000/foreign:1";

/// The storage that all worlds of this process serve, filled at the first call.
pub fn storage() -> &'static Storage {
    static FILLED: OnceLock<Storage> = OnceLock::new();
    FILLED.get_or_init(|| {
        let storage = Storage::at(&fresh_dir());
        fill(&storage);
        storage
    })
}

/// A directory for this process; those of processes that are gone are removed.
fn fresh_dir() -> PathBuf {
    let all = place::scratch().join("registries");
    std::fs::create_dir_all(&all).expect("scratch can be written");
    for entry in std::fs::read_dir(&all).expect("scratch can be read").flatten() {
        let owner = PathBuf::from("/proc").join(entry.file_name());
        if !owner.exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// The layer that every image stands on.
pub fn base() -> Layer {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::new();
    for (dir, mode) in
        [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("www", 0o755)]
    {
        layer = layer.dir(dir, mode);
    }
    layer = layer.file("bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001:worker:/home:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nworkers:x:1001:\nextra:x:2000:worker\n")
}

fn fill(storage: &Storage) {
    let base = base();
    let sleeps = json!({"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin", "FROM=image"]});
    let put = |name: &str, image: &Image| {
        storage.put(name, "1", image);
    };
    let busybox = Image::new(std::slice::from_ref(&base), &sleeps);
    put("busybox", &busybox);
    let web = Layer::new().file("www/index.html", 0o644, "hello from podwright\n");
    let serves = json!({
        "Entrypoint": ["httpd", "-f", "-p", "80", "-h", "/www"], "Env": ["PATH=/bin"],
        "ExposedPorts": {"80/tcp": {}},
    });
    put("web", &Image::new(&[base.clone(), web], &serves));
    let ticks = json!({
        "Cmd": ["sh", "-c", "while :; do date; sleep 1; done"], "Env": ["PATH=/bin"],
    });
    put("clock", &Image::new(std::slice::from_ref(&base), &ticks));
    put("layers", &layered(&base));
    users(storage, &base);
    entrypoints(storage, &base);
    let other = Image::for_platform(std::slice::from_ref(&base), &sleeps, "s390x");
    for repository in ["multi", "foreign"] {
        storage.put(repository, "other", &other);
        storage.put(repository, "ours", &busybox);
    }
    storage.manifest("multi", "1", &index(&[(&other, "s390x"), (&busybox, architecture())]));
    storage.manifest("foreign", "1", &index(&[(&other, "s390x")]));
}

fn layered(base: &Layer) -> Image {
    let lower = Layer::new()
        .dir("data", 0o755)
        .file("data/removed", 0o644, "lower")
        .file("data/replaced", 0o644, "lower")
        .dir("data/hidden", 0o755)
        .file("data/hidden/below", 0o644, "lower")
        .file("data/linked", 0o644, "one inode")
        .hardlink("data/link", "data/linked")
        .file_with("data/attributed", 0o644, "", ("user.kind", b"tested"))
        .fifo("data/fifo")
        .device("data/null", 1, 3)
        .owner(1000, 1001)
        .file("data/owned", 0o640, "owned")
        .file(&format!("data/{}", "long".repeat(40)), 0o644, "long name");
    let upper = Layer::new()
        .dir("data", 0o750)
        .whiteout("data/removed")
        .file("data/replaced", 0o600, "upper")
        .opaque("data/hidden")
        .file("data/hidden/above", 0o644, "upper");
    let sleeps = json!({"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
    Image::new(&[base.clone(), lower, upper], &sleeps)
}

/// `user-<n>:1`, in the order of [`USERS`].
fn users(storage: &Storage, base: &Layer) {
    for (number, (user, ..)) in USERS.iter().enumerate() {
        let config = json!({"User": user, "Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]});
        storage.put(
            &format!("user-{number}"),
            "1",
            &Image::new(std::slice::from_ref(base), &config),
        );
    }
}

/// An image's User, what ImageStatus says of it as (uid, username), and what `id` prints in a container.
pub const USERS: &[(&str, Option<i64>, &str, &str)] = &[
    ("1000", Some(1000), "", "uid=1000(worker) gid=1001(workers) groups=1001(workers),2000(extra)"),
    (
        "worker",
        None,
        "worker",
        "uid=1000(worker) gid=1001(workers) groups=1001(workers),2000(extra)",
    ),
    ("1000:0", Some(1000), "", "uid=1000(worker) gid=0(root) groups=0(root),2000(extra)"),
    ("worker:extra", None, "worker", "uid=1000(worker) gid=2000(extra)"),
    ("4242", Some(4242), "", "uid=4242 gid=0(root)"),
    ("", Some(0), "", "uid=0(root) gid=0(root)"),
];

pub fn user_image(number: usize) -> String {
    format!("{HOST}/user-{number}:1")
}

/// `entry:<tag>` prints its arguments and leaves: entrypoint alone, command alone, both.
fn entrypoints(storage: &Storage, base: &Layer) {
    for (tag, entrypoint, cmd) in [
        ("entrypoint", Some(["echo", "from-entrypoint"]), None),
        ("cmd", None, Some(["echo", "from-cmd"])),
        ("both", Some(["echo", "from-entrypoint"]), Some(["from", "cmd"])),
        ("none", None, None),
    ] {
        let config = json!({"Entrypoint": entrypoint, "Cmd": cmd, "WorkingDir": "/made/here"});
        storage.put("entry", tag, &Image::new(std::slice::from_ref(base), &config));
    }
}
