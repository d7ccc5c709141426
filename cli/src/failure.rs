//! What a user is told when something fails.

use std::io::ErrorKind;

use tonic::{Code, Status};

use crate::human::visible;

/// One line: the context from the outside in, then what the daemon said, without gRPC's dressing.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let status = cause.downcast_ref::<Status>();
        let part = status.map_or_else(|| cause.to_string(), told);
        // Some errors repeat their source.
        if !parts.last().is_some_and(|last| last.ends_with(&part)) {
            parts.push(part);
        }
        if status.is_some() {
            break;
        }
    }
    visible(&parts.join(": "))
}

/// What a refusal says, or what its code means when it says nothing.
pub(crate) fn told(status: &Status) -> String {
    match (status.message(), status.code()) {
        ("", Code::Unimplemented) => "podwrightd cannot do this yet".into(),
        ("", code) => code.description().into(),
        (message, _) => message.into(),
    }
}

/// Whether the failure is a refusal with this code.
pub(crate) fn has_code(error: &anyhow::Error, code: Code) -> bool {
    error.downcast_ref::<Status>().is_some_and(|status| status.code() == code)
}

/// Whether the reader of our output went away, which is no failure.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        let refused = Err::<(), _>(Status::not_found("image \"x\": not found"));
        let error = refused.context("pulling x").unwrap_err();
        assert_eq!(describe(&error), "pulling x: image \"x\": not found");
        let error = Err::<(), _>(Status::unimplemented("")).context("checkpoint").unwrap_err();
        assert_eq!(describe(&error), "checkpoint: podwrightd cannot do this yet");
    }

    #[test]
    fn a_hostile_message_cannot_drive_the_terminal() {
        let error = anyhow::Error::from(Status::unknown("registry says \u{1b}[2J\nbye"));
        assert_eq!(describe(&error), "registry says \\u{1b}[2J\nbye");
    }

    #[test]
    fn a_closed_pipe_is_recognised_below_context() {
        let broken = std::io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::from(broken).context("printing")));
        assert!(!is_closed_pipe(&anyhow::anyhow!("no")));
    }
}
