//! Verifiers of the node's operator: executables in one directory, called as containerd calls its own
//! (`io.containerd.image-verifier.v1.bindir`).
//!
//! Each gets `-name REFERENCE -digest DIGEST -stdin-media-type TYPE` and a descriptor as JSON on its standard input;
//! it accepts by exit status 0, and the beginning of what it prints is its reason. All have to accept, in the order
//! of their names. Unlike containerd we take a directory that is configured and not there for a mistake.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::digest::{Digest, clip};
use super::super::program::{self, Call, Excess};

/// How much of what a verifier prints is kept.
const MAX_REASON: usize = 32 << 10;
/// What it finds on its standard input.
const INPUT_TYPE: &str = "application/vnd.oci.descriptor.v1+json";

/// Where they are and what they may take.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub dir: PathBuf,
    /// Those that come later by name are not asked.
    pub max: usize,
    /// For each.
    pub patience: Duration,
}

/// The document that a name leads to.
#[derive(Debug, Clone)]
pub(super) struct Top {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// That all verifiers accepted an image, and which they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(super) name: String,
    pub(super) digest: Digest,
    /// Changes with any of them.
    pub(super) by: Digest,
}

impl Settings {
    /// Who is asked, in order.
    fn all(&self) -> Result<Vec<PathBuf>, String> {
        let told = |err: std::io::Error| format!("verifiers {}: {err}", self.dir.display());
        let entries = std::fs::read_dir(&self.dir).map_err(told)?;
        let mut all = Vec::new();
        for entry in entries {
            all.push(entry.map_err(told)?.path());
        }
        all.sort();
        if all.len() > self.max {
            let (dir, max) = (self.dir.display(), self.max);
            tracing::warn!(%dir, max, "more verifiers than are to be asked: the last ones are not");
            all.truncate(self.max);
        }
        Ok(all)
    }

    /// Names the verifiers as they are now: another program under an old name is another.
    pub(super) fn fingerprint(&self) -> Result<Digest, String> {
        let mut text = String::new();
        for path in self.all()? {
            let about = path.metadata().map_err(|err| format!("{}: {err}", path.display()))?;
            let (ino, size) = (about.ino(), about.size());
            let (changed, nanoseconds) = (about.ctime(), about.ctime_nsec());
            text += &format!("{} {ino} {size} {changed}.{nanoseconds}\n", path.display());
        }
        Ok(Digest::sha256(text.as_bytes()))
    }

    /// Asks all of them. Blocks, for as long as each may take.
    pub(super) fn ask(&self, name: &str, top: &Top) -> Result<Verdict, String> {
        let by = self.fingerprint()?;
        for path in self.all()? {
            self.ask_one(&path, name, top)?;
        }
        Ok(Verdict { name: name.to_owned(), digest: top.digest.clone(), by })
    }

    fn ask_one(&self, path: &Path, name: &str, top: &Top) -> Result<(), String> {
        let verifier = path.file_name().unwrap_or_default().to_string_lossy();
        let Top { media_type, digest, size } = top;
        let input = json!({ "mediaType": media_type, "digest": digest, "size": size }).to_string();
        let (status, output) = program::run(&Call {
            program: path,
            args: &["-name", name, "-digest", digest.as_str(), "-stdin-media-type", INPUT_TYPE],
            input: input.as_bytes(),
            patience: self.patience,
            most: MAX_REASON,
            excess: Excess::Dropped,
        })
        .map_err(|why| format!("verifier {verifier}: {why}"))?;
        let text = String::from_utf8_lossy(&output);
        let reason: String = text.trim().chars().filter(|c| !c.is_control()).collect();
        let reason = clip(&reason);
        if !status.success() {
            return Err(format!("verifier {verifier} rejects it ({status}): {reason}"));
        }
        tracing::info!(image = name, %digest, %verifier, reason, "image accepted");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn settings(scripts: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let patience = Duration::from_secs(60);
        let settings = Settings { dir: dir.path().to_owned(), max: 10, patience };
        (dir, settings)
    }

    fn ask(settings: &Settings) -> Result<Verdict, String> {
        let top =
            Top { media_type: "application/x".into(), digest: Digest::sha256(b"x"), size: 42 };
        let mut tries = 0;
        loop {
            // Another test's fork may hold a script open for writing for a moment.
            match settings.ask("r.io/a:1", &top) {
                Err(why) if why.contains("busy") && tries < 50 => {
                    tries += 1;
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    #[test]
    fn all_have_to_accept_in_the_order_of_their_names() {
        let digest = Digest::sha256(b"x");
        let told = format!("-name r.io/a:1 -digest {digest} -stdin-media-type {INPUT_TYPE}");
        let takes = format!("[ \"$*\" = '{told}' ] || {{ echo \"$*\"; exit 9; }}");
        let reads = format!(
            r#"case "$(cat)" in *'"digest":"{digest}"'*'"mediaType":"application/x"'*'"size":42'*) ;; *) exit 8;; esac"#
        );
        let (_dir, all) = settings(&[("a", &takes), ("b", &reads)]);
        let verdict = ask(&all).unwrap();
        assert_eq!(verdict.by, all.fingerprint().unwrap());

        let (dir, all) =
            settings(&[("b", "echo 'not this one'; exit 1"), ("c", "touch \"$0.ran\"")]);
        let err = ask(&all).unwrap_err();
        assert!(err.starts_with("verifier b rejects it") && err.ends_with("not this one"), "{err}");
        assert!(!dir.path().join("c.ran").exists());
        let before = all.fingerprint().unwrap();
        std::fs::remove_file(dir.path().join("b")).unwrap();
        assert_ne!(all.fingerprint().unwrap(), before);
        assert!(ask(&all).is_ok());
    }

    #[test]
    fn none_accept_and_a_directory_that_is_not_there_does_not() {
        let (dir, mut all) = settings(&[]);
        assert!(ask(&all).is_ok());
        std::fs::write(dir.path().join("README"), "no program").unwrap();
        assert!(ask(&all).unwrap_err().starts_with("verifier README: "));
        all.max = 0;
        assert!(ask(&all).is_ok());
        all.dir = dir.path().join("nowhere");
        assert!(ask(&all).unwrap_err().contains("nowhere"));
    }
}
