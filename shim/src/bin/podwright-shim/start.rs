//! The `start` command: makes the shim of a pod and prints how to reach it.
//!
//! The socket is bound here, so it takes connections from the moment the address is printed.
//! The shim itself is this program started anew, in a session of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use api::bootstrap::BootstrapParams;
use prost::Message;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::args::Args;
use crate::stage;

/// What a socket address holds, without its final zero.
const MAX_SOCKET_PATH: usize = 107;
const MAX_INPUT: u64 = 4 << 20;
const BACKLOG: i32 = 64;
/// What the shim says once it serves.
pub(crate) const READY: &[u8] = b"ready\n";
const ADDRESS: &str = "address";
/// The annotations by which containerd's containers name the shim they belong to.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let bundle = std::env::current_dir().map_err(|error| format!("bundle: {error}"))?;
    let params = read_params(args);
    if let Some(address) = existing(args, &bundle) {
        return print(&address, None);
    }
    let socket = socket_path(args, &bundle, params.as_ref());
    let listener = bind(&socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    let pid = launch(args, params.as_ref(), &socket, listener)?;
    let address = format!("unix://{}", socket.display());
    // Where containerd looks for it after a restart, and other containers' `start` does.
    fs::write(ADDRESS, &address).map_err(|error| format!("{ADDRESS}: {error}"))?;
    print(&address, Some(pid))
}

fn print(address: &str, pid: Option<u32>) -> Result<(), String> {
    let metadata = pid.map_or(json!({}), |pid| json!({ "pid": pid.to_string() }));
    let answer =
        json!({ "version": 3, "address": address, "protocol": "ttrpc", "metadata": metadata });
    io::stdout().write_all(answer.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// Newer daemons say on standard input what they want; older ones put runtime options there,
/// which come with Create as well.
fn read_params(args: &Args) -> Option<BootstrapParams> {
    if io::stdin().is_terminal() {
        return None;
    }
    let mut bytes = Vec::new();
    io::stdin().take(MAX_INPUT).read_to_end(&mut bytes).ok()?;
    BootstrapParams::decode(&bytes[..]).ok().filter(|params| params.instance_id == args.id)
}

/// The address of the pod's shim, if this container belongs to one that runs.
fn existing(args: &Args, bundle: &Path) -> Option<String> {
    let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    let annotations = &spec["annotations"];
    let group = GROUPS.iter().find_map(|key| annotations[key].as_str())?;
    if group == args.id || crate::args::check_id(group).is_err() {
        return None;
    }
    let address = fs::read_to_string(bundle.parent()?.join(group).join(ADDRESS)).ok()?;
    let path = address.strip_prefix("unix://")?;
    std::os::unix::net::UnixStream::connect(path).ok().map(|_| address.clone())
}

/// In the bundle, where the path fits; else where the daemon or containerd keeps sockets.
fn socket_path(args: &Args, bundle: &Path, params: Option<&BootstrapParams>) -> PathBuf {
    let path = bundle.join("shim.sock");
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return path;
    }
    let asked = params.and_then(|params| params.socket_dir.clone());
    let dir = match asked.filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        // containerd's own place for them, beside its socket.
        None if params.is_none() || !args.address.is_empty() => {
            Path::new(&args.address).parent().unwrap_or(Path::new("/run")).join("s")
        }
        None => return path,
    };
    let short = dir.join(format!("podwright-{}", &args.id[..args.id.len().min(64)]));
    if dir.is_dir() && short.as_os_str().len() <= MAX_SOCKET_PATH { short } else { path }
}

/// Binds through a descriptor of the directory, so that no path is too long.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let (dir, name) = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => (File::open(dir)?, name),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let way = Path::new("/proc/self/fd")
        .join(std::os::fd::AsRawFd::as_raw_fd(&dir).to_string())
        .join(name);
    // Left by a shim of the same id that was killed; were it alive, the daemon would not start
    // another.
    let _ = fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(&way)?);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Starts the shim and waits until it serves.
fn launch(
    args: &Args,
    params: Option<&BootstrapParams>,
    socket: &Path,
    listener: OwnedFd,
) -> Result<u32, String> {
    let events = params.map(|params| params.containerd_ttrpc_address.clone());
    let events = events.or_else(|| std::env::var("TTRPC_ADDRESS").ok()).unwrap_or_default();
    let mut command = stage::ourselves("-namespace");
    command.args([&args.namespace, "-id", &args.id, "-address", &args.address]);
    command.args(["-events", &events]).arg("-socket").arg(socket);
    if args.debug {
        command.arg("-debug");
    }
    command.arg("serve").stdin(listener).stdout(Stdio::piped()).stderr(log());
    let mut child = command.spawn().map_err(|error| format!("shim: {error}"))?;
    let mut said = Vec::new();
    let output = child.stdout.take().ok_or("shim: no pipe")?;
    output.take(READY.len() as u64).read_to_end(&mut said).map_err(|error| error.to_string())?;
    if said != READY {
        let status = child.wait().map_err(|error| error.to_string())?;
        return Err(format!("the shim ended before it served: {status}; see shim.log"));
    }
    Ok(child.id())
}

/// containerd reads the fifo it has made; otherwise there is a file.
fn log() -> Stdio {
    let fifo = fs::metadata("log").is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut options = OpenOptions::new();
    let opened = if fifo {
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("log")
    } else {
        options.append(true).create(true).mode(0o600).open("shim.log")
    };
    opened.map_or_else(|_| Stdio::null(), Stdio::from)
}
