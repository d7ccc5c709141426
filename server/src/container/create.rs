//! CreateContainer: from a configuration to a bundle that only has to be started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshotter::LayerId;

use super::config::{ContainerConfig, Mount, UsernsOptions};
use super::node::Node;
use super::place::Place;
use super::relabel::relabel;
use super::state::{State, now};
use super::{
    Changing, Container, Fixed, ImageUse, Intent, Record, TABLE, User, Whole, exec, facts, signal,
    spec, volume,
};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::Handler;
use crate::host::selinux::Labels;
use crate::id::{ContainerId, SandboxId};
use crate::image::Image;
use crate::image::config::ImageConfig;
use crate::operation::Operation;
use crate::resource::Resource;
use crate::telemetry::{apart, blocking};

/// What a create needs to know.
#[derive(Debug)]
pub(crate) struct Request {
    pub sandbox_id: SandboxId,
    pub config: ContainerConfig,
    pub place: Place,
    pub handler: Handler,
    /// The init of the container whose pid namespace is joined, where one is.
    pub target_pid: Option<u32>,
}

/// Makes the bundle and the writable layer of a new container. Nothing runs yet.
///
/// # Errors
/// `NotFound` for an image that is not there, `Invalid` for what the configuration cannot have; on every error
/// all that was acquired is released again.
pub(crate) async fn create(
    node: &Arc<Node>,
    request: Request,
    operation: &Operation,
) -> Result<Container> {
    let wanted = &request.config.image.image;
    let image = node.images.resolve(wanted).ok_or_else(|| Error::not_found("image", wanted))?;
    let volumes = volume::images(node, &request.config)?;
    operation.enter("verifying that the images may be used")?;
    let spec = &request.config.image;
    let permitted = node.images.permit(&image, wanted, &spec.user_specified_image).await;
    permitted.map_err(|err| Error::Image(err.to_string()))?;
    volume::permit(node, &request.config, &volumes).await?;
    // Its start follows soon, as a rule.
    node.expect_move();
    let id = ContainerId::random();
    let bundle = request.place.dir.join("ctr").join(id.as_str());
    let cgroups_path = node.cgroups_path(&request.place.cgroup_parent, id.as_str())?;
    let mut plan = vec![
        Resource::Directory { path: bundle.clone() },
        Resource::Snapshot { key: id.to_string() },
    ];
    plan.extend(volume::plan(&id, &volumes));
    plan.push(Resource::Task {
        runtime: request.handler.binary.clone(),
        root: node.runtime_root(&request.handler.name),
        id: id.to_string(),
        cgroups_path: cgroups_path.clone(),
        bundle: bundle.clone(),
    });
    let intent =
        Intent { id: id.clone(), sandbox_id: request.sandbox_id.clone(), plan: plan.clone() };
    operation.enter("recording the intent")?;
    let create = async {
        // Not waited for: until the container is on record itself, what a crash leaves bears its id, below our own
        // directories, and the next start gives back what is there and nobody's.
        node.store.note(TABLE, id.as_str(), &Record::Intent(intent.clone()))?;
        let layers: Vec<LayerId> =
            image.layers().iter().cloned().chain(volume::layers(&volumes)).collect();
        let held = node.images.hold(id.as_str(), &layers);
        held.map_err(|err| Error::Image(err.to_string()))?;
        let prepared = Prepared { id: id.clone(), image, volumes, bundle, cgroups_path, plan };
        prepare(node, request, prepared, operation).await
    };
    match create.await {
        Ok(container) => Ok(container),
        // A record that could not be kept may be there all the same.
        Err(err) => {
            node.undo_create(intent).await;
            Err(err)
        }
    }
}

/// What `create` has settled before the first effect.
struct Prepared {
    id: ContainerId,
    image: Arc<Image>,
    volumes: Vec<volume::Wanted>,
    bundle: PathBuf,
    cgroups_path: String,
    plan: Vec<Resource>,
}

async fn prepare(
    node: &Arc<Node>,
    request: Request,
    prepared: Prepared,
    operation: &Operation,
) -> Result<Container> {
    operation.enter("looking up volumes and the log directory")?;
    let found = tokio::select! {
        found = look_up(node, &request, operation) => found?,
        // What hangs is left alone: it holds nothing of ours but its thread.
        () = operation.cancelled() => Found::default(),
    };
    let labels =
        facts::labels(&node.host, request.place.selinux.as_ref(), &request.config.security)?;
    if let Some(labels) = &labels {
        operation.enter("labelling volumes")?;
        label(&request.config, &found.mount_sources, &labels.mount, operation).await?;
    }
    operation.enter("preparing the root file system and the bundle")?;
    let node_ = node.clone();
    let fixed = blocking(move || build(&node_, request, prepared, found, labels)).await?;
    operation.enter("recording the container")?;
    let changing = Changing { state: State::Created, resources: fixed.config.resources.clone() };
    let whole = Whole { fixed, changing };
    let id = whole.fixed.id.to_string();
    node.store.put(TABLE, &id, &Record::Whole(Box::new(whole.clone()))).await?;
    Ok(Container::new(whole))
}

/// What lies on storage that is not ours.
#[derive(Default)]
struct Found {
    mount_sources: Vec<PathBuf>,
    log_path: Option<PathBuf>,
}

