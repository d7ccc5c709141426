//! Requests, parsed: what comes out is checked, and everything inside relies on that.
//!
//! Every refusal is `Error::Invalid` and names the field by its path in the CRI message. Fields for Windows are
//! not looked at. Nothing is dropped that bears on security: it is kept here, and refused further in where this
//! version cannot honour it.

mod container;
mod filter;
mod resources;
mod sandbox;
mod security;

#[cfg(test)]
mod tests;

use std::fmt::Display;

use api::cri::v1;

use crate::container::config::{IdMapping, ImageSpec};
use crate::error::{Error, Result};

pub(super) use container::container_config;
pub(super) use filter::{ContainerFilter, SandboxFilter, StatsFilter};
pub(super) use resources::resources;
pub(super) use sandbox::sandbox_config;

/// Puts the field that an error names below `parent`.
pub(super) fn under(parent: impl Display) -> impl FnOnce(Error) -> Error {
    move |err| match err {
        Error::Invalid { field, reason } => {
            Error::Invalid { field: format!("{parent}.{field}"), reason }
        }
        other => other,
    }
}

/// A known value of an enum, or which field has an unknown one.
pub(super) fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E> {
    E::try_from(value).map_err(|_| Error::invalid(field, format!("{value} is no value of this")))
}

fn required(field: &str, value: &str) -> Result<()> {
    if value.is_empty() { Err(Error::invalid(field, "must not be empty")) } else { Ok(()) }
}

/// Text that ends up in a file of lines, or where C reads it.
fn printable(field: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(())
}

fn no_nul(field: impl Display, text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid(field.to_string(), "must not contain a NUL byte"));
    }
    Ok(())
}

fn absolute(field: &str, path: &str) -> Result<()> {
    required(field, path)?;
    no_nul(field, path)?;
    if !path.starts_with('/') {
        return Err(Error::invalid(field, format!("{path:?} is not an absolute path")));
    }
    Ok(())
}

fn id_mappings(mappings: &[v1::IdMapping]) -> Vec<IdMapping> {
    mappings
        .iter()
        .map(|m| IdMapping { host_id: m.host_id, container_id: m.container_id, length: m.length })
        .collect()
}

/// An image as a request names it.
pub(super) fn image_spec(spec: v1::ImageSpec) -> ImageSpec {
    ImageSpec {
        image: spec.image,
        annotations: spec.annotations,
        user_specified_image: spec.user_specified_image,
        runtime_handler: spec.runtime_handler,
    }
}
