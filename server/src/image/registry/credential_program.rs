//! Docker's credential helpers: `docker-credential-<name> get`, the server on its standard input, a login as
//! JSON on its standard output.
//!
//! What a helper prints is never logged.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;

use super::super::error::Error;
use super::super::program::{self, Call, Excess};
use super::credentials::Login;

/// Longest answer.
const MAX_ANSWER: usize = 256 << 10;
/// How long a helper may take; some ask a cloud's service.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What a helper prints when it has nothing for a server.
const NONE: &str = "credentials not found";
/// The user name by which a helper says that the secret is an identity token.
const TOKEN: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper; `None`: it has nothing for that server. Blocks.
pub(super) fn get(name: &str, server: &str, patience: Duration) -> Result<Option<Login>, Error> {
    let program = format!("docker-credential-{name}");
    let told = |why: String| Error::Config(format!("{program}: {why}"));
    // The name goes into the search for an executable, so it must not lead elsewhere.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(Error::Config(format!("{name:?} is no credential helper's name")));
    }
    let (status, output) = run(&program, server, patience).map_err(told)?;
    if !status.success() {
        // Docker's own helpers say so on standard output.
        if String::from_utf8_lossy(&output).to_lowercase().contains(NONE) {
            return Ok(None);
        }
        return Err(told(format!("it fails for {server}: {status}")));
    }
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| told(format!("it does not answer with a login for {server}")))?;
    Ok(match answer {
        Answer { secret, .. } if secret.is_empty() => None,
        Answer { username, secret } if username == TOKEN => Some(Login::Identity(secret)),
        Answer { username, secret } => Some(Login::Password { username, password: secret }),
    })
}

fn run(program: &str, server: &str, patience: Duration) -> Result<(ExitStatus, Vec<u8>), String> {
    program::run(&Call {
        program: Path::new(program),
        args: &["get"],
        input: server.as_bytes(),
        patience,
        most: MAX_ANSWER,
        excess: Excess::Refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "../x", "a/b", "x y"] {
            assert!(get(name, "r.io", PATIENCE).is_err(), "{name}");
        }
        let err = get("surely-not-there", "r.io", PATIENCE).unwrap_err().to_string();
        assert!(err.starts_with("docker-credential-surely-not-there: "), "{err}");
    }
}
