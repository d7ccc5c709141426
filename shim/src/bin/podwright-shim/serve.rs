//! The shim itself, from the moment `start` has forked it off.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::Mode;

use crate::args::Args;
use crate::pod::Pod;
use crate::publish::Publisher;
use crate::reactor::{self, Source};
use crate::{rpc, start, sys};

/// Out of the OOM killer's way, as far as we are permitted.
const OOM_SCORE: &str = "-999";
const OOM_SCORE_FILE: &str = "/proc/self/oom_score_adj";

/// Serves until the pod is over.
pub(crate) fn run(args: Args) -> Result<(), String> {
    sys::close_from(3);
    sys::tune_allocator();
    let what = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(what("listener"))?;
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"podwright-shim");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let us = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(us).map_err(|error| what("subreaper")(error.into()))?;
    let score = lower_oom_score();
    let signals = sys::signal_descriptor(&[
        libc::SIGCHLD,
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ]);
    let signals = signals.map_err(what("signals"))?;
    let dir = std::env::current_dir().map_err(what("bundle"))?;
    let socket = args.socket.clone();
    let served = reactor::run(async move {
        let publisher = Publisher::new(&args.events, &args.namespace);
        let pod = Rc::new(Pod::new(args.id, args.namespace, dir, publisher, score));
        reactor::spawn(watch_signals(signals));
        reactor::spawn(rpc::listen(listener, pod));
        announce();
    });
    if let Some(socket) = socket {
        let _ = fs::remove_file(socket);
    }
    served.map_err(what("event loop"))
}

/// The score that containers must get back, if ours could be lowered.
fn lower_oom_score() -> Option<i32> {
    let before = fs::read_to_string(OOM_SCORE_FILE).ok()?.trim().parse().ok()?;
    fs::write(OOM_SCORE_FILE, OOM_SCORE).is_ok().then_some(before)
}

/// Children are reaped. Requests to end are not followed: a pod's containers would lose their
/// parent and their logs; Shutdown is the way.
async fn watch_signals(signals: OwnedFd) {
    let Ok(signals) = Source::new(signals) else { return };
    let mut buffer = [0; size_of::<libc::signalfd_siginfo>() * 8];
    loop {
        reactor::reap();
        if signals.read_with(|fd| rustix::io::read(fd, &mut buffer)).await.is_err() {
            return;
        }
    }
}

/// Tells `start` that we serve, and lets go of the streams that were for it.
fn announce() {
    let mut output = io::stdout();
    let _ = output.write_all(start::READY).and_then(|()| output.flush());
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
