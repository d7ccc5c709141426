//! Which systemd the node has.

use std::process::Command;
use std::time::Duration;

use super::process;

/// It prints its version without asking anybody.
const LIMIT: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 16 << 10;

/// Its version; `None` if it does not tell. Blocks.
pub(super) fn version() -> Option<u32> {
    match process::output(Command::new("systemctl").arg("--version"), LIMIT, MAX_ANSWER) {
        Ok((_, answer)) => parse(&answer),
        Err(err) => {
            tracing::warn!(err, "systemctl tells no version");
            None
        }
    }
}

/// `systemd 257 (257.9-1~deb13u1)`, and lines of features.
fn parse(answer: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(answer);
    let number = text.strip_prefix("systemd ")?.split(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(parse(b"systemd 257 (257.9-1~deb13u1)\n+PAM +AUDIT\n"), Some(257));
        assert_eq!(parse(b"systemd 252\n"), Some(252));
        assert_eq!(parse(b"systemd 259~rc1 (x)\n"), Some(259));
        for other in [&b""[..], b"systemd", b"systemd x", b"elogind 252"] {
            assert_eq!(parse(other), None);
        }
    }
}
