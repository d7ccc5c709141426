//! RunPodSandbox: from a configuration to a pod that containers can be created in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{self, Either};

use super::config::{PodOrHost, PodPid, SandboxConfig};
use super::state::{Event, Ready, State};
use super::{Changing, Fixed, Pods, Record, Sandbox, TABLE, files, network, users, watch};
use crate::container::config::{SelinuxOption, UsernsOptions};
use crate::container::fact::Became;
use crate::container::node::Node;
use crate::container::shim::{Namespaces, Shim, Wanted};
use crate::container::state::now;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::selinux::Labels;
use crate::host::{Handler, cgroup};
use crate::id::SandboxId;
use crate::operation::Operation;
use crate::resource::{self, Resource};
use crate::telemetry::blocking;

/// Runs a new sandbox, or finds the one that the same request made before.
///
/// # Errors
/// `AlreadyExists` if the name is another's, or its sandbox is not ready any more. On every error all that was
/// acquired is released; if something cannot be, the sandbox stays, not ready, for Stop and Remove to finish.
pub(crate) async fn run(
    pods: &Arc<Pods>,
    config: SandboxConfig,
    runtime_handler: String,
    operation: &Operation,
) -> Result<SandboxId> {
    if let Some(existing) = pods.sandbox_named(&config.metadata) {
        return match existing.ready() {
            Some(_)
                if existing.fixed.config == config
                    && existing.fixed.runtime_handler == runtime_handler
                    && existing.is_open() =>
            {
                Ok(existing.id().clone())
            }
            _ => Err(Error::AlreadyExists {
                what: "sandbox",
                name: format!(
                    "{}/{} attempt {}",
                    config.metadata.namespace, config.metadata.name, config.metadata.attempt
                ),
                id: existing.id().to_string(),
            }),
        };
    }
    let intent = plan(pods, config, runtime_handler)?;
    // Its first container's start follows soon, as a rule.
    pods.node.expect_move();
    let sandbox = Arc::new(Sandbox::new(intent.record));
    operation.enter("recording the intent")?;
    let kept = sandbox.keep(&pods.node);
    match bring_up(pods, &sandbox, intent.network, kept, operation).await {
        Ok(()) => Ok(sandbox.id().clone()),
        // A record that could not be kept may be there all the same.
        Err(err) => {
            undo(pods, sandbox).await;
            Err(err)
        }
    }
}

struct Intent {
    record: Record,
    network: Option<(Arc<cni::Network>, cni::Attachment)>,
}

/// Everything that the pod may come to hold, in the order of acquisition.
fn plan(pods: &Pods, config: SandboxConfig, runtime_handler: String) -> Result<Intent> {
    let node = &pods.node;
    let handler = node.host.handler(&runtime_handler)?.clone();
    let security = &config.security;
    users::check(&config, &handler)?;
    let id = SandboxId::random();
    let cgroups_path = node.cgroups_path(&config.cgroup_parent, id.as_str())?;
    let dir = node.pod_dir(&id);
    let mut plan = vec![Resource::Directory { path: dir.clone() }];
    if config.namespaces.ipc == PodOrHost::Pod {
        plan.push(Resource::Mount { path: dir.join("shm") });
    }
    let mut attached = None;
    if config.namespaces.network == PodOrHost::Pod {
        let network = pods.networks.network()?;
        let netns = node.instance.netns(&id);
        let attachment = network::attachment(&id, &config, &netns);
        plan.push(Resource::Netns { path: netns });
        plan.push(Resource::Attachment {
            conflist: String::from_utf8_lossy(network.bytes()).into_owned(),
            attachment: Box::new(attachment.clone()),
        });
        attached = Some((network, attachment));
    }
    if config.namespaces.pid == PodPid::Pod {
        plan.push(Resource::Cgroup { path: cgroups_path });
    }
    plan.push(Resource::Shim { dir: dir.join("shim") });
    let changing = Changing {
        state: State::Starting,
        plan,
        overhead: config.overhead.clone(),
        resources: config.resources.clone(),
    };
    // The last that can fail: from here on the level is the pod's.
    let selinux = labels(node, &id, &handler, security.selinux.as_ref())?;
    let fixed = Fixed {
        id,
        selinux,
        config,
        runtime_handler,
        handler,
        created_at: now(),
        boot_id: node.host.boot_id.clone(),
    };
    Ok(Intent { record: Record { fixed, changing }, network: attached })
}

