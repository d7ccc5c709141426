//! What `ipMasq` of `bridge` and `ptp` asks for: the pod's traffic to elsewhere leaves with the node's address.
//! Left to the executables.

use super::{Job, keys};
use crate::config::Fields;
use crate::error::Result;
use crate::result::IpNet;

/// Rules are wanted; none of these exist, since nothing is understood.
#[derive(Debug)]
pub(crate) enum Conf {}

/// Of the keys `ipMasq` and `ipMasqBackend`: what is wanted, or `Some(None)` if nothing is.
#[allow(clippy::option_option, reason = "not understood, and not wanted, are two things")]
pub(crate) fn parse(fields: &Fields) -> Option<Option<Conf>> {
    match keys::get(fields, "ipMasq")? {
        Some(true) => None,
        Some(false) | None => Some(None),
    }
}

/// For the pod's addresses, each with its network, which is not elsewhere.
pub(crate) fn add(conf: &Conf, _job: &Job<'_>, _addresses: &[IpNet]) -> Result<()> {
    match *conf {}
}

/// For the addresses that the pod's interface had when it was removed; there may be none.
pub(crate) fn del(conf: &Conf, _job: &Job<'_>, _addresses: &[IpNet]) -> Result<()> {
    match *conf {}
}
