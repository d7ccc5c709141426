//! What a list call asks for. All parts of a filter must hold; an empty one holds for everything. By their labels objects
//! are looked up; the rest is asked here.

use std::collections::BTreeMap;

use api::cri::v1::{self, ContainerState, PodSandboxState};

use super::known;
use crate::error::Result;

/// Of ListPodSandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cri) struct SandboxFilter {
    /// A prefix of the id.
    pub id: String,
    pub state: Option<PodSandboxState>,
    pub labels: BTreeMap<String, String>,
}

impl SandboxFilter {
    /// # Errors
    /// `Invalid` for a state that there is not.
    pub(in crate::cri) fn parse(filter: Option<v1::PodSandboxFilter>) -> Result<Self> {
        let filter = filter.unwrap_or_default();
        Ok(Self {
            id: filter.id,
            state: filter.state.map(|s| known("filter.state", s.state)).transpose()?,
            labels: filter.label_selector,
        })
    }

    /// Whether a sandbox with these, and the labels, is asked for.
    pub(in crate::cri) fn admits(&self, id: &str, state: PodSandboxState) -> bool {
        id.starts_with(&self.id) && self.state.is_none_or(|wanted| wanted == state)
    }
}

/// Of ListContainers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cri) struct ContainerFilter {
    /// A prefix of the id.
    pub id: String,
    /// A prefix of the sandbox's id.
    pub sandbox_id: String,
    pub state: Option<ContainerState>,
    pub labels: BTreeMap<String, String>,
}

impl ContainerFilter {
    /// # Errors
    /// `Invalid` for a state that there is not.
    pub(in crate::cri) fn parse(filter: Option<v1::ContainerFilter>) -> Result<Self> {
        let filter = filter.unwrap_or_default();
        Ok(Self {
            id: filter.id,
            sandbox_id: filter.pod_sandbox_id,
            state: filter.state.map(|s| known("filter.state", s.state)).transpose()?,
            labels: filter.label_selector,
        })
    }

    /// Whether a container with these, and the labels, is asked for.
    pub(in crate::cri) fn admits(&self, id: &str, sandbox_id: &str, state: ContainerState) -> bool {
        id.starts_with(&self.id)
            && sandbox_id.starts_with(&self.sandbox_id)
            && self.state.is_none_or(|wanted| wanted == state)
    }
}

/// Of the lists of usage. Whether what it names runs is for the caller to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cri) struct StatsFilter {
    /// A prefix of the id.
    id: String,
    /// A prefix of the sandbox's id.
    sandbox_id: String,
    pub labels: BTreeMap<String, String>,
}

impl StatsFilter {
    pub(in crate::cri) fn of_containers(filter: Option<v1::ContainerStatsFilter>) -> Self {
        let filter = filter.unwrap_or_default();
        Self { id: filter.id, sandbox_id: filter.pod_sandbox_id, labels: filter.label_selector }
    }

    pub(in crate::cri) fn of_sandboxes(filter: Option<v1::PodSandboxStatsFilter>) -> Self {
        let filter = filter.unwrap_or_default();
        Self { id: filter.id, sandbox_id: String::new(), labels: filter.label_selector }
    }

    /// Whether what has these, and the labels, is asked for.
    pub(in crate::cri) fn admits(&self, id: &str, sandbox_id: &str) -> bool {
        id.starts_with(&self.id) && sandbox_id.starts_with(&self.sandbox_id)
    }
}
