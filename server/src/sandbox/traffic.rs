//! What went through a pod's network interfaces.
//!
//! The kernel's table of them belongs to the namespace in which it was opened. It is opened there once and read from
//! outside ever after. It keeps the namespace alive, so it is closed as soon as the pod's stop begins.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The longest table that is read; a line has about 120 bytes.
const LIMIT: usize = 64 << 10;
/// The interface that CNI is asked to make.
const DEFAULT: &str = "eth0";

/// Of one interface, since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub name: String,
    pub received: Direction,
    pub sent: Direction,
}

/// One of an interface's two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Direction {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// The interfaces of a pod but its loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Interfaces {
    /// The one that CNI made, or where that is not to be seen, another.
    pub default: Option<Interface>,
    pub others: Vec<Interface>,
}

/// The table of a pod's namespace.
#[derive(Debug, Default)]
pub(super) struct Traffic(Mutex<Slot>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Unread,
    Open(File),
    Closed,
}

impl Traffic {
    /// Reads the table of the namespace at `netns`; `None` if it is gone.
    pub(super) fn read(&self, netns: &Path) -> Option<Interfaces> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Unread) {
            let opened = cni::netns::run_in(netns, || File::open("/proc/thread-self/net/dev"));
            *slot = Slot::Open(opened.ok()?.ok()?);
        }
        let Slot::Open(file) = &*slot else { return None };
        parse(&whole(file)?)
    }

    /// Lets go of the namespace, for good.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
    }
}

/// The table is made anew for whoever reads from its beginning.
fn whole(file: &File) -> Option<String> {
    let mut bytes = vec![0; LIMIT];
    let mut end = 0;
    while end < LIMIT {
        match file.read_at(&mut bytes[end..], end as u64).ok()? {
            0 => break,
            read => end += read,
        }
    }
    bytes.truncate(end);
    String::from_utf8(bytes).ok()
}

fn parse(table: &str) -> Option<Interfaces> {
    let mut interfaces = Interfaces::default();
    for line in table.lines().skip(2) {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> =
            numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let direction = |at: usize| {
            let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)? else { return None };
            Some(Direction { bytes, packets, errors, dropped })
        };
        let name = name.trim();
        let interface =
            Interface { name: name.to_owned(), received: direction(0)?, sent: direction(8)? };
        match name {
            "lo" => {}
            DEFAULT => interfaces.default = Some(interface),
            _ => interfaces.others.push(interface),
        }
    }
    // A pod may have renamed its own, and the kubelet takes it for granted that there is one.
    if interfaces.default.is_none() && !interfaces.others.is_empty() {
        interfaces.default = Some(interfaces.others.remove(0));
    }
    Some(interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     840      10    0    0    0     0          0         0      840      10    0    0    0     0       0          0
  eth0:    1234      12    1    2    0     0          0         0     5678      34    3    4    0     0       0          0
  net1:99 1 0 0 0 0 0 0 98 2 0 0 0 0 0 0
";

    #[test]
    fn the_table() {
        let interfaces = parse(TABLE).unwrap();
        let eth0 = interfaces.default.unwrap();
        assert_eq!(eth0.received, Direction { bytes: 1234, packets: 12, errors: 1, dropped: 2 });
        assert_eq!(eth0.sent, Direction { bytes: 5678, packets: 34, errors: 3, dropped: 4 });
        let [net1] = &interfaces.others[..] else { panic!("{:?}", interfaces.others) };
        assert_eq!((net1.name.as_str(), net1.received.bytes, net1.sent.packets), ("net1", 99, 2));
        let renamed = parse(&TABLE.replace("eth0", "mine")).unwrap();
        assert_eq!(renamed.default.unwrap().name, "mine");
        assert_eq!(renamed.others.len(), 1);
        assert_eq!(parse("a\nb\nbroken\n"), None);
        assert_eq!(parse("a\nb\neth0: 1 2 3\n"), None);
    }

    #[test]
    fn ours_is_read_again_and_again_until_it_is_closed() {
        let traffic = Traffic::default();
        let ours = Path::new("/proc/self/ns/net");
        for _ in 0..2 {
            // Entering one's own namespace takes the privilege to enter any.
            if rustix::process::geteuid().is_root() {
                assert!(traffic.read(ours).is_some());
            }
        }
        traffic.close();
        assert_eq!(traffic.read(ours), None);
    }
}
