//! Messages: a container as the kubelet asks for it, down to its OCI spec, and what a shim says; targets of `crate::fuzz`.

use api::cri::v1;
use prost::Message;

use super::from_proto::container_config;
use crate::container::create::view;
use crate::container::spec::Accounts;
use crate::container::spec::fuzz::{Around, spec};
use crate::image::config;

/// Bits of what is around it, the image's config, its passwd, its group, each with its length in two bytes before
/// it; the rest is a ContainerConfig.
pub(crate) fn container(data: &[u8]) {
    let Some((around, mut rest)) = data.split_first() else { return };
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        Some(part)
    };
    let image = part().unwrap_or_default();
    let accounts =
        Accounts { passwd: part().map(<[u8]>::to_vec), group: part().map(<[u8]>::to_vec) };
    let Ok(image) = config::parse(image) else { return };
    let Ok(asked) = v1::ContainerConfig::decode(rest) else { return };
    match container_config(Some(asked)) {
        Ok(config) => spec(config, view(&image.config), accounts, Around(*around)),
        Err(err) => drop(err.to_string()),
    }
}

/// What a shim's frame may hold.
pub(crate) fn shim_message(payload: &[u8]) {
    use api::ttrpc::{Request, Response};
    if let Ok(request) = Request::decode(payload) {
        assert_eq!(Request::decode(&request.encode_to_vec()[..]), Ok(request));
    }
    if let Ok(response) = Response::decode(payload) {
        assert_eq!(Response::decode(&response.encode_to_vec()[..]), Ok(response));
    }
}
