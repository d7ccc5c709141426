//! What a container's spec needs looked up on the host and in its image. The I/O half of `spec`; blocking.
//!
//! Host paths come from the kubelet and are obeyed. Image content is hostile: its files are read with a limit on
//! their size, by a walk that cannot leave the image.

pub(crate) mod classes;
mod devices;
mod layers;
mod mountinfo;
mod node;
mod sources;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use rustix::fs::OFlags;

use super::config::{ContainerConfig, Security, SecurityProfile};
use super::spec::{self, Accounts, DeviceNode, Facts};
use crate::config::HandlerConfig;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::host::apparmor::{AppArmor, DEFAULT_PROFILE};
use crate::host::selinux::Labels;

pub(crate) use node::node;
pub(crate) use sources::sources;

/// Largest passwd or group file of an image that is read. Directories of whole companies fit; an image made to
/// fill the daemon's memory does not (CVE-2025-4437, CVE-2026-47262).
const MAX_ACCOUNTS: u64 = 4 << 20;
/// Largest seccomp profile.
const MAX_PROFILE: u64 = 1 << 20;

/// Looks up what the spec of a container needs. `mount_sources` are what `sources` found, `layers` the directories
/// of its image, topmost first; `target` is the process whose pid namespace mode TARGET joins.
///
/// # Errors
/// `Invalid` names the field whose device, profile or user is not to be had.
pub(crate) fn gather(
    config: &ContainerConfig,
    mount_sources: Vec<PathBuf>,
    layers: &[PathBuf],
    target: Option<u32>,
    (host, handler): (&Host, &HandlerConfig),
) -> Result<Facts> {
    let privileged = config.security.privileged;
    let host_devices = privileged && !handler.privileged_without_host_devices;
    Ok(Facts {
        mount_sources,
        devices: devices::asked(&config.devices)?,
        host_devices: if host_devices { devices::of_host() } else { Vec::new() },
        accounts: accounts(layers)?,
        apparmor: apparmor(host.apparmor.as_ref(), &config.security)?,
        seccomp: if privileged { None } else { seccomp(&config.security)? },
        target_pid: target.map(|pid| format!("/proc/{pid}/ns/pid").into()),
        ..Facts::default()
    })
}

/// The device node at a path of the host.
///
/// # Errors
/// When there is none.
pub(crate) fn device(path: &Path) -> std::io::Result<DeviceNode> {
    devices::one(path)
}

/// The directories, topmost first, that make up the directory `path` of the image whose layers these are; `None` if
/// it has none there. Links are followed within the image.
///
/// # Errors
/// When a layer cannot be read.
pub(crate) fn image_directory(layers: &[PathBuf], path: &Path) -> Result<Option<Vec<PathBuf>>> {
    layers::directory(layers, path)
}

fn accounts(layers: &[PathBuf]) -> Result<Accounts> {
    let read = |path: &str| -> Result<Option<Vec<u8>>> {
        let Some(file) = layers::open(layers, Path::new(path))? else { return Ok(None) };
        match read_limited(file, MAX_ACCOUNTS) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                let reason = format!("/{path} has more than {MAX_ACCOUNTS} bytes");
                Err(Error::invalid("the image", reason))
            }
            Err(err) => Err(Error::io("read the image's", Path::new(path))(err)),
        }
    };
    Ok(Accounts { passwd: read("etc/passwd")?, group: read("etc/group")? })
}

/// Where there is AppArmor, a container that names no profile runs under our own, if that can be loaded, and a
/// privileged one under none but that which it names.
fn apparmor(node: Option<&AppArmor>, security: &Security) -> Result<Option<String>> {
    const FIELD: &str = "linux.security_context.apparmor";
    let Some(apparmor) = node else { return Ok(None) };
    let unavailable = |err: String| Error::Unavailable(format!("{FIELD}: {err}"));
    match &security.apparmor {
        Some(SecurityProfile::Unconfined) => Ok(None),
        Some(SecurityProfile::Localhost(name)) => match apparmor.is_loaded(name) {
            Ok(true) => Ok(Some(name.clone())),
            Ok(false) => Err(Error::invalid(
                FIELD,
                format!("the profile {name:?} is not loaded on this node"),
            )),
            Err(err) => Err(unavailable(err)),
        },
        None | Some(SecurityProfile::RuntimeDefault) if security.privileged => Ok(None),
        asked => match (apparmor.load_default(), asked) {
            (Ok(()), _) => Ok(Some(DEFAULT_PROFILE.to_owned())),
            // Told at the start.
            (Err(_), None) => Ok(None),
            (Err(err), _) => Err(unavailable(err)),
        },
    }
}

/// The labels of a container: its pod's, with what it asks for itself. `None` where the node has no SELinux.
///
/// # Errors
/// `Invalid` for labels that the node's policy does not know.
pub(crate) fn labels(
    host: &Host,
    pod: Option<&Labels>,
    security: &Security,
) -> Result<Option<Labels>> {
    let (Some(selinux), Some(pod)) = (&host.selinux, pod) else { return Ok(None) };
    let Some(asked) = &security.selinux else { return Ok(Some(pod.clone())) };
    let labels = pod.with(asked.wish());
    let wrong = |err| Error::invalid("linux.security_context.selinux_options", err);
    selinux.check(&labels).map_err(wrong)?;
    Ok(Some(labels))
}

