//! `podwright`: looks at the pods of this node, runs some, and shows what went wrong.
//!
//! It talks CRI to podwrightd over the unix socket, as the kubelet does, so it sees what the
//! kubelet sees. Each verb is a module of its name: its arguments, and `run`.

#![forbid(unsafe_code)]

mod attach;
mod cp;
mod daemon;
mod doctor;
mod events;
mod exec;
mod failure;
mod find;
mod fsck;
mod human;
mod image;
mod images;
mod inspect;
mod json;
mod log_file;
mod logs;
mod ops;
mod pods;
mod port_forward;
mod ps;
mod pull;
mod registry;
mod rm;
mod rmi;
mod run;
mod session;
mod stats;
mod stop;
mod table;
mod tls;
mod top;
mod usage;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::daemon::Daemon;

/// After the verbs' own options in their help.
const LAST: usize = 900;

/// Runs pods on this node and looks at them, through podwrightd.
#[derive(Debug, Parser)]
#[command(name = "podwright", version, disable_help_subcommand = true)]
struct Cli {
    /// The socket of podwrightd
    #[arg(
        long,
        global = true,
        display_order = LAST,
        env = "PODWRIGHT_SOCKET",
        default_value = "/run/podwright/podwright.sock",
        hide_env_values = true,
        value_name = "PATH",
        value_parser = daemon::parse_socket
    )]
    socket: PathBuf,
    #[command(flatten)]
    tls: tls::Tls,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Args),
    Ps(ps::Args),
    Pods(pods::Args),
    Images(images::Args),
    Image(image::Args),
    Pull(pull::Args),
    Registry(registry::Args),
    Logs(logs::Args),
    Exec(exec::Args),
    Attach(attach::Args),
    PortForward(port_forward::Args),
    Cp(cp::Args),
    Stop(stop::Args),
    Rm(rm::Args),
    Rmi(rmi::Args),
    Inspect(inspect::Args),
    Stats(stats::Args),
    Top(top::Args),
    Events(events::Args),
    Ops(ops::Args),
    Fsck(fsck::Args),
    Doctor(doctor::Args),
    Version(version::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match obey(cli).await {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podwright: {}", failure::describe(&error));
            ExitCode::FAILURE
        }
    }
}

async fn obey(cli: Cli) -> anyhow::Result<ExitCode> {
    let verb = match cli.verb {
        Verb::Version(args) => return version::run(args, &cli.socket).await,
        Verb::Doctor(args) => return doctor::run(args, &cli.socket, cli.tls).await,
        verb => verb,
    };
    let mut daemon = Daemon::connect(&cli.socket, cli.tls).await?;
    match verb {
        Verb::Run(args) => run::run(args, &mut daemon).await,
        Verb::Ps(args) => ps::run(args, &mut daemon).await,
        Verb::Pods(args) => pods::run(args, &mut daemon).await,
        Verb::Images(args) => images::run(args, &mut daemon).await,
        Verb::Image(args) => image::run(args, &mut daemon).await,
        Verb::Pull(args) => pull::run(args, &mut daemon).await,
        Verb::Registry(args) => registry::run(args, &mut daemon).await,
        Verb::Logs(args) => logs::run(args, &mut daemon).await,
        Verb::Exec(args) => exec::run(args, &mut daemon).await,
        Verb::Attach(args) => attach::run(args, &mut daemon).await,
        Verb::PortForward(args) => port_forward::run(args, &mut daemon).await,
        Verb::Cp(args) => cp::run(args, &mut daemon).await,
        Verb::Stop(args) => stop::run(args, &mut daemon).await,
        Verb::Rm(args) => rm::run(args, &mut daemon).await,
        Verb::Rmi(args) => rmi::run(args, &mut daemon).await,
        Verb::Inspect(args) => inspect::run(args, &mut daemon).await,
        Verb::Stats(args) => stats::run(args, &mut daemon).await,
        Verb::Top(args) => top::run(args, &mut daemon).await,
        Verb::Events(args) => events::run(args, &mut daemon).await,
        Verb::Ops(args) => ops::run(args, &mut daemon).await,
        Verb::Fsck(args) => fsck::run(args, &mut daemon).await,
        Verb::Version(_) | Verb::Doctor(_) => {
            unreachable!("answered above, without a daemon")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }
}
