//! The pod's namespaces, held as descriptors.
//!
//! A short-lived child makes them (see `stage::namespaces`); the shim itself stays in the
//! host's. Runtimes join them through `/proc/<shim>/fd/<n>`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use api::podwright::{Namespaces, SandboxOptions};

use super::Pod;
use crate::cgroup::Leaf;
use crate::reactor::{self, Exit, Once, Source};
use crate::rpc::Failure;
use crate::runtime::scratch;
use crate::{leftover, program, stage, sys};

/// Making namespaces takes a millisecond; a netns or a sysctl that hangs gets this long.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_COMPLAINT: usize = 4096;

/// What keeps the namespaces alive.
#[derive(Default)]
pub(super) struct Held {
    ipc: Option<OwnedFd>,
    uts: Option<OwnedFd>,
    pid: Option<OwnedFd>,
    user: Option<OwnedFd>,
    net: Option<OwnedFd>,
    init: Option<Init>,
}

/// The first process of a shared pid namespace.
struct Init {
    pid: u32,
    exit: Rc<Once<Exit>>,
    leaf: Option<Leaf>,
}

impl Held {
    /// Where a runtime finds them.
    pub(super) fn paths(&self) -> Namespaces {
        let path = |fd: &Option<OwnedFd>| match fd {
            Some(fd) => format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()),
            None => String::new(),
        };
        Namespaces {
            ipc: path(&self.ipc),
            uts: path(&self.uts),
            pid: path(&self.pid),
            user: path(&self.user),
            net: path(&self.net),
            init_pid: self.init.as_ref().map_or(0, |init| init.pid),
        }
    }

    /// The end of the init, with which the pod ends.
    pub(super) fn init_exit(&self) -> Option<Rc<Once<Exit>>> {
        self.init.as_ref().map(|init| Rc::clone(&init.exit))
    }

    /// Ends the init, if there is one, and with it all that is left in its namespace.
    pub(super) async fn release(mut self) {
        if let Some(init) = self.init.take() {
            if !init.exit.is_set() {
                let _ = sys::kill(init.pid, libc::SIGKILL as u32);
                let _ = reactor::within(PATIENCE, init.exit.wait()).await;
            }
            if let Some(leaf) = &init.leaf {
                leaf.remove();
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(init) = &self.init
            && !init.exit.is_set()
        {
            let _ = sys::kill(init.pid, libc::SIGKILL as u32);
        }
    }
}

/// Makes what the options ask for.
pub(super) async fn make(pod: &Pod, options: &SandboxOptions) -> Result<Held, Failure> {
    let users = !options.uids.is_empty() || !options.gids.is_empty();
    let none = options.host_ipc && options.host_uts && !options.shared_pid && !users;
    if none && !options.own_network && options.sysctls.is_empty() {
        hold_runtime(options);
        return Ok(Held::default());
    }
    let complaints = scratch(&pod.dir, "namespaces");
    let expecting = reactor::expect();
    let made = reactor::within(PATIENCE, run(pod, options, &complaints)).await;
    drop(expecting);
    let text = std::fs::read(&complaints).unwrap_or_default();
    let _ = std::fs::remove_file(&complaints);
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_COMPLAINT)]);
    match made {
        Some(Ok(held)) => Ok(held),
        Some(Err(error)) if text.is_empty() => Err(Failure::io("namespaces")(error)),
        Some(Err(_)) => Err(Failure::unknown(format_args!("namespaces: {}", text.trim()))),
        None => Err(Failure::unknown("namespaces: timed out")),
    }
}

/// The child works meanwhile.
fn hold_runtime(options: &SandboxOptions) {
    if !options.guarded_runtime.is_empty() {
        program::hold(Path::new(&options.guarded_runtime));
    }
}

async fn run(pod: &Pod, options: &SandboxOptions, complaints: &Path) -> io::Result<Held> {
    let leaf = match options.cgroup_path.as_str() {
        path if options.shared_pid && !path.is_empty() => Some(Leaf::new(path)?),
        _ => None,
    };
    let mut command = stage::namespaces(options);
    let stderr = File::create(complaints)?;
    let mut child = command.current_dir(&pod.dir).stderr(stderr).spawn()?;
    let pid = child.id();
    let gone = reactor::watch(pid);
    let (input, output) = (child.stdin.take(), child.stdout.take());
    hold_runtime(options);
    let _killed = KillOnDrop { pid, gone: Rc::clone(&gone) };
    let output = output.map(OwnedFd::from).ok_or(io::ErrorKind::BrokenPipe)?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let said = read_line(&Source::new(output)?).await?;
    let namespace = |wanted: bool, name: &str| -> io::Result<Option<OwnedFd>> {
        wanted.then(|| File::open(format!("/proc/{pid}/ns/{name}")).map(Into::into)).transpose()
    };
    let mut held = Held {
        ipc: namespace(!options.host_ipc, "ipc")?,
        uts: namespace(!options.host_uts, "uts")?,
        pid: None,
        user: namespace(!options.uids.is_empty() || !options.gids.is_empty(), "user")?,
        net: namespace(options.own_network, "net")?,
        init: None,
    };
    if options.shared_pid {
        let init = said.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        held.init = Some(Init { pid: init, exit: reactor::watch(init), leaf });
        held.pid = Some(File::open(format!("/proc/{init}/ns/pid"))?.into());
        leftover::record_init(&pod.dir, init)?;
    }
    // The child may go now: descriptors hold what it made.
    drop(input);
    gone.wait().await;
    Ok(held)
}

/// One short line, or an error when the other side ends without it.
async fn read_line(source: &Source) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut bytes = [0; 64];
        match source.read_with(|fd| rustix::io::read(fd, &mut bytes)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => line.extend_from_slice(&bytes[..count]),
        }
        if line.ends_with(b"\n") {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        if line.len() > MAX_COMPLAINT {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

/// A stage whose maker lost interest does not stay.
struct KillOnDrop {
    pid: u32,
    gone: Rc<Once<Exit>>,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.gone.is_set() {
            let _ = sys::kill(self.pid, libc::SIGKILL as u32);
        }
    }
}