async fn look_up(node: &Node, request: &Request, operation: &Operation) -> Result<Found> {
    let storage = &node.host.storage;
    let mounts = &request.config.mounts;
    let mount_sources = facts::sources(storage, &node.tasks, mounts, operation).await?;
    let log_path = log_path(&request.place, &request.config);
    if let Some(parent) = log_path.as_deref().and_then(Path::parent) {
        // The kubelet has made it; other clients may have not.
        let _waiting = operation.waits_for(parent.to_string_lossy());
        let made = async {
            storage.directory(&node.tasks, parent).await.map_err(|err| {
                Error::Unavailable(format!("log directory {}: {err}", parent.display()))
            })
        };
        failpoint::step_async("create/log-directory", made).await?;
    }
    Ok(Found { mount_sources, log_path })
}

/// Labels the volumes for which the request wants it. One that hangs is left alone.
async fn label(
    config: &ContainerConfig,
    sources: &[PathBuf],
    label: &str,
    operation: &Operation,
) -> Result<()> {
    let wanted = |mount: &Mount| mount.selinux_relabel && mount.image.is_none();
    for (i, (_, source)) in
        config.mounts.iter().zip(sources).enumerate().filter(|(_, (mount, _))| wanted(mount))
    {
        let _waiting = operation.waits_for(source.to_string_lossy());
        let (source, label, stop) = (source.clone(), label.to_owned(), operation.token());
        let work = apart(move || {
            relabel(&source, &label, &|| stop.is_cancelled()).map_err(|reason| {
                let field = format!("mounts[{i}].selinux_relabel");
                Error::invalid(field, format!("{} {reason}", source.display()))
            })
        });
        tokio::select! {
            done = work => done?,
            () = operation.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// The part that works on our own files. Blocks.
fn build(
    node: &Node,
    request: Request,
    prepared: Prepared,
    found: Found,
    labels: Option<Labels>,
) -> Result<Fixed> {
    let Request { sandbox_id, config, place, handler, target_pid } = request;
    let Prepared { id, image, volumes, bundle, cgroups_path, plan } = prepared;
    failpoint::step("create/bundle", || {
        std::fs::create_dir_all(bundle.join("rootfs")).map_err(Error::io("create", &bundle))?;
        match &place.users {
            Some(users) => open_to(&bundle, users),
            None => Ok(()),
        }
    })?;
    let mounts = failpoint::step("create/snapshot", || {
        let prepared = node.hands.snapshotter.prepare(id.as_str(), image.layers());
        prepared.map_err(|err| Error::Image(err.to_string()))
    })?;
    let label = labels.as_ref().map(|labels| labels.mount.as_str());
    let volumes = failpoint::step("create/volumes", || {
        volume::prepare(&node.hands.snapshotter, &id, &config, &volumes, label)
    })?;
    if let Some(label) = label {
        let labelled = volume::relabel_copies(&node.hands.snapshotter, &mounts, label);
        labelled.map_err(Error::Internal)?;
    }
    let view = view(&image.config);
    let lower: Vec<PathBuf> = mounts.iter().flat_map(volume::directories).collect();
    let settings = node.config.handler(&handler.name);
    let on = (&node.host, settings);
    let mut facts = facts::gather(&config, found.mount_sources, &lower, target_pid, on)?;
    facts.labels = labels;
    facts.cdi = node.cdi.edits(&config)?;
    facts.runtime = handler.features;
    facts.rdt_class = facts::classes::rdt(&config, &place, handler.features.rdt)?;
    let classes = node.config.blockio_file.as_deref();
    facts.block_io = facts::classes::block_io(&config, &place, classes)?;
    for volume in &volumes {
        facts.mount_sources[volume.mount] = volume::source(&bundle, volume.mount);
    }
    let input = spec::Input {
        id: &id,
        config: &config,
        image: &view,
        place: &place,
        node: &node.facts,
        handler: settings,
        facts: &facts,
    };
    let spec = spec::build(&input)?;
    write_json(&bundle.join("config.json"), &spec)?;
    write_json(&bundle.join(exec::PROCESS_FILE), &spec.process())?;
    Ok(Fixed {
        image: ImageUse {
            id: image.id.to_string(),
            reference: image.digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
            tag: image.tags.first().cloned(),
            layers: image.layers().iter().map(ToString::to_string).collect(),
        },
        created_at: now(),
        stop_signal: signal::stop(config.stop_signal, &view.stop_signal),
        user: user(&spec),
        mount_label: facts.labels.map(|labels| labels.mount),
        volumes,
        id,
        sandbox_id,
        config,
        place,
        handler,
        bundle,
        log_path: found.log_path,
        cgroups_path,
        plan,
    })
}

/// Lets the root of a pod's users pass through a directory, and nobody else: it looks up its own files there.
pub(crate) fn open_to(dir: &Path, users: &UsernsOptions) -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    chown(dir, None, Some(users.root().1)).map_err(Error::io("give to the pod's users", dir))?;
    let mode = std::fs::Permissions::from_mode(0o710);
    std::fs::set_permissions(dir, mode).map_err(Error::io("open to the pod's users", dir))
}

/// The container's log file.
fn log_path(place: &Place, config: &ContainerConfig) -> Option<PathBuf> {
    if place.log_directory.is_empty() || config.log_path.is_empty() {
        return None;
    }
    Some(Path::new(&place.log_directory).join(&config.log_path))
}

/// What the image says of a process.
pub(crate) fn view(config: &ImageConfig) -> spec::ImageView {
    spec::ImageView {
        env: config.env.clone(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
    }
}

fn user(spec: &oci_spec::runtime::Spec) -> User {
    spec.process().as_ref().map_or_else(User::default, |process| User {
        uid: process.user().uid(),
        gid: process.user().gid(),
        supplemental_groups: process.user().additional_gids().clone().unwrap_or_default(),
    })
}

/// Writes a bundle's `config.json`.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|err| Error::Internal(err.to_string()))?;
    failpoint::step("create/file", || std::fs::write(path, bytes).map_err(Error::io("write", path)))
}
