//! podwrightd: a Kubernetes container runtime. One daemon for each node, driven over CRI v1.

#![deny(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod config;
mod container;
mod cri;
mod daemon;
mod error;
mod export;
mod failpoint;
#[cfg(test)]
pub mod fuzz;
mod host;
mod id;
mod image;
mod leftover;
mod metric;
mod operation;
mod recorder;
mod recover;
mod resource;
mod sandbox;
mod scrape;
mod store;
mod stream;
#[allow(unsafe_code)]
mod sys;
mod systemd;
mod telemetry;
mod trace;
mod watchdog;

use config::Config;

/// glibc's allocator keeps what many threads once used; the daemon's memory is a promise.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Kubernetes container runtime: serves CRI v1 to the kubelet and crictl.
#[derive(Debug, Parser)]
#[command(name = "podwrightd", version)]
struct Arguments {
    /// Configuration file; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and exit
    #[arg(long)]
    check: bool,
}

/// sysexits.h: the configuration is wrong.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    systemd::listen();
    let arguments = Arguments::parse();
    let path = arguments.config.clone().unwrap_or_else(|| config::DEFAULT_PATH.into());
    let config = match Config::load(&path, arguments.config.is_some()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    if arguments.check {
        if let Some(mistake) = image::verify::Settings::new(&config).mistake() {
            eprintln!("image: {mistake}");
            return ExitCode::from(EX_CONFIG);
        }
        println!("{}: no mistakes", path.display());
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("podwrightd: has to run as root: it makes namespaces, mounts and cgroups");
        return ExitCode::FAILURE;
    }
    telemetry::init(&config.log_level);
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!(%err, "cannot go on");
            ExitCode::FAILURE
        }
    }
}