/// The labels of a pod: as asked, on a level that no other pod has.
fn labels(
    node: &Node,
    id: &SandboxId,
    handler: &Handler,
    asked: Option<&SelinuxOption>,
) -> Result<Option<Labels>> {
    let Some(selinux) = &node.host.selinux else { return Ok(None) };
    let wish = asked.map(SelinuxOption::wish).unwrap_or_default();
    let level = match wish.level {
        "" => selinux.levels.draw(id.as_str()).ok_or_else(|| {
            Error::Unavailable("every pair of SELinux's categories is some pod's".into())
        })?,
        level => level.to_owned(),
    };
    let labels = selinux.pod(&level, handler.is_vm()).with(wish);
    match selinux.check(&labels) {
        Ok(()) => Ok(Some(labels)),
        Err(reason) => {
            selinux.levels.forget(id.as_str());
            Err(Error::invalid("linux.security_context.selinux_options", reason))
        }
    }
}

async fn bring_up(
    pods: &Arc<Pods>,
    sandbox: &Arc<Sandbox>,
    network: Option<(Arc<cni::Network>, cni::Attachment)>,
    kept: impl Future<Output = Result<()>>,
    operation: &Operation,
) -> Result<()> {
    let node = &pods.node;
    let config = &sandbox.fixed.config;
    let dir = node.pod_dir(sandbox.id());
    let hostname = files::hostname(config, sandbox.id(), &node.host.hostname);
    let netns = network.as_ref().and_then(|(_, attachment)| attachment.netns.clone());

    operation.enter("making the pod's directory and network namespace")?;
    let shm = (config.namespaces.ipc == PodOrHost::Pod).then_some(node.config.shm_size);
    let mount_label = sandbox.fixed.selinux.as_ref().map(|labels| labels.mount.clone());
    let users = config.security.userns.clone();
    let made = {
        let (dir, label, users) = (dir.clone(), mount_label.clone(), users.clone());
        blocking(move || make_directory(&dir, shm, label.as_deref(), users.as_ref()))
    };
    let netns_made = async {
        match &netns {
            // Where the pod has users of its own it is theirs, and made with the other namespaces.
            Some(path) if users.is_none() => network::make_netns(path.clone()).await,
            _ => Ok(()),
        }
    };
    // Both run to their end even if one fails: what they acquired has to be there before it is released.
    let (made, netns_made) = tokio::join!(made, netns_made);
    made?;
    netns_made?;

    operation.enter("attaching the network and starting the shim")?;
    let kept = async {
        let _waiting = operation.waits_for("the record of the intent");
        kept.await
    };
    // The init of a pod that shares its processes outlives its shim, in a cgroup that only the record names.
    let kept = match config.namespaces.pid {
        PodPid::Pod => Either::Left(future::ready(Ok(kept.await?))),
        PodPid::Container | PodPid::Host => Either::Right(kept),
    };
    let attach = async {
        // What was made so far ends with the boot, and bears the pod's id: the next start finds it. What plugins write
        // down may outlast both.
        kept.await?;
        match network {
            Some((network, attachment)) => {
                let _attaching = pods.networks.attaching.read().await;
                network::attach(node, network, attachment, operation).await
            }
            None => Ok((Vec::new(), serde_json::Value::Null)),
        }
    };
    let wanted = wanted_namespaces(pods, sandbox, &hostname, netns.as_deref())?;
    let shim_dir = dir.join("shim");
    let start = Shim::launch(node, sandbox.id(), &sandbox.fixed.handler, &shim_dir, wanted);
    let own = netns.clone().filter(|_| users.is_some());
    let ((ips, network_result), shim, namespaces) = network_and_shim(own, attach, start).await?;

    operation.enter("writing the pod's files and record")?;
    let (config, ips_) = (config.clone(), ips.clone());
    let namespaces = blocking(move || {
        files::write(&dir, &config, &hostname, &ips_, mount_label.as_deref())?;
        users::named(&dir, namespaces)
    })
    .await?;
    let ready = ready(&shim, namespaces, ips, network_result, netns);
    sandbox
        .apply(Event::Up(ready))
        .map_err(|_| Error::Internal("a new sandbox that cannot come up".into()))?;
    sandbox.keep(node).await?;
    let shim = Arc::new(shim);
    sandbox.set_shim(Some(shim.clone()));
    pods.insert_sandbox(sandbox.clone());
    for became in [Became::Created, Became::Started] {
        node.happened.of_sandbox(sandbox.id(), became);
    }
    watch::sandbox(pods, sandbox, &shim);
    Ok(())
}

