//! The work of the usual plugins, done in-process: what `bridge`, `ptp`, `loopback`, `tuning`, `portmap` and
//! `firewall` do, with `host-local` for the addresses.
//!
//! The effects, the state on disk and the result are those of the plugins' executables, so that one chain can mix
//! both, and whatever one made the other takes away. [`plan`] decides for each plugin of a chain: only what is
//! understood to the last key is done here, everything else is left to the executable, which also says what is
//! wrong with a configuration that is. Each module has a strict `parse`, an `add` and a `del`; `del` is idempotent
//! and works without a network namespace and without a previous result.
//!
//! Nothing is executed here where netlink or a file does, and nothing sleeps. A deadline or a cancel is noticed
//! between the requests to the kernel, and while something is waited for; a request that the kernel has begun ends
//! when the kernel ends it.

use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

use crate::attachment::Attachment;
use crate::config::Fields;
use crate::deadline::{Deadline, Over};
use crate::error::{Answer, Error, Result, Verb};
use crate::netlink::Socket;
use crate::result::CniResult;
use crate::version::SpecVersion;

mod answer;
mod bridge;
mod dns;
mod firewall;
mod host_local;
mod interface;
mod keys;
mod loopback;
mod masquerade;
mod portmap;
mod ptp;
mod rules;
mod sysctl;
mod tuning;
mod turn;

pub(crate) use host_local::Lock as LeaseLock;
pub(crate) use rules::{elsewhere, engines, find_out};

/// The versions of the specification that results can be written in here.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What plugins answer when no code of the specification fits.
const INTERNAL: u64 = 999;

/// A plugin whose work is done in-process, with its configuration.
#[derive(Debug)]
pub(crate) enum Native {
    Loopback,
    Bridge(bridge::Conf),
    Ptp(ptp::Conf),
    Tuning(tuning::Conf),
    Portmap(portmap::Conf),
    Firewall(firewall::Conf),
}

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) verb: Verb,
    /// The plugin's `type`.
    pub(crate) plugin: &'a str,
    /// The network's name.
    pub(crate) network: &'a str,
    /// The version to answer in, as the configuration spells it.
    pub(crate) cni_version: &'a str,
    pub(crate) version: SpecVersion,
    pub(crate) attachment: &'a Attachment,
    pub(crate) deadline: &'a Deadline,
    /// Only what the plugin's executable, which did this before, could not reach.
    pub(crate) is_beside: bool,
}

impl<'a> Job<'a> {
    /// The pod's network namespace; none where there is none (any more).
    pub(crate) fn netns(&self) -> Option<&'a Path> {
        self.attachment.netns.as_deref()
    }

    pub(crate) fn container_id(&self) -> &'a str {
        &self.attachment.container_id
    }

    pub(crate) fn ifname(&self) -> &'a str {
        &self.attachment.ifname
    }

    /// The plugin says no.
    pub(crate) fn refused(&self, message: impl Display) -> Error {
        let answer = Answer { code: INTERNAL, msg: message.to_string(), details: String::new() };
        Error::Refused { plugin: self.plugin.to_owned(), verb: self.verb, answer }
    }

    /// Is there still time, and anybody who waits? Asked between two steps.
    pub(crate) fn check(&self) -> Result<()> {
        self.deadline.check().map_err(|over| self.over(over))
    }

    /// Nobody waits any more.
    pub(crate) fn over(&self, over: Over) -> Error {
        self.deadline.error(over, self.plugin, self.verb)
    }

    /// Asks the kernel about the network namespace that the thread is in.
    pub(crate) fn socket(&self) -> Result<Socket> {
        Socket::route().map_err(|e| self.refused(format_args!("netlink: {e}")))
    }
}

/// The work of the plugin `kind`, if all that `fields` says is understood. `fields` is what its executable would
/// read: its part of the list, and what the runtime adds.
pub(crate) fn plan(
    kind: &str,
    fields: &Fields,
    cni_version: &str,
    attachment: &Attachment,
) -> Option<Native> {
    if !VERSIONS.contains(&cni_version) {
        return None;
    }
    match kind {
        "loopback" => loopback::parse(fields, attachment).map(|()| Native::Loopback),
        "bridge" => bridge::parse(fields, attachment).map(Native::Bridge),
        "ptp" => ptp::parse(fields, attachment).map(Native::Ptp),
        "tuning" => tuning::parse(fields, attachment).map(Native::Tuning),
        "portmap" => portmap::parse(fields, attachment.engines).map(Native::Portmap),
        "firewall" => firewall::parse(fields, attachment.engines).map(Native::Firewall),
        _ => None,
    }
}

impl Native {
    /// Attaches. What a failure leaves behind is released by [`Native::del`].
    pub(crate) fn add(&self, job: &Job<'_>, previous: Option<&CniResult>) -> Result<CniResult> {
        timed(job, || match self {
            Self::Loopback => loopback::add(job, previous),
            Self::Bridge(conf) => bridge::add(conf, job),
            Self::Ptp(conf) => ptp::add(conf, job),
            Self::Tuning(conf) => tuning::add(conf, job, previous),
            Self::Portmap(conf) => portmap::add(conf, job, previous),
            Self::Firewall(conf) => firewall::add(conf, job, previous),
        })
    }

    /// Detaches.
    pub(crate) fn del(&self, job: &Job<'_>, previous: Option<&CniResult>) -> Result<()> {
        timed(job, || match self {
            Self::Loopback => loopback::del(job),
            Self::Bridge(conf) => bridge::del(conf, job, previous),
            Self::Ptp(conf) => ptp::del(conf, job, previous),
            Self::Tuning(conf) => tuning::del(conf, job, previous),
            Self::Portmap(conf) => portmap::del(conf, job, previous),
            Self::Firewall(_) => firewall::del(job, previous),
        })
    }

    /// Takes away the rules that other engines than the node's have of an attachment, after the executable's DEL.
    pub(crate) fn sweep(&self, job: &Job<'_>, previous: Option<&CniResult>) -> Result<()> {
        match self {
            Self::Bridge(bridge::Conf { masquerade: true, .. })
            | Self::Ptp(ptp::Conf { masquerade: true, .. }) => masquerade::del(job, &[]),
            Self::Loopback | Self::Tuning(_) | Self::Bridge(_) | Self::Ptp(_) => Ok(()),
            Self::Portmap(conf) => portmap::del(conf, job, previous),
            Self::Firewall(_) => firewall::del(job, previous),
        }
    }
}

fn timed<T>(job: &Job<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    job.check()?;
    let started = Instant::now();
    job.deadline.tell(format!("plugin {} (in-process)", job.plugin));
    let outcome = work();
    job.deadline.tell(String::new());
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let verb = job.verb.command();
    tracing::debug!(plugin = job.plugin, verb, ms = took, ok = outcome.is_ok(), "cni in-process");
    outcome
}
