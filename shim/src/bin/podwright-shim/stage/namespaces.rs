//! Makes the pod's namespaces, configures them once, and waits until the shim holds them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::map_ids::Ids;
use super::{PID_INIT, ourselves, sysctl};
use crate::cgroup::Leaf;
use crate::sys;

#[derive(Default)]
struct Orders {
    ipc: bool,
    uts: bool,
    pid: bool,
    net: bool,
    ids: Ids,
    hostname: Option<String>,
    netns: Option<String>,
    cgroup: Option<String>,
    sysctls: Vec<(String, String)>,
}

/// Returns when the shim has let it go, or with what went wrong.
pub(super) fn run(arguments: &[OsString]) -> Result<(), String> {
    make(&parse(arguments).ok_or("malformed orders")?)
}

fn make(orders: &Orders) -> Result<(), String> {
    let what = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    super::die_with_parent().map_err(what("parent"))?;
    if orders.ids.wanted() {
        enter_users(orders)?;
        // What ends us with our parent was forgotten with the change of users.
        super::die_with_parent().map_err(what("parent"))?;
    }
    let wanted = [
        (orders.net, libc::CLONE_NEWNET),
        (orders.ipc, libc::CLONE_NEWIPC),
        (orders.uts, libc::CLONE_NEWUTS),
        (orders.pid, libc::CLONE_NEWPID),
    ];
    let flags = wanted.into_iter().filter(|(yes, _)| *yes).fold(0, |all, (_, flag)| all | flag);
    sys::unshare(flags).map_err(what("unshare"))?;
    if let Some(hostname) = &orders.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|error| format!("hostname {hostname:?}: {error}"))?;
    }
    let owned = sysctl::Owned {
        ipc: orders.ipc,
        uts: orders.uts,
        net: orders.net || orders.netns.is_some(),
    };
    // Those of the network are written from inside of it; /proc/sys shows the opener's.
    if let Some(netns) = &orders.netns {
        let file = File::open(netns).map_err(|error| format!("{netns}: {error}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("{netns}: {error}"))?;
    }
    for (name, value) in &orders.sysctls {
        sysctl::write(name, value, owned)?;
    }
    let init = if orders.pid { start_init(orders)? } else { 0 };
    let mut output = io::stdout();
    writeln!(output, "{init}").and_then(|()| output.flush()).map_err(what("report"))?;
    let _ = io::stdin().read(&mut [0]);
    Ok(())
}

/// Makes a user namespace and becomes its root. Everything made from here on belongs to it.
fn enter_users(orders: &Orders) -> Result<(), String> {
    let what =
        |what: &'static str| move |error: io::Error| format!("user namespace: {what}: {error}");
    // Its root cannot put the init there any more, so the init starts there.
    if let Some(path) = orders.cgroup.as_ref().filter(|_| orders.pid) {
        Leaf::new(path).and_then(|leaf| leaf.enter()).map_err(what("cgroup"))?;
    }
    let mut writer = orders.ids.writer().spawn().map_err(what("start"))?;
    sys::unshare(libc::CLONE_NEWUSER).map_err(what("unshare"))?;
    drop(writer.stdin.take());
    if !writer.wait().map_err(what("ids"))?.success() {
        // It has said why.
        return Err(String::new());
    }
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    let become_root = || {
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)
    };
    become_root().map_err(|error| what("root")(error.into()))
}

/// Starts the first process of the new pid namespace and waits until it is what it is to be.
fn start_init(orders: &Orders) -> Result<u32, String> {
    let mut command = ourselves(PID_INIT);
    if let Some(cgroup) = &orders.cgroup
        && !orders.ids.wanted()
    {
        command.args(["--cgroup", cgroup]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let failed = |error: &dyn std::fmt::Display| format!("pid namespace: {error}");
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let mut output = child.stdout.take().ok_or_else(|| failed(&"no pipe"))?;
    // Ends without a word when the pipe closes on exec.
    let mut said = String::new();
    output.read_to_string(&mut said).map_err(|error| failed(&error))?;
    match child.try_wait() {
        Ok(None) if said.is_empty() => Ok(child.id()),
        _ if said.is_empty() => Err(failed(&"its init died")),
        _ => Err(failed(&said)),
    }
}

fn parse(arguments: &[OsString]) -> Option<Orders> {
    let mut orders = Orders::default();
    let mut rest = arguments.iter().map(|word| word.to_str().map(str::to_owned));
    let mut next = || rest.next()?;
    while let Some(flag) = next() {
        match flag.as_str() {
            "--ipc" => orders.ipc = true,
            "--uts" => orders.uts = true,
            "--pid" => orders.pid = true,
            "--net" => orders.net = true,
            "--uids" => orders.ids.users.push(next()?),
            "--gids" => orders.ids.groups.push(next()?),
            "--hostname" => orders.hostname = Some(next()?),
            "--netns" => orders.netns = Some(next()?),
            "--cgroup" => orders.cgroup = Some(next()?),
            "--sysctl" => orders.sysctls.push((next()?, next()?)),
            _ => return None,
        }
    }
    Some(orders)
}
