//! Task.Create: the container exists afterwards, and waits for Start.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use api::events::{TaskCreate, TaskIo, topic};
use api::task::{CreateTaskRequest, CreateTaskResponse};

use super::console::ConsoleListener;
use super::options::{self, Options};
use super::stdio::{Ends, Names, Reader, Streams};
use super::{Process, Task, exit};
use crate::args::check_id;
use crate::cgroup::{Cgroup, OomWatch};
use crate::pod::Pod;
use crate::reactor::{self, Exit, Lock, Once};
use crate::rpc::Failure;
use crate::runtime::{self, Call, Runtime, scratch};
use crate::{leftover, stage};

/// A container on its way: enough to stop it.
#[derive(Default)]
pub(crate) struct Birth {
    /// The runtime at work, which leads a process group; 0 before and after.
    runtime: Cell<u32>,
    cancelled: Cell<bool>,
    over: Once<()>,
}

impl Birth {
    /// Ends the runtime and what it has started; the container will not come to be.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        if self.runtime.get() != 0 {
            runtime::end_group(self.runtime.get());
        }
    }

    /// Waits until what was begun is undone.
    pub(crate) async fn over(&self) {
        self.over.wait().await;
    }

    fn check(&self) -> Result<(), Failure> {
        match self.cancelled.get() {
            true => Err(Failure::unknown("killed while being created")),
            false => Ok(()),
        }
    }
}

/// Creates a container: mounts its root file system out of the host's sight and lets the OCI
/// runtime make its first process.
pub(crate) async fn create(
    pod: &Rc<Pod>,
    request: CreateTaskRequest,
) -> Result<CreateTaskResponse, Failure> {
    check_id(&request.id).map_err(Failure::invalid)?;
    let bundle = PathBuf::from(&request.bundle);
    if !bundle.is_absolute() {
        return Err(Failure::invalid(format_args!("bundle {bundle:?} is not absolute")));
    }
    if !request.checkpoint.is_empty() {
        return Err(Failure::unimplemented("restoring from a checkpoint"));
    }
    let birth = pod.begin_birth(&request.id)?;
    let created = born(pod, &request, bundle, &birth).await;
    pod.end_birth(&request.id);
    birth.over.set(());
    let task = created?;
    let pid = task.init.pid;
    pod.tasks.borrow_mut().insert(request.id.clone(), Rc::clone(&task));
    reactor::spawn(exit::watch(Rc::clone(pod), task));
    pod.publish(topic::CREATE, || event(request, pid));
    Ok(CreateTaskResponse { pid })
}

