//! `./dev soak --minutes N [--pods M] [--restarts] [--json FILE]`: whether anything rises while a node works.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use e2e::{place, soak};

struct Arguments {
    settings: soak::Settings,
    json: PathBuf,
}

fn arguments() -> anyhow::Result<Arguments> {
    let (mut minutes, mut pods, mut restarts) = (10.0, 8, false);
    let mut json = place::scratch().join("soak.json");
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--minutes" => minutes = value()?.parse()?,
            "--pods" => pods = value()?.parse()?,
            "--json" => json = value()?.into(),
            "--restarts" => restarts = true,
            _ => bail!("{word:?}: there are --minutes N, --pods M, --restarts and --json FILE"),
        }
    }
    let length = Duration::try_from_secs_f64(60.0 * minutes).context("--minutes")?;
    Ok(Arguments { settings: soak::Settings { length, pods, restarts }, json })
}

fn main() -> ExitCode {
    let Arguments { settings, json } = match arguments() {
        Ok(arguments) => arguments,
        Err(err) => {
            eprintln!("soak: {err:#}");
            return ExitCode::from(2);
        }
    };
    let report = soak::run(settings);
    println!("{}", report.table());
    match std::fs::write(&json, report.json().to_string()) {
        Ok(()) => println!("as JSON: {}", json.display()),
        Err(err) => eprintln!("{}: {err}", json.display()),
    }
    let problems = report.problems();
    if problems.is_empty() {
        println!("flat, and nothing is left");
        return ExitCode::SUCCESS;
    }
    eprintln!("soak: {}", problems.join("\nsoak: "));
    ExitCode::FAILURE
}
