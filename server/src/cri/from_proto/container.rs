//! ContainerConfig.

use api::cri::v1::{self, MountPropagation};

use super::{
    absolute, id_mappings, image_spec, known, no_nul, printable, required, resources, security,
    under,
};
use crate::container::config::{
    ContainerConfig, ContainerMetadata, Device, EnvVar, Mount, Propagation,
};
use crate::container::spec::MOUNT_OPTIONS;
use crate::cri::signal;
use crate::error::{Error, Result};

/// A container's configuration, checked as far as it can be without its sandbox and this node.
///
/// # Errors
/// `Invalid`, with the field's path.
pub(in crate::cri) fn container_config(
    config: Option<v1::ContainerConfig>,
) -> Result<ContainerConfig> {
    let config = config.ok_or_else(|| Error::invalid("config", "is required"))?;
    let metadata = config.metadata.unwrap_or_default();
    required("metadata.name", &metadata.name)?;
    printable("metadata.name", &metadata.name)?;
    let image = image_spec(config.image.unwrap_or_default());
    required("image.image", &image.image)?;
    for (field, list) in [("command", &config.command), ("args", &config.args)] {
        for (i, word) in list.iter().enumerate() {
            no_nul(format!("{field}[{i}]"), word)?;
        }
    }
    if !config.working_dir.is_empty() {
        absolute("working_dir", &config.working_dir)?;
    }
    log_path(&config.log_path)?;
    let linux = config.linux.unwrap_or_default();
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: metadata.name, attempt: metadata.attempt },
        image,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: each("envs", config.envs, variable)?,
        mounts: each("mounts", config.mounts, mount)?,
        devices: each("devices", config.devices, device)?,
        labels: config.labels,
        annotations: config.annotations,
        log_path: config.log_path,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources(linux.resources.unwrap_or_default())
            .map_err(under("linux.resources"))?,
        security: security::container(linux.security_context.unwrap_or_default())
            .map_err(under("linux.security_context"))?,
        cdi_devices: config.cdi_devices.into_iter().map(|device| device.name).collect(),
        stop_signal: signal::number(config.stop_signal)?,
    })
}

fn each<P, T>(field: &str, list: Vec<P>, parse: fn(P) -> Result<T>) -> Result<Vec<T>> {
    list.into_iter()
        .enumerate()
        .map(|(i, item)| parse(item).map_err(under(format_args!("{field}[{i}]"))))
        .collect()
}

/// It stays below the pod's log directory: the daemon's side opens it as root (CVE-2025-0750).
fn log_path(path: &str) -> Result<()> {
    printable("log_path", path)?;
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Error::invalid("log_path", "must be a path below the pod's log directory"));
    }
    Ok(())
}

fn variable(variable: v1::KeyValue) -> Result<EnvVar> {
    required("key", &variable.key)?;
    no_nul("key", &variable.key)?;
    if variable.key.contains('=') {
        return Err(Error::invalid("key", "must not contain '='"));
    }
    if variable.value.contains(&0) {
        return Err(Error::invalid("value", "must not contain a NUL byte"));
    }
    Ok(EnvVar { key: variable.key, value: variable.value })
}

fn mount(mount: v1::Mount) -> Result<Mount> {
    absolute("container_path", &mount.container_path)?;
    let image = mount.image.filter(|image| !image.image.is_empty()).map(image_spec);
    match &image {
        None => absolute("host_path", &mount.host_path)?,
        Some(_) if !mount.host_path.is_empty() => {
            return Err(Error::invalid("host_path", "must be empty where an image is mounted"));
        }
        Some(_) if !mount.readonly => {
            return Err(Error::invalid("readonly", "must be set where an image is mounted"));
        }
        Some(_) if mount.propagation != MountPropagation::PropagationPrivate as i32 => {
            return Err(Error::invalid("propagation", "must be private where an image is mounted"));
        }
        Some(_) => no_nul("image_sub_path", &mount.image_sub_path)?,
    }
    if image.is_none() && !mount.image_sub_path.is_empty() {
        return Err(Error::invalid("image_sub_path", "needs an image"));
    }
    let propagation = match known("propagation", mount.propagation)? {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    if mount.recursive_read_only && !(mount.readonly && propagation == Propagation::Private) {
        let reason = "needs readonly and private propagation";
        return Err(Error::invalid("recursive_read_only", reason));
    }
    for (i, option) in mount.mount_options.iter().enumerate() {
        if !MOUNT_OPTIONS.contains(&option.as_str()) {
            let reason = format!("{option:?} is none of {}", MOUNT_OPTIONS.join(", "));
            return Err(Error::invalid(format!("mount_options[{i}]"), reason));
        }
    }
    let (uid_mappings, gid_mappings) =
        (id_mappings(&mount.uid_mappings), id_mappings(&mount.gid_mappings));
    if uid_mappings.is_empty() != gid_mappings.is_empty() {
        return Err(Error::invalid("uidMappings", "and gidMappings go together"));
    }
    Ok(Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        image,
        image_sub_path: mount.image_sub_path,
        uid_mappings,
        gid_mappings,
        mount_options: mount.mount_options,
    })
}

fn device(device: v1::Device) -> Result<Device> {
    absolute("host_path", &device.host_path)?;
    absolute("container_path", &device.container_path)?;
    let permissions = &device.permissions;
    if permissions.is_empty() || !permissions.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
        let reason = format!("{permissions:?} is not made of r, w and m");
        return Err(Error::invalid("permissions", reason));
    }
    Ok(Device {
        container_path: device.container_path,
        host_path: device.host_path,
        permissions: device.permissions,
    })
}
