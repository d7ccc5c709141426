//! The leases of host-local, the usual address plugin, across a loss of power.
//!
//! host-local keeps a lease as a file that is named by the address and holds its owner's id, and syncs neither the
//! file nor its directory. When power fails soon after an ADD, the name may be there without the id: no DEL finds
//! it then, and the address is gone for good. When it fails soon after a DEL, the lease may come back although
//! nobody knows of the attachment any more. So what is done here, after each DEL of such a network, is to free what
//! has no owner, and to make durable what was freed. A lease that names an owner is never touched, whoever that is.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Network;
use crate::deadline::Deadline;
use crate::error::{Error, Result, Verb};
use crate::native::LeaseLock;

/// Where host-local keeps its leases unless it is told.
pub(crate) const DEFAULT_DIR: &str = "/var/lib/cni/networks";
/// Who is to blame where its leases stay locked.
const PLUGIN: &str = "host-local";

/// Frees addresses whose leases have lost their owner. Only if there are any it waits for another process that is
/// changing leases of this network, and no longer than the caller does.
pub(crate) fn free_ownerless(network: &Network, deadline: &Deadline) -> Result<()> {
    for dir in directories(network).into_iter().filter(|dir| dir.is_dir()) {
        if !ownerless(&dir)?.is_empty() {
            free(&dir, deadline)?;
        }
    }
    Ok(())
}

/// Makes durable what was freed.
pub(crate) fn sync(network: &Network) -> Result<()> {
    directories(network).iter().filter(|dir| dir.is_dir()).try_for_each(|dir| sync_dir(dir))
}

/// Makes durable which files a directory has.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|opened| opened.sync_all());
    synced.map_err(|err| Error::io("sync", dir, err))
}

/// The lease directories of a network's plugins, where those are host-local's.
fn directories(network: &Network) -> Vec<PathBuf> {
    let of = |fields: &crate::config::Fields| {
        let ipam: Value = serde_json::from_str(fields.get("ipam")?.get()).ok()?;
        let dir = ipam.get("dataDir").and_then(Value::as_str).filter(|dir| !dir.is_empty());
        (ipam.get("type")? == "host-local")
            .then(|| Path::new(dir.unwrap_or(DEFAULT_DIR)).join(network.name()))
    };
    network.plugins().iter().filter_map(|plugin| of(&plugin.fields)).collect()
}

/// Under the lock: an empty lease that is there then is nobody's, not even for a moment.
fn free(dir: &Path, deadline: &Deadline) -> Result<()> {
    let _lock = LeaseLock::take(dir, deadline, |over| deadline.error(over, PLUGIN, Verb::Del))?;
    for lease in ownerless(dir)? {
        tracing::warn!(lease = %lease.display(), "the address has no owner; freed");
        fs::remove_file(&lease).map_err(|err| Error::io("remove", &lease, err))?;
    }
    Ok(())
}

fn ownerless(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|err| Error::io("list", dir, err))?;
    let lost = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let lease = name.to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok());
        lease && entry.file_type().is_ok_and(|kind| kind.is_file()) && is_blank(&entry.path())
    });
    Ok(lost.map(|entry| entry.path()).collect())
}

/// Without a first byte, or with zeros in the place of what was never written: seen on ext4 are both.
fn is_blank(lease: &Path) -> bool {
    let mut first = [0];
    File::open(lease).and_then(|mut file| file.read(&mut first)).is_ok_and(|_| first == [0])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::deadline::Cancel;

    fn pods(dir: &Path) -> (Network, PathBuf) {
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local", "dataDir": dir}},
            {"type": "portmap"},
        ]});
        (Network::parse(list.to_string().as_bytes()).unwrap(), dir.join("pods"))
    }

    #[test]
    fn only_what_has_no_owner_is_freed() {
        let dir = tempfile::tempdir().unwrap();
        let (network, leases) = pods(dir.path());
        let soon = Deadline::after(Duration::from_secs(60));
        free_ownerless(&network, &soon).unwrap();
        sync(&network).unwrap();
        assert!(!leases.exists(), "no lease was ever made");
        fs::create_dir(&leases).unwrap();
        let files = [
            ("10.0.0.2", "owner\r\neth0"),
            ("10.0.0.3", ""),
            ("10.0.0.4", "\0\0\0\0"),
            ("fd00::3", ""),
            ("last_reserved_ip.0", ""),
        ];
        for (name, content) in files {
            fs::write(leases.join(name), content).unwrap();
        }
        free_ownerless(&network, &soon).unwrap();
        sync(&network).unwrap();
        let left = files.map(|(name, _)| leases.join(name).exists());
        assert_eq!(left, [true, false, false, false, true]);
    }

    #[test]
    fn who_cancels_does_not_wait_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (network, leases) = pods(dir.path());
        fs::create_dir(&leases).unwrap();
        fs::write(leases.join("10.0.0.3"), "").unwrap();
        let held = File::create(leases.join("lock")).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let cancel = Cancel::new().unwrap();
        let patient = Deadline::after(Duration::from_secs(60)).or(&cancel);
        let ended = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| free_ownerless(&network, &patient));
            cancel.cancel();
            waiting.join().unwrap()
        });
        assert!(matches!(ended, Err(Error::Cancelled { .. })), "{ended:?}");
        drop(held);
        free_ownerless(&network, &Deadline::after(Duration::from_secs(60))).unwrap();
        assert!(!leases.join("10.0.0.3").exists());
    }
}
