//! `podwright cp`: files between this machine and a container, as tar over exec.
//!
//! What comes out of a container is not trusted: it is unpacked by tar into a fresh directory, which refuses members
//! that leave it, and only then moved to where it was wanted.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail};
use api::cri::v1::{ExecRequest, ExecSyncRequest};

use crate::daemon::Daemon;
use crate::find::Candidates;
use crate::session;

/// Copy a file or a directory into a container or out of it, which needs tar in it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// PATH, or CONTAINER:PATH
    from: String,
    /// CONTAINER:PATH, or PATH
    to: String,
}

/// `CONTAINER:PATH`; a local path with a colon is written with a slash before it.
fn remote(text: &str) -> Option<(&str, &str)> {
    let (container, path) = text.split_once(':')?;
    (!container.is_empty() && !container.starts_with(['.', '/']) && !path.is_empty())
        .then_some((container, path))
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    match (remote(&args.from), remote(&args.to)) {
        (None, Some((container, to))) => upload(daemon, Path::new(&args.from), container, to).await,
        (Some((container, from)), None) => {
            download(daemon, container, from, Path::new(&args.to)).await
        }
        _ => bail!("one of the two has to be CONTAINER:PATH, and the other a path here"),
    }
}

/// Directory and last part of a path.
fn split(path: &str) -> anyhow::Result<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
    if name.is_empty() || name == "." || name == ".." {
        bail!("{path:?} has no name at its end");
    }
    Ok((if dir.is_empty() { "/" } else { dir }, name))
}

async fn upload(
    daemon: &mut Daemon,
    from: &Path,
    container: &str,
    to: &str,
) -> anyhow::Result<ExitCode> {
    let from = from.canonicalize().with_context(|| from.display().to_string())?;
    let (Some(dir), Some(name)) = (from.parent(), from.file_name()) else {
        bail!("{} has no name at its end", from.display());
    };
    let container = Candidates::load(daemon).await?.container(container)?.id;
    let into = is_directory(daemon, &container, to).await?;
    let (there, renamed) = match into {
        true => (to, name.to_string_lossy().into_owned()),
        false => split(to).map(|(dir, name)| (dir, name.to_owned()))?,
    };
    // Only the first part of each member's name is another one there.
    let escaped: String = renamed
        .chars()
        .flat_map(|c| (matches!(c, '\\' | '&' | ',')).then_some('\\').into_iter().chain([c]))
        .collect();
    let mut packing = std::process::Command::new("tar")
        .arg("-C")
        .arg(dir)
        .arg(format!("--transform=flags=rh;s,^[^/]*,{escaped},"))
        .args(["-cf", "-", "--"])
        .arg(name)
        .stdout(Stdio::piped())
        .spawn()
        .context("tar")?;
    let packed = packing.stdout.take().context("tar's output")?;
    let command = ["tar", "-xmf", "-", "-C", there];
    let code = exec(daemon, &container, &command, Some(Box::new(packed)), None).await;
    let packed = packing.wait()?;
    let code = code?;
    if !packed.success() {
        bail!("tar: {packed}");
    }
    Ok(code)
}

async fn download(
    daemon: &mut Daemon,
    container: &str,
    from: &str,
    to: &Path,
) -> anyhow::Result<ExitCode> {
    let (dir, name) = split(from)?;
    let container = Candidates::load(daemon).await?.container(container)?.id;
    let wanted: PathBuf = if to.is_dir() { to.join(name) } else { to.to_owned() };
    let parent = match wanted.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fresh = tempfile::Builder::new().prefix(".podwright-cp-").tempdir_in(parent)?;
    let mut unpacking = std::process::Command::new("tar")
        .args(["--no-same-owner", "-xf", "-", "-C"])
        .arg(fresh.path())
        .stdin(Stdio::piped())
        .spawn()
        .context("tar")?;
    let unpacked = unpacking.stdin.take().context("tar's input")?;
    let command = ["tar", "-C", dir, "-cf", "-", "--", name];
    let code = exec(daemon, &container, &command, None, Some(Box::new(unpacked))).await;
    let unpacked = unpacking.wait()?;
    let code = code?;
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    if !unpacked.success() {
        bail!("tar: {unpacked}");
    }
    std::fs::rename(fresh.path().join(name), &wanted)
        .with_context(|| wanted.display().to_string())?;
    Ok(code)
}

async fn is_directory(daemon: &mut Daemon, container: &str, path: &str) -> anyhow::Result<bool> {
    let request = ExecSyncRequest {
        container_id: container.to_owned(),
        cmd: ["test", "-d", path].map(str::to_owned).to_vec(),
        timeout: 30,
    };
    // Without `test` nobody knows; the path is then taken as the name of what is copied.
    Ok(daemon
        .runtime
        .exec_sync(request)
        .await
        .is_ok_and(|answer| answer.into_inner().exit_code == 0))
}

/// Runs a command with these streams; its error output is ours.
async fn exec(
    daemon: &mut Daemon,
    container: &str,
    command: &[&str],
    input: Option<Box<dyn Read + Send>>,
    output: Option<Box<dyn Write + Send>>,
) -> anyhow::Result<ExitCode> {
    let request = ExecRequest {
        container_id: container.to_owned(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        tty: false,
        stdin: input.is_some(),
        stdout: true,
        stderr: true,
    };
    let url = daemon.runtime.exec(request).await?.into_inner().url;
    session::pipe(&daemon.tls, &url, input, output).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_path_is_told_from_one_here() {
        assert_eq!(remote("web:/etc/hosts"), Some(("web", "/etc/hosts")));
        assert_eq!(remote("pod/web:x"), Some(("pod/web", "x")));
        for here in ["file", "./a:b", "/a:b", ":x", "web:"] {
            assert_eq!(remote(here), None, "{here}");
        }
    }

    #[test]
    fn paths_are_split_at_their_last_part() {
        assert_eq!(split("/etc/hosts").unwrap(), ("/etc", "hosts"));
        assert_eq!(split("/tmp/").unwrap(), ("/", "tmp"));
        assert_eq!(split("x").unwrap(), (".", "x"));
        assert!(split("/").is_err() && split("a/..").is_err());
    }
}
