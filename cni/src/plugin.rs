//! One call of one plugin: its executable, environment and configuration, and what it answers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;

use crate::attachment::Attachment;
use crate::config::check_plugin_type;
use crate::deadline::Deadline;
use crate::error::{Answer, Error, Result, Verb};
use crate::process::{self, Failure, Output, Program};

/// What a plugin sees of our environment. Plugins execute other programs and may talk to an API server.
const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// For a daemon that was started without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of an unexpected output goes into an error.
const EXCERPT: usize = 512;

/// A call that is about to be made.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) verb: Verb,
    /// The plugin's `type`.
    pub(crate) plugin: &'a str,
    /// Absent for verbs that are not about one.
    pub(crate) attachment: Option<&'a Attachment>,
    pub(crate) bin_dirs: &'a [PathBuf],
    /// What it reads.
    pub(crate) config: &'a [u8],
    /// Where it looks for other programs first.
    pub(crate) detour: Vec<PathBuf>,
    pub(crate) max_output: usize,
}

/// Makes the call. Gives what the plugin printed if it succeeded.
pub(crate) fn execute(call: &Call<'_>, deadline: &Deadline) -> Result<Vec<u8>> {
    let path = find(call)?;
    let program = Program {
        path: &path,
        args: Vec::new(),
        env: environment(call)?,
        stdin: call.config,
        max_stdout: call.max_output,
    };
    let started = Instant::now();
    deadline.tell(format!("plugin {}", path.display()));
    let outcome = process::run(&program, deadline);
    deadline.tell(String::new());
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let verb = call.verb.command();
    tracing::debug!(plugin = call.plugin, verb, ms = took, ok = outcome.is_ok(), "cni plugin");
    let output = outcome.map_err(|failure| call.failed(failure, &path, deadline))?;
    if !output.stderr.is_empty() {
        tracing::debug!(
            plugin = call.plugin,
            verb,
            stderr = excerpt_end(&output.stderr),
            "cni plugin said"
        );
    }
    call.interpret(output)
}

/// The plugin's executable: the first regular file of its name in the directories.
pub(crate) fn locate(plugin: &str, bin_dirs: &[PathBuf]) -> Result<Option<PathBuf>> {
    check_plugin_type(plugin)?;
    Ok(bin_dirs.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file()))
}

fn find(call: &Call<'_>) -> Result<PathBuf> {
    locate(call.plugin, call.bin_dirs)?.ok_or_else(|| Error::Missing {
        plugin: call.plugin.to_owned(),
        verb: call.verb,
        dirs: call.bin_dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":"),
    })
}

/// Where other programs are looked for.
pub(crate) fn path_variable() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into())
}

fn environment(call: &Call<'_>) -> Result<Vec<(&'static str, OsString)>> {
    let mut env: Vec<_> =
        INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    if env.first().is_none_or(|(name, _)| *name != "PATH") {
        env.insert(0, ("PATH", DEFAULT_PATH.into()));
    }
    if !call.detour.is_empty() {
        let path = &mut env[0].1;
        let dirs = call.detour.iter().cloned().chain(std::env::split_paths(path));
        *path = std::env::join_paths(dirs)
            .map_err(|e| Error::invalid(format!("directories of engines: {e}")))?;
    }
    let dirs = std::env::join_paths(call.bin_dirs)
        .map_err(|e| Error::invalid(format!("directories of plugins: {e}")))?;
    let none = Attachment::default();
    let attachment = call.attachment.unwrap_or(&none);
    let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
    env.extend([
        ("CNI_COMMAND", call.verb.command().into()),
        ("CNI_CONTAINERID", attachment.container_id.clone().into()),
        ("CNI_NETNS", netns.into()),
        ("CNI_IFNAME", attachment.ifname.clone().into()),
        ("CNI_ARGS", attachment.args_variable().into()),
        ("CNI_PATH", dirs),
    ]);
    Ok(env)
}

impl Call<'_> {
    fn failed(&self, failure: Failure, path: &Path, deadline: &Deadline) -> Error {
        match failure {
            Failure::Io(op, source) => self.broken(format!("{op} {}: {source}", path.display())),
            Failure::TooMuch => self.broken(format!("printed more than {} bytes", self.max_output)),
            Failure::Over(over) => deadline.error(over, self.plugin, self.verb),
        }
    }

    pub(crate) fn broken(&self, problem: String) -> Error {
        Error::Broken { plugin: self.plugin.to_owned(), verb: self.verb, problem }
    }

    /// A success is an exit with 0, unless what was printed is an error all the same.
    fn interpret(&self, output: Output) -> Result<Vec<u8>> {
        let answer = error_object(&output.stdout);
        if output.status.success() && answer.is_none() {
            return Ok(output.stdout);
        }
        if let Some(answer) = answer {
            return Err(Error::Refused { plugin: self.plugin.to_owned(), verb: self.verb, answer });
        }
        let mut problem = format!("{} without an error object", output.status);
        for (name, text) in
            [("stdout", excerpt(&output.stdout)), ("stderr", excerpt_end(&output.stderr))]
        {
            if !text.is_empty() {
                problem.push_str(&format!("; {name}: \"{text}\""));
            }
        }
        Err(self.broken(problem))
    }
}

/// The error object of the specification, if that is what was printed.
fn error_object(stdout: &[u8]) -> Option<Answer> {
    #[derive(Deserialize)]
    struct Object {
        code: u64,
        #[serde(default)]
        msg: String,
        #[serde(default)]
        details: String,
    }
    let Object { code, msg, details } = serde_json::from_slice(stdout).ok()?;
    (code != 0 || !msg.is_empty()).then_some(Answer { code, msg, details })
}

/// The beginning of an output, printable.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]);
    let dots = if bytes.len() > EXCERPT { "…" } else { "" };
    format!("{}{dots}", text.trim().escape_debug())
}

/// The end of an output, printable.
fn excerpt_end(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(EXCERPT)..]);
    let dots = if bytes.len() > EXCERPT { "…" } else { "" };
    format!("{dots}{}", text.trim().escape_debug())
}
