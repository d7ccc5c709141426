//! Programs that misbehave on demand, in the place of an OCI runtime or a CNI plugin: shell scripts that look into a
//! file named after the verb and do what is written there before they become the real program, or instead.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::place::{self, Tools};
use crate::poll::eventually;
use crate::world::{Options, World};

/// A script, and the directory in which its orders lie. It stays as long as the test's process: a world may
/// outlive whoever made it.
#[derive(Debug, Clone)]
pub struct Script {
    dir: PathBuf,
}

/// Stops whoever obeys it, for longer than any test lasts; the test can wait until it does.
pub const HANG: &str = "touch $orders/hangs; sleep 1000";

/// Holds up whoever obeys it until [`Script::go`].
pub const WAIT: &str = "touch $orders/hangs; until [ -e $orders/go ]; do sleep 0.05; done";

/// An interface whose address no plugin has to give back.
pub const ADDRESS: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}'"#;

impl Script {
    fn new(name: &str, verb: &str, otherwise: &str) -> Self {
        std::fs::create_dir_all(place::scratch()).expect("scratch can be written");
        // Named as worlds are, so that it is swept like them once this process is gone.
        let scratch = tempfile::Builder::new()
            .prefix(&format!("{}-script-", std::process::id()))
            .tempdir_in(place::scratch())
            .expect("scratch can be written");
        let dir = scratch.keep();
        let text = format!(
            "#!/bin/sh\norders={}\n{verb}\n[ ! -e $orders/$verb ] || eval \"$(cat $orders/$verb)\"\n{otherwise}\n",
            dir.display()
        );
        write_program(&dir.join(name), &text);
        Self { dir }
    }

    /// What to do from now on when `verb` is asked for; a line of shell.
    pub fn order(&self, verb: &str, line: &str) {
        for told in ["hangs", "go"] {
            let _ = std::fs::remove_file(self.path(told));
        }
        std::fs::write(self.path(verb), line).expect("the script's directory");
    }

    /// From now on `verb` does what it should.
    pub fn relent(&self, verb: &str) {
        let _ = std::fs::remove_file(self.path(verb));
    }

    /// A file that orders may use as `$orders/name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Who obeys [`WAIT`] goes on, and so does whoever will.
    pub fn go(&self) {
        std::fs::write(self.path("go"), "").expect("the script's directory");
    }

    /// Waits until somebody obeys [`HANG`] or [`WAIT`].
    pub fn until_it_hangs(&self) {
        eventually("the script to hang", || self.path("hangs").exists().then_some(()));
    }
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the script's directory");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, executable).expect("a file of ours");
}

/// A world whose default OCI runtime is crun behind a script.
pub fn runtime() -> (World, Script) {
    let crun = Tools::find().program("crun");
    let verb = "for word; do case $word in create|start|exec|kill|delete|state|update) verb=$word; break;; esac; done";
    let real = format!("crun() {{ {} \"$@\"; }}", crun.display());
    let otherwise = format!("exec {} \"$@\"", crun.display());
    let script = Script::new("runtime", &format!("{real}\n{verb}"), &otherwise);
    let config = format!(
        "default_runtime = \"scripted\"\nruntimes.scripted = \"{}\"\n",
        script.path("runtime").display()
    );
    (World::start(Options { config, ..Default::default() }), script)
}

/// A world whose only CNI plugin is a script that knows one address; a verb may take `seconds`.
pub fn plugin(seconds: u32) -> (World, Script) {
    plugin_of_version("1.0.0", seconds)
}

pub fn plugin_of_version(version: &str, seconds: u32) -> (World, Script) {
    let conflist = serde_json::json!({
        "cniVersion": version, "name": "scripted", "plugins": [{"type": "scripted"}],
    });
    let otherwise = format!(
        "case $verb in ADD) {ADDRESS};; \
         VERSION) echo '{{\"cniVersion\":\"{version}\",\"supportedVersions\":[\"{version}\"]}}';; esac"
    );
    let script = Script::new("scripted", "verb=$CNI_COMMAND", &otherwise);
    let config = format!(
        "network.bin_dirs = [\"{}\"]\nnetwork.timeout_seconds = {seconds}\n",
        script.dir.display()
    );
    let conflist = Some(conflist.to_string());
    (World::start(Options { config, conflist, ..Default::default() }), script)
}
