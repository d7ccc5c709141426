//! The plugin `portmap`: left to its executable.

use super::Job;
use crate::attachment::Attachment;
use crate::config::Fields;
use crate::error::Result;
use crate::result::CniResult;

/// Nothing is understood, so none of these exist.
#[derive(Debug)]
pub(crate) enum Conf {}

pub(crate) fn parse(_fields: &Fields, _attachment: &Attachment) -> Option<Conf> {
    None
}

pub(crate) fn add(conf: &Conf, _job: &Job<'_>, _previous: Option<&CniResult>) -> Result<CniResult> {
    match *conf {}
}

pub(crate) fn del(conf: &Conf, _job: &Job<'_>, _previous: Option<&CniResult>) -> Result<()> {
    match *conf {}
}
