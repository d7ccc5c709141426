//! conmon, which writes the logs of CRI-O and Podman, around a container of nobody's.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::{RUNTIME, floor};
use super::{Files, Kind, Once};
use crate::measure::Processor;
use crate::poll::eventually;
use crate::world::{Options, World};

/// What the container executes.
const PROGRAMS: [&str; 5] = ["sh", "cat", "dd", "touch", "usleep"];

pub(super) struct Conmon(PathBuf);

impl Conmon {
    /// As `e2e/peers` unpacks it.
    pub(super) fn among(peers: &Path) -> Option<Self> {
        Some(Self(peers.join("bin/conmon"))).filter(|Self(program)| program.exists())
    }

    /// The same container, in a world of its own. Counted is what conmon uses, and what it starts but the container.
    pub(super) fn once(&self, files: &Files, kind: Kind, lines: usize) -> Once {
        let world = World::without_daemon(Options::default());
        fs::create_dir_all(files.at("logs")).expect("memory can be written");
        let mut spec = floor::specification(world.cgroup());
        spec["process"]["args"] = json!(["/bin/sh", "-c", kind.line()]);
        let mounts = spec["mounts"].as_array_mut().expect("a container mounts something");
        mounts.push(json!({
            "destination": "/files", "type": "bind", "source": files.0, "options": ["rbind"],
        }));
        let bundle = floor::bundle(&world, &PROGRAMS, &spec);
        let processor = Processor::apart(&world, "conmon");
        let (crun, pid) = (world.tool(RUNTIME), world.path("pid"));
        let path = |name| world.path(name).display().to_string();
        fs::create_dir(world.path("exits")).expect("the world's directory");
        let status = processor
            .command(&world, &self.0)
            .args(["--cid", "c", "--cuuid", "c", "--name", "c", "--exit-dir", &path("exits")])
            // Else it makes a link in a directory of CRI-O's.
            .arg("--full-attach")
            .arg("--bundle")
            .arg(&bundle)
            .args(["--container-pidfile", &path("pid")])
            .args(["--log-path", &format!("k8s-file:{}", files.log().display())])
            .arg("--runtime")
            .arg(&crun)
            .arg(format!("--runtime-arg=--root={}", path("crun")))
            .status()
            .expect("nsenter is installed");
        assert!(status.success(), "conmon: {status}");
        eventually("conmon's container to be there", || pid.exists().then_some(()));
        let crun = format!("{} --root {}", crun.display(), path("crun"));
        world.sh(&format!("{crun} start c"));
        let before = processor.used();
        let took = files.until_printed("conmon");
        files.until_logged(lines);
        let used = processor.used().saturating_sub(before);
        world.sh(&format!("{crun} delete --force c"));
        files.forget();
        Once::of((lines * kind.line) as f64, took, used)
    }
}
