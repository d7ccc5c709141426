//! The process of a container: arguments, environment, working directory, identity and limits.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, Process, User};

use super::super::config::ContainerConfig;
use super::{Identity, ImageView, Input, Node, caps};
use crate::config::Rlimit;
use crate::error::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_TERM: &str = "TERM=xterm";

pub(super) fn process(input: &Input<'_>, caps: &caps::Sets, identity: Identity) -> Result<Process> {
    let Input { config, image, place, node, .. } = *input;
    let mut user = User::default();
    user.set_uid(identity.uid).set_gid(identity.gid).set_additional_gids(Some(identity.groups));
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(user)
        .set_args(Some(args(config, image)?))
        .set_env(Some(env(config, image, &place.hostname)?))
        .set_cwd(cwd(config, image)?.into())
        .set_capabilities(Some(caps.to_oci()))
        .set_rlimits(rlimits(input))
        .set_no_new_privileges(Some(config.security.no_new_privs))
        .set_apparmor_profile(input.facts.apparmor.clone())
        .set_selinux_label(selinux(input))
        .set_oom_score_adj(Some(oom_score_adj(config, node)));
    Ok(process)
}

/// A command of the request drops the image's entrypoint and its command; arguments drop the command only.
fn args(config: &ContainerConfig, image: &ImageView) -> Result<Vec<String>> {
    let mut all = config.command.clone();
    if all.is_empty() {
        // An entrypoint of one empty string is how image builders unset it.
        if image.entrypoint != [""] {
            all.clone_from(&image.entrypoint);
        }
        let args = if config.args.is_empty() { &image.cmd } else { &config.args };
        all.extend(args.iter().cloned());
    } else {
        all.extend(config.args.iter().cloned());
    }
    if all.is_empty() {
        return Err(Error::invalid("command", "neither the container nor its image names one"));
    }
    if all.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::invalid("the image's command", "contains a NUL byte"));
    }
    Ok(all)
}

/// Defaults, then the image's, then the request's; a later value replaces an earlier one in its place.
fn env(config: &ContainerConfig, image: &ImageView, hostname: &str) -> Result<Vec<String>> {
    let mut env = Environment::default();
    env.set(DEFAULT_PATH.into());
    if config.tty {
        env.set(DEFAULT_TERM.into());
    }
    env.set(format!("HOSTNAME={hostname}"));
    for variable in &image.env {
        if variable.contains('\0') {
            return Err(Error::invalid("the image's environment", "contains a NUL byte"));
        }
        // One without a value sets nothing.
        if variable.contains('=') {
            env.set(variable.clone());
        }
    }
    for variable in &config.envs {
        // The spec is JSON and cannot hold other bytes; the field's runtimes put U+FFFD there too.
        let value = String::from_utf8_lossy(&variable.value);
        env.set(format!("{}={value}", variable.key));
    }
    Ok(env.list)
}

/// Variables, each once, where it was set first.
#[derive(Default)]
pub(super) struct Environment {
    list: Vec<String>,
    places: std::collections::HashMap<String, usize>,
}

impl Environment {
    pub(super) fn set(&mut self, variable: String) {
        let key = variable.split('=').next().unwrap_or_default();
        match self.places.get(key) {
            Some(place) => self.list[*place] = variable,
            None => {
                self.places.insert(key.to_owned(), self.list.len());
                self.list.push(variable);
            }
        }
    }

    pub(super) fn into_list(self) -> Vec<String> {
        self.list
    }
}

/// The image's may be relative, as `docker build` allows.
fn cwd(config: &ContainerConfig, image: &ImageView) -> Result<String> {
    let (field, dir) = match (config.working_dir.as_str(), image.working_dir.as_str()) {
        ("", "") => return Ok("/".into()),
        ("", image) => {
            ("the image's working directory", format!("/{}", image.trim_start_matches('/')))
        }
        (asked, _) => ("working_dir", asked.to_owned()),
    };
    if dir.contains('\0') {
        return Err(Error::invalid(field, "contains a NUL byte"));
    }
    // A descriptor that a runtime leaks would be a way out of the container (CVE-2024-21626).
    let parts: Vec<&str> = dir.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.first() == Some(&"proc") && parts.contains(&"fd") || parts.starts_with(&["dev", "fd"])
    {
        return Err(Error::invalid(field, format!("{dir:?} leads through a file descriptor")));
    }
    Ok(dir)
}

/// A privileged process keeps the label that the policy gives it.
fn selinux(input: &Input<'_>) -> Option<String> {
    let labels = input.facts.labels.as_ref().filter(|_| !input.config.security.privileged);
    labels.map(|labels| labels.process.clone())
}

/// Those of the handler, not above what we may set.
fn rlimits(input: &Input<'_>) -> Option<Vec<PosixRlimit>> {
    let ceiling = |kind| {
        let known = input.node.hard_limits.iter().find(|(limited, _)| *limited == kind);
        known.map_or(u64::MAX, |(_, limit)| *limit)
    };
    let limit = |asked: &Rlimit| {
        let most = ceiling(asked.kind);
        let limit = PosixRlimitBuilder::default().typ(asked.kind);
        let limit = limit.soft(asked.soft.min(most)).hard(asked.hard.min(most)).build();
        limit.expect("every field of it has a default")
    };
    let limits = &input.handler.rlimits;
    (!limits.is_empty()).then(|| limits.iter().map(limit).collect())
}

fn oom_score_adj(config: &ContainerConfig, node: &Node) -> i32 {
    let asked = config.resources.oom_score_adj.clamp(-1000, 1000);
    let asked = i32::try_from(asked).unwrap_or_default();
    node.oom_score_adj_floor.map_or(asked, |floor| asked.max(floor))
}
