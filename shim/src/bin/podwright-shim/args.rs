//! The command line that containerd's shim protocol prescribes.

use std::path::PathBuf;

/// What the shim was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Make a shim for a pod and print how to reach it.
    Start,
    /// Clean up after a shim that is no more.
    Delete,
    /// Be the shim (ours: what `start` runs in the background).
    Serve,
    /// `-info`: describe the runtime.
    Info,
    /// `-v`: print the version.
    Version,
}

/// Everything that can be said on the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) command: Command,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// The daemon's own socket; known only to find where containerd keeps sockets.
    pub(crate) address: String,
    /// Where events go, over ttrpc; empty: nowhere.
    pub(crate) events: String,
    pub(crate) bundle: Option<PathBuf>,
    /// The socket file that `serve` removes at its end.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) debug: bool,
}

impl Args {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            command: Command::Version,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            events: String::new(),
            bundle: None,
            socket: None,
            debug: false,
        };
        let (mut command, mut asked) = (None, None);
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let Some(flag) = argument.strip_prefix('-') else {
                command = Some(argument);
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => args.debug = given.as_deref() != Some("false"),
                "info" => asked = Some(Command::Info),
                "v" | "version" => asked = Some(Command::Version),
                _ => {
                    let value = given.or_else(|| rest.next());
                    let value = value.ok_or_else(|| format!("-{name} needs a value"))?;
                    args.set(name, value)?;
                }
            }
        }
        args.command = match (asked, command.as_deref()) {
            (Some(asked), _) => asked,
            (None, Some("start")) => Command::Start,
            (None, Some("delete")) => Command::Delete,
            (None, Some("serve")) => Command::Serve,
            (None, other) => return Err(format!("unknown command {:?}", other.unwrap_or(""))),
        };
        if matches!(args.command, Command::Start | Command::Delete | Command::Serve) {
            check_id(&args.id)?;
        }
        Ok(args)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "events" => self.events = value,
            "bundle" => self.bundle = Some(value.into()),
            "socket" => self.socket = Some(value.into()),
            // Known to the protocol, of no use here: events go over ttrpc.
            "publish-binary" => {}
            _ => return Err(format!("unknown flag -{name}")),
        }
        Ok(())
    }
}

/// Ids become file names and arguments, so they are plain words.
pub(crate) fn check_id(id: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && id.len() <= 128 && id.bytes().all(plain) {
        Ok(())
    } else {
        Err(format!("invalid id {id:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerd_s_command_lines() {
        let args = parse(
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/d -id abc -debug start",
        )
        .expect("valid");
        assert_eq!(args.command, Command::Start);
        assert_eq!(
            (args.namespace.as_str(), args.id.as_str(), args.debug),
            ("k8s.io", "abc", true)
        );
        let args = parse("--namespace=n -id a.b -bundle /b delete").expect("valid");
        assert_eq!((args.command, args.bundle), (Command::Delete, Some("/b".into())));
        assert_eq!(parse("-info").map(|args| args.command), Ok(Command::Info));
        assert_eq!(parse("-v").map(|args| args.command), Ok(Command::Version));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("-id a launch"), Err("unknown command \"launch\"".into()));
        assert_eq!(parse("-id ../a start"), Err("invalid id \"../a\"".into()));
        assert_eq!(parse("-id"), Err("-id needs a value".into()));
        assert_eq!(parse("-x y start"), Err("unknown flag -x".into()));
    }
}
