//! How a session's end is told on its error stream.

use bytes::Bytes;
use serde_json::json;

/// What a client understands. Each version has what those before it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V1,
    /// Ends of standard input.
    V2,
    /// Sizes of terminals.
    V3,
    /// A status with the exit code.
    V4,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// A command ended by itself, and not well.
    Exited {
        command: Vec<String>,
        code: i32,
    },
    Failed(String),
}

impl Outcome {
    /// What stands on the error stream; nothing tells a client before version 4 of success.
    pub(super) fn text(&self, version: Version) -> Option<Bytes> {
        let status = match (self, version >= Version::V4) {
            (Self::Success, false) => return None,
            (Self::Exited { .. } | Self::Failed(_), false) => return Some(self.message().into()),
            (Self::Success, true) => json!({"metadata": {}, "status": "Success"}),
            (Self::Exited { code, .. }, true) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            (Self::Failed(_), true) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {}", self.message()),
                "reason": "InternalError",
                "details": {"causes": [{"message": self.message()}]},
                "code": 500,
            }),
        };
        Some(status.to_string().into())
    }

    fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exited { command, code } => format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                command.join(" ")
            ),
            Self::Failed(reason) => reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_where_clients_look_for_it() {
        let command = ["sh", "-c", "exit 3"].map(str::to_owned).to_vec();
        let outcome = Outcome::Exited { command, code: 3 };
        let status: serde_json::Value =
            serde_json::from_slice(&outcome.text(Version::V4).unwrap()).unwrap();
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let text = outcome.text(Version::V3).unwrap();
        assert!(text.ends_with(b"error executing command [sh -c exit 3], exit code 3"));
        assert_eq!(Outcome::Success.text(Version::V2), None);
        let success: serde_json::Value =
            serde_json::from_slice(&Outcome::Success.text(Version::V4).unwrap()).unwrap();
        assert_eq!(success["status"], "Success");
    }
}
