//! podwright-shim: one process per pod. It is the parent of the pod's containers, holds the
//! pod's namespaces and writes the containers' logs; it outlives the daemon that started it.
//!
//! To a daemon it speaks containerd's shim protocol (Task v2 and v3, Sandbox v1, over ttrpc), so
//! it also works under containerd. One thread runs everything (see `reactor`), a second one
//! writes logs (see `log`). There is no pause container: namespaces are held as descriptors.
//!
//! What it never does: mount anything that the host sees, wait in its event loop for a disk or
//! for a program, or end while it has containers.

#![deny(unsafe_code)]

mod args;
mod cgroup;
mod delete;
mod info;
mod leftover;
mod log;
mod pod;
mod program;
mod publish;
mod reactor;
mod rpc;
mod runtime;
mod serve;
mod stage;
mod start;
#[allow(unsafe_code)]
mod sys;
mod task;

use std::io::Write;
use std::process::ExitCode;

use args::{Args, Command};

fn main() -> ExitCode {
    stage::run_if_asked();
    let outcome = Args::parse(std::env::args().skip(1)).and_then(|args| match args.command {
        Command::Start => start::run(&args),
        Command::Delete => delete::run(&args),
        Command::Info => info::run(),
        Command::Version => version(),
        // Ends the process itself: what the event loop still holds needs no taking down.
        Command::Serve => serve::run(args).map(|()| std::process::exit(0)),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podwright-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn version() -> Result<(), String> {
    let line = format!("podwright-shim:\n  Version: {}\n", env!("CARGO_PKG_VERSION"));
    std::io::stdout().write_all(line.as_bytes()).map_err(|error| error.to_string())
}
