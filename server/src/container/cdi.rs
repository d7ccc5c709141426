//! CDI, the Container Device Interface: devices by name (`vendor.com/class=device`), and what a container needs to
//! use one, as vendors write it into files of the host.
//!
//! The files are policy of the node, like the daemon's own configuration, and are obeyed; what is unknown in one
//! makes the whole file invalid, since an edit that is left out would be a device half given. They are looked at
//! whenever a container asks for a device, and parsed anew when they have changed, so no watch is needed and none
//! can be behind. A file that is broken costs its own devices alone, and is named to whoever asks for one that is
//! not there.

mod file;
mod name;
mod registry;

pub(crate) use registry::Registry;

use std::collections::HashSet;

use super::config::ContainerConfig;
use crate::error::{Error, Result};
use name::Name;

/// The device plugins' way to ask, from before the CRI had a field for it.
const ANNOTATION: &str = "cdi.k8s.io/";
const FIELD: &str = "CDI_devices";

/// The devices that a container asks for, in either way, each once.
///
/// # Errors
/// `Invalid` for what is no device's name.
fn asked(config: &ContainerConfig) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for (i, device) in config.cdi_devices.iter().enumerate() {
        let name = Name::parse(device);
        names.push(name.map_err(|reason| Error::invalid(format!("{FIELD}[{i}].name"), reason))?);
    }
    for (key, value) in config.annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION)) {
        for device in value.split(',') {
            let name = Name::parse(device);
            let field = || format!("annotations[{key:?}]");
            names.push(name.map_err(|reason| Error::invalid(field(), reason))?);
        }
    }
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests;