async fn born(
    pod: &Rc<Pod>,
    request: &CreateTaskRequest,
    bundle: PathBuf,
    birth: &Birth,
) -> Result<Rc<Task>, Failure> {
    let (runtime, options, extras) = options::parse(request.options.as_ref(), &pod.namespace)?;
    let names = Names {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let opened = Streams::open(&names, extras, &pod.logger).await;
    let (streams, ends) = opened.map_err(Failure::io("container streams"))?;
    let console = match names.terminal {
        true => Some(ConsoleListener::new(&pod.dir).map_err(Failure::io("console socket"))?),
        false => None,
    };
    leftover::record(&pod.dir, &bundle, &request.id, &runtime).map_err(Failure::io("bundle"))?;
    let plan = Plan { id: &request.id, bundle: &bundle, options: &options, runtime: &runtime };
    birth.check()?;
    let call = plan.call(pod, request, console.as_ref(), ends)?;
    birth.runtime.set(call.pid);
    let expecting = reactor::expect();
    let called = call.finish().await;
    birth.runtime.set(0);
    let made = match called {
        Ok(()) => match birth.check() {
            Ok(()) => adopt(&plan.pid_file(), &names, &streams, console).await,
            Err(failure) => Err(failure),
        },
        Err(error) => Err(Failure::unknown(error)),
    };
    let made = match made {
        Ok((pid, reaped)) => {
            Ok(task(request, bundle, runtime, options, names, streams, pid, reaped))
        }
        Err(failure) => {
            // What the step that failed has left is released too.
            if let Err(error) = runtime.delete_force(&bundle, &request.id).await {
                eprintln!("{}: after a failed create: {error}", request.id);
            }
            leftover::forget(&pod.dir, &bundle, &request.id);
            Err(failure)
        }
    };
    drop(expecting);
    made
}

/// Learns which process the runtime has made.
async fn adopt(
    pid_file: &Path,
    names: &Names,
    streams: &Streams,
    console: Option<ConsoleListener>,
) -> Result<(u32, Rc<Once<Exit>>), Failure> {
    let pid = read_pid(pid_file)?;
    let reaped = reactor::watch(pid);
    if let Some(console) = console {
        streams.connect(names, console, Reader::Restarts).await.map_err(Failure::io("terminal"))?;
    }
    Ok((pid, reaped))
}

#[allow(clippy::too_many_arguments, reason = "the parts of a task, each used once")]
fn task(
    request: &CreateTaskRequest,
    bundle: PathBuf,
    runtime: Runtime,
    options: Options,
    names: Names,
    streams: Streams,
    pid: u32,
    reaped: Rc<Once<Exit>>,
) -> Rc<Task> {
    let cgroup = Cgroup::of(pid);
    let oom = cgroup.as_ref().and_then(|cgroup| {
        OomWatch::new(cgroup)
            .inspect_err(|error| eprintln!("{}: no OOM watch: {error}", request.id))
            .ok()
    });
    let streams = Rc::new(streams);
    let init =
        Process { pid, names, streams, reaped, exit: Rc::default(), killed: Cell::new(false) };
    Rc::new(Task {
        id: request.id.clone(),
        bundle,
        runtime,
        options,
        init,
        execs: Default::default(),
        lock: Lock::default(),
        started: Cell::new(false),
        start_over: Once::default(),
        starting: Cell::new(false),
        paused: Cell::new(false),
        cgroup,
        oom,
    })
}

/// What the runtime's command line is made of.
struct Plan<'a> {
    id: &'a str,
    bundle: &'a Path,
    options: &'a Options,
    runtime: &'a Runtime,
}

impl Plan<'_> {
    fn pid_file(&self) -> PathBuf {
        self.options.pid_path.clone().unwrap_or_else(|| self.bundle.join("pid"))
    }

    fn call(
        &self,
        pod: &Pod,
        request: &CreateTaskRequest,
        console: Option<&ConsoleListener>,
        ends: Ends,
    ) -> Result<Call, Failure> {
        let log = scratch(self.bundle, "log");
        let pid_file = self.pid_file();
        let mut line = self.runtime.arguments(&log);
        line.extend([OsStr::new("create"), OsStr::new("--bundle"), self.bundle.as_os_str()]);
        line.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        if let Some(console) = console {
            line.extend([OsStr::new("--console-socket"), console.path().as_os_str()]);
        }
        if self.options.no_pivot {
            line.push(OsStr::new("--no-pivot"));
        }
        if self.options.no_new_keyring {
            line.push(OsStr::new("--no-new-keyring"));
        }
        line.push(OsStr::new(self.id));
        let rootfs = self.bundle.join("rootfs");
        let scene = stage::Scene {
            mounts: &request.rootfs,
            rootfs: &rootfs,
            volumes: &self.options.volumes,
            users: self.options.users.as_ref(),
        };
        let program = self.runtime.program();
        let mut command: Command = stage::runtime(pod.restore_score, &scene, &log, &program, &line);
        command.current_dir(self.bundle).stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
        let what = format!("{} create", self.runtime.name());
        Call::spawn(&mut command, what, log, None).map_err(Failure::io(self.runtime.name()))
    }
}

/// The pid that a runtime wrote.
pub(super) fn read_pid(path: &Path) -> Result<u32, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::io("pid file"))?;
    text.trim().parse().map_err(|_| Failure::unknown(format_args!("pid file says {text:?}")))
}

fn event(request: CreateTaskRequest, pid: u32) -> TaskCreate {
    TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: Some(TaskIo {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        }),
        checkpoint: request.checkpoint,
        pid,
    }
}