/// Both at once, unless the shim is to make the pod's network namespace, `own`, too.
async fn network_and_shim<A>(
    own: Option<PathBuf>,
    attach: impl Future<Output = Result<A>>,
    start: impl Future<Output = Result<(Shim, Namespaces)>>,
) -> Result<(A, Shim, Namespaces)> {
    if let Some(path) = own {
        let (shim, namespaces) = start.await?;
        network::pin_netns(namespaces.net.clone(), path).await?;
        return Ok((attach.await?, shim, namespaces));
    }
    // Both run to their end even if one fails.
    let (attached, started) = tokio::join!(attach, start);
    let attached = attached?;
    let (shim, namespaces) = started?;
    Ok((attached, shim, namespaces))
}

fn ready(
    shim: &Shim,
    namespaces: Namespaces,
    ips: Vec<std::net::IpAddr>,
    network_result: serde_json::Value,
    netns: Option<PathBuf>,
) -> Ready {
    Ready {
        shim_pid: shim.pid,
        shim_start_time: shim.started,
        ips,
        network_result,
        netns,
        ipc: namespaces.ipc,
        uts: namespaces.uts,
        user: namespaces.user,
        pid: namespaces.pid,
        init_pid: namespaces.init_pid.unwrap_or(0),
    }
}

fn wanted_namespaces(
    pods: &Pods,
    sandbox: &Sandbox,
    hostname: &str,
    netns: Option<&Path>,
) -> Result<Wanted> {
    let Fixed { config, handler, .. } = &sandbox.fixed;
    let shared_pid = config.namespaces.pid == PodPid::Pod;
    let users = config.security.userns.clone();
    let cgroup = match shared_pid {
        true => {
            let path = pods.node.cgroups_path(&config.cgroup_parent, sandbox.id().as_str())?;
            cgroup::shown(&cgroup::relative(&path))
        }
        false => String::new(),
    };
    Ok(Wanted {
        hostname: hostname.to_owned(),
        sysctls: config.effective_sysctls(),
        host_ipc: config.namespaces.ipc == PodOrHost::Host,
        host_uts: config.namespaces.network == PodOrHost::Host,
        shared_pid,
        cgroup,
        netns: netns.filter(|_| users.is_none()).map(Path::to_owned),
        own_network: users.is_some() && netns.is_some(),
        guarded_runtime: handler.features.guards_itself.then(|| handler.binary.clone()),
        users,
    })
}

/// The pod's directory, only for root, with its /dev/shm. Blocks.
fn make_directory(
    dir: &Path,
    shm_size: Option<u64>,
    label: Option<&str>,
    users: Option<&UsernsOptions>,
) -> Result<()> {
    use rustix::mount::{MountFlags, mount};
    for path in [dir, &dir.join("shim"), &dir.join("ctr"), &dir.join("shm")] {
        failpoint::step("run/directory", || {
            std::fs::create_dir_all(path).map_err(Error::io("create", path))
        })?;
    }
    users::admit(dir, users)?;
    let Some(size) = shm_size else { return Ok(()) };
    let target = dir.join("shm");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let context = label.map_or(String::new(), |label| format!(",context=\"{label}\""));
    let (uid, gid) = users.map_or((0, 0), UsernsOptions::root);
    let owner = format!("uid={uid},gid={gid}");
    let options = std::ffi::CString::new(format!("mode=1777,size={size},{owner}{context}"))
        .map_err(|err| Error::Internal(err.to_string()))?;
    failpoint::step("run/shm", || {
        mount("shm", &target, "tmpfs", flags, options.as_c_str())
            .map_err(Error::io("mount tmpfs on", &target))
    })
}

/// Releases what a failed run holds and forgets it; what cannot be released stays visible as not ready.
pub(crate) async fn undo(pods: &Pods, sandbox: Arc<Sandbox>) {
    let left = resource::release(&sandbox.now().plan, &pods.node.hands).await;
    if left.is_empty() {
        pods.forget_sandbox(sandbox.id());
        if let Err(err) = pods.node.store.delete(TABLE, sandbox.id().as_str()).await {
            tracing::error!(sandbox = %sandbox.id(), %err, "record of an undone sandbox not deleted");
        }
        return;
    }
    sandbox.set_plan(left.into_iter().map(|(resource, _)| resource).collect());
    sandbox.apply(Event::Down).ok();
    sandbox.keep_somehow(&pods.node).await;
    pods.insert_sandbox(sandbox.clone());
    for became in [Became::Created, Became::Stopped] {
        pods.node.happened.of_sandbox(sandbox.id(), became);
    }
}