fn seccomp(security: &Security) -> Result<Option<LinuxSeccomp>> {
    let Some(SecurityProfile::Localhost(path)) = &security.seccomp else { return Ok(None) };
    let wrong = |reason: String| {
        let field = "linux.security_context.seccomp.localhost_ref";
        Error::invalid(field, format!("{path}: {reason}"))
    };
    // Not waiting for whoever would open the other end, should it be a FIFO.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty())
        .map_err(|err| wrong(std::io::Error::from(err).to_string()))?;
    let profile = read_limited(File::from(file), MAX_PROFILE)
        .map_err(|err| wrong(err.to_string()))?
        .ok_or_else(|| wrong(format!("has more than {MAX_PROFILE} bytes")))?;
    let profile = serde_json::from_slice(&profile).map_err(|err| wrong(err.to_string()))?;
    spec::seccomp::check(&profile).map_err(wrong)?;
    Ok(Some(profile))
}

/// The content of a regular file; `None` if it is longer than `limit`.
fn read_limited(file: File, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn localhost(path: &Path) -> Result<Option<LinuxSeccomp>> {
        let profile = SecurityProfile::Localhost(path.to_str().unwrap().into());
        seccomp(&Security { seccomp: Some(profile), ..Security::default() })
    }

    #[test]
    fn profiles_are_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        assert!(localhost(&path).is_err());
        for (wrong, says) in [
            ("", "EOF"),
            ("{}", "defaultAction"),
            ("[]", "invalid length 0"),
            (r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#, "SCMP_ACT_MAYBE"),
            (
                r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_VAX"]}"#,
                "SCMP_ARCH_VAX",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                    {"names": ["chmd"], "action": "SCMP_ACT_ERRNO"}]}"#,
                "\"chmd\" is no system call",
            ),
        ] {
            std::fs::write(&path, wrong).unwrap();
            let err = localhost(&path).unwrap_err().to_string();
            let field =
                format!("linux.security_context.seccomp.localhost_ref: {}: ", path.display());
            assert!(err.starts_with(&field) && err.contains(says), "{err}");
        }
        std::fs::write(
            &path,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
        )
        .unwrap();
        assert!(localhost(&path).unwrap().is_some());
        assert!(localhost(dir.path()).is_err());
    }

    #[test]
    fn accounts_beyond_the_limit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let group = File::create(dir.path().join("etc/group")).unwrap();
        group.set_len(MAX_ACCOUNTS).unwrap();
        let layers = [dir.path().to_owned()];
        assert_eq!(accounts(&layers).unwrap().passwd, None);
        group.set_len(MAX_ACCOUNTS + 1).unwrap();
        assert!(accounts(&layers).is_err());
    }

    #[test]
    fn the_apparmor_profile_that_applies() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("sys/module/apparmor/parameters/enabled", "Y\n"),
            (
                "sys/kernel/security/apparmor/profiles",
                "mine (enforce)\npodwright-default (enforce)\n",
            ),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let node = AppArmor::probe(dir.path(), dir.path());
        let local = |name: &str| Some(SecurityProfile::Localhost(name.into()));
        for (profile, privileged, applies) in [
            (None, false, Some("podwright-default")),
            (None, true, None),
            (Some(SecurityProfile::RuntimeDefault), false, Some("podwright-default")),
            (Some(SecurityProfile::RuntimeDefault), true, None),
            (Some(SecurityProfile::Unconfined), false, None),
            (local("mine"), false, Some("mine")),
            (local("mine"), true, Some("mine")),
        ] {
            let security = Security { apparmor: profile, privileged, ..Security::default() };
            assert_eq!(
                apparmor(node.as_ref(), &security).unwrap().as_deref(),
                applies,
                "{security:?}"
            );
            assert_eq!(apparmor(None, &security).unwrap(), None);
        }
        let security = Security { apparmor: local("gone"), ..Security::default() };
        let err = apparmor(node.as_ref(), &security).unwrap_err().to_string();
        assert_eq!(
            err,
            "linux.security_context.apparmor: the profile \"gone\" is not loaded on this node"
        );
        // Ours cannot be loaded: whoever asks for it is told so.
        std::fs::write(dir.path().join("sys/kernel/security/apparmor/profiles"), "").unwrap();
        let node = AppArmor::probe(dir.path(), &dir.path().join("none"));
        assert_eq!(apparmor(node.as_ref(), &Security::default()).unwrap(), None);
        let apparmor_profile = Some(SecurityProfile::RuntimeDefault);
        let security = Security { apparmor: apparmor_profile, ..Security::default() };
        assert!(apparmor(node.as_ref(), &security).is_err());
    }
}
