//! Leftovers that a test plants: one of each kind that a crash, or another version of us, could have left.

use std::path::Path;

use base64_of::encode;
use e2e::World;
use e2e::{eventually, within};

/// What was planted, and what has to stay since it is another daemon's.
#[derive(Debug)]
pub(crate) struct Planted {
    /// Paths that have to go.
    paths: Vec<String>,
    cgroup: String,
    /// Paths that have to stay.
    foreign: Vec<String>,
}

const ID: &str = "feedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeed";
const CONTAINER: &str = "c0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0dec0de";
/// A mark that no daemon drew.
const OTHER: &str = "podwright-00000000-feedfeedfeedf";

impl Planted {
    /// Plants a pod with a container of which no record knows: its directory with a mounted /dev/shm, a process
    /// that works where a shim does, a bundle, a cgroup with a process in it, state of an OCI runtime, a snapshot, a
    /// network namespace, a cached attachment with its address, and layers and files of no image.
    pub(crate) fn plant(world: &World) -> Self {
        let dir = world.path("");
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        let mark = world.read(world.path("root/instance"));
        let netns = format!("/run/netns/podwright-{}-{}", mark.trim(), &ID[..13]);
        let pod = format!("{dir}/state/pods/{ID}");
        let bundle = format!("{pod}/ctr/{CONTAINER}");
        let cgroup = format!("{}/{CONTAINER}", world.cgroup());
        let state = format!("{dir}/state/runtime/crun/{CONTAINER}");
        let snapshot = format!("{dir}/root/snapshots/snapshots/{CONTAINER}");
        let layer = format!("{dir}/root/snapshots/layers/{ID}");
        let file = format!("{dir}/root/images/sha256/{ID}");
        let cached = |name: &str| format!("{dir}/cni/cache/results/pods-{name}-eth0");
        let lease = format!("{dir}/cni/ipam/pods/10.88.77.77");
        world.sh(&format!(
            "set -e
            mkdir -p {pod}/shim {pod}/shm {bundle}/exec/1 {state} {snapshot}/fs {snapshot}/work {layer}/fs
            mkdir -p {dir}/cni/cache/results {dir}/cni/ipam/pods
            mount -t tmpfs shm {pod}/shm
            echo '{{\"linux\":{{\"cgroupsPath\":\"/{cgroup}\"}}}}' > {bundle}/config.json
            touch {layer}/synced {state}/status
            printf 'sha256:stray' > {file}
            printf '{ID}\\r\\neth0' > {lease}
            ip netns add {} && ip netns add {OTHER}
            (cd {pod}/shim; exec setsid sleep 3000) </dev/null >/dev/null 2>&1 &",
            Path::new(&netns).file_name().unwrap().to_str().unwrap(),
        ));
        let conflist = world.read(world.path("cni/conf/10-pods.conflist"));
        let entry = |id: &str, netns: &str| {
            serde_json::json!({
                "kind": "cniCacheV1", "containerId": id, "config": encode(conflist.as_bytes()),
                "ifName": "eth0", "networkName": "pods", "netns": netns,
                "result": {"cniVersion": "1.0.0", "interfaces": [], "ips": []},
            })
            .to_string()
        };
        let write = |path: &str, text: String| std::fs::write(world.seen(path), text).unwrap();
        write(&cached(ID), entry(ID, &netns));
        write(&cached("foreign"), entry("foreign", &format!("/run/netns/{OTHER}")));
        // A container's process, in every hierarchy there is.
        world.sh(&format!(
            "setsid sleep 3001 </dev/null >/dev/null 2>&1 & pid=$!
            for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
                [ -e $root/cgroup.procs ] || continue
                mkdir -p $root/{cgroup} 2>/dev/null && echo $pid > $root/{cgroup}/cgroup.procs || :
            done; :"
        ));
        let paths = [&pod, &state, &snapshot, &layer, &file, &lease, &netns];
        let mut paths: Vec<String> = paths.into_iter().cloned().collect();
        paths.push(cached(ID));
        let planted =
            Self { paths, cgroup, foreign: vec![format!("/run/netns/{OTHER}"), cached("foreign")] };
        for path in planted.paths.iter().chain(&planted.foreign) {
            assert!(world.seen(path).exists(), "{path} was not planted");
        }
        assert_eq!(planted.processes(world), 2);
        planted
    }

    fn processes(&self, world: &World) -> usize {
        world.sh("busybox ps").matches("sleep 300").count()
    }

    /// How many of the planted paths, and of their processes, there are still.
    pub(crate) fn left(&self, world: &World) -> Vec<String> {
        let mut left: Vec<String> =
            self.paths.iter().filter(|path| world.seen(path).exists()).cloned().collect();
        if self.processes(world) > 0 {
            left.push("processes".into());
        }
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let roots = roots.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
        left.extend(
            roots
                .map(|root| root.join(&self.cgroup))
                .filter(|path| path.exists())
                .map(|path| path.display().to_string()),
        );
        left
    }

    /// All that was planted goes, and what is another daemon's stays; that is taken away here.
    pub(crate) fn goes(self, world: &World) {
        within(e2e::poll::LIMIT, "the leftovers to go", || {
            let left = self.left(world);
            left.is_empty().then_some(())
        });
        for path in &self.foreign {
            assert!(world.seen(path).exists(), "{path} is another daemon's");
        }
        world.sh(&format!("ip netns del {OTHER}; rm {}", self.foreign[1]));
        eventually("the trash to be emptied", || {
            let trash = world.seen(world.path("root/snapshots/trash"));
            (std::fs::read_dir(trash).unwrap().count() == 0).then_some(())
        });
    }
}

/// Base64, as Go writes a byte slice.
mod base64_of {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(group);
            for digit in 0..4u32 {
                let six = (bits >> (18 - 6 * digit)) & 63;
                let padding = digit as usize > chunk.len();
                text.push(if padding { '=' } else { char::from(DIGITS[six as usize]) });
            }
        }
        text
    }

    #[test]
    fn padding_is_right() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(encode(plain.as_bytes()), coded);
        }
    }
}
