//! Says what the ids of the parent's new user namespace are outside of it.
//!
//! Only a process of the namespace around it may, so the parent starts this one before it leaves, and lets
//! it go on once it has left.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use super::{MAP_IDS, die_with_parent, ourselves};

/// Ranges of ids, each as the kernel takes it: first inside, first outside, how many.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) users: Vec<String>,
    pub(super) groups: Vec<String>,
}

impl Ids {
    /// Whether there is to be a user namespace at all.
    pub(super) fn wanted(&self) -> bool {
        !(self.users.is_empty() && self.groups.is_empty())
    }

    /// A process that writes them for its parent once its standard input ends.
    pub(super) fn writer(&self) -> Command {
        let mut command = ourselves(MAP_IDS);
        command.args([self.users.join("\n"), self.groups.join("\n")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command
    }
}

pub(super) fn run(arguments: &[OsString]) -> Result<(), String> {
    let [users, groups] = arguments else { return Err("malformed orders".into()) };
    die_with_parent().map_err(|error| format!("parent: {error}"))?;
    io::stdin().read_to_end(&mut Vec::new()).map_err(|error| format!("parent: {error}"))?;
    let parent = rustix::process::getppid().ok_or("has no parent")?.as_raw_nonzero();
    for (file, ids) in [("uid_map", users), ("gid_map", groups)] {
        let ids = ids.to_str().ok_or("malformed orders")?;
        fs::write(format!("/proc/{parent}/{file}"), ids)
            .map_err(|error| format!("{file}: {ids:?}: {error}"))?;
    }
    Ok(())
}
