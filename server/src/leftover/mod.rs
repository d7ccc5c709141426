//! What the host holds under our names and no record names: found, told, and given back.
//!
//! One code for the sweep of a start and for `podwright fsck`, safe beside running operations by the order in
//! which it looks: a record is asked for before every effect, and forgotten only after the last; so when the host's
//! objects are listed first and the records read then, an object that no record names belongs to nobody, or went
//! meanwhile. What went is sorted out by another look at the host.
//!
//! It never touches what does not certainly bear our name: below our own directories everything does, elsewhere
//! what has this instance's mark in it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::container::node::Node;
use crate::container::{self, Record};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::resource::{self, Resource};
use crate::sandbox;
use crate::telemetry::blocking;

mod host;

/// The object that an owner without a record left, in the order in which it would have acquired them.
#[derive(Debug, Clone)]
pub(crate) struct Leftover {
    /// The beginning of the id that it bears.
    pub owner: String,
    pub plan: Vec<Resource>,
}

/// What all records name.
#[derive(Debug, Default)]
pub(crate) struct Known {
    paths: HashSet<PathBuf>,
    /// Of containers: their snapshots and their states in OCI runtimes are called so.
    containers: HashSet<String>,
    /// Container id, as CNI calls a sandbox, and interface.
    pub(crate) attachments: HashSet<(String, String)>,
}

impl Known {
    /// Reads the records. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn read(node: &Node) -> Result<Self> {
        let mut known = Self::default();
        for record in node.store.read::<sandbox::Record>(sandbox::TABLE)? {
            known.add(&record.changing.plan);
        }
        for record in node.store.read::<Record>(container::TABLE)? {
            let (id, plan) = match record {
                Record::Intent(intent) => (intent.id, intent.plan),
                Record::Whole(whole) => (whole.fixed.id, whole.fixed.plan),
            };
            known.containers.insert(id.to_string());
            known.add(&plan);
        }
        Ok(known)
    }

    fn add(&mut self, plan: &[Resource]) {
        for resource in plan {
            match resource {
                Resource::Directory { path }
                | Resource::Mount { path }
                | Resource::Netns { path }
                | Resource::Shim { dir: path } => {
                    self.paths.insert(path.clone());
                }
                Resource::Attachment { attachment, .. } => {
                    let key = (attachment.container_id.clone(), attachment.ifname.clone());
                    self.attachments.insert(key);
                }
                Resource::Snapshot { key } | Resource::Task { id: key, .. } => {
                    self.containers.insert(key.clone());
                }
                // Found with the bundle or the pod that it belongs to.
                Resource::Cgroup { .. } => {}
            }
        }
    }

    /// True if a record names it, or an object without which it is not looked at.
    fn names(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Directory { path } | Resource::Mount { path } | Resource::Netns { path } => {
                self.paths.contains(path)
            }
            Resource::Attachment { attachment, .. } => self
                .attachments
                .contains(&(attachment.container_id.clone(), attachment.ifname.clone())),
            Resource::Snapshot { key } | Resource::Task { id: key, .. } => {
                self.containers.contains(key)
            }
            Resource::Shim { .. } | Resource::Cgroup { .. } => false,
        }
    }
}

/// Everything that nobody owns.
///
/// # Errors
/// When the records, or a directory of ours, cannot be read.
pub(crate) async fn find(node: &Arc<Node>) -> Result<Vec<Leftover>> {
    let node = node.clone();
    blocking(move || {
        // This order, see above.
        let objects = host::list(&node)?;
        let known = Known::read(&node)?;
        let found = unowned(objects, &known);
        if found.is_empty() {
            return Ok(found);
        }
        Ok(still_there(found, &host::list(&node)?))
    })
    .await
}

/// Leaves out what is owned, and puts together what belongs together.
fn unowned(objects: Vec<host::Object>, known: &Known) -> Vec<Leftover> {
    let mut owners: BTreeMap<String, Vec<Resource>> = BTreeMap::new();
    for object in objects {
        if !known.names(&object.resource) {
            let plan = owners.entry(object.owner).or_default();
            for resource in std::iter::once(object.resource).chain(object.within) {
                if !plan.contains(&resource) {
                    plan.push(resource);
                }
            }
        }
    }
    let mut leftovers = Vec::new();
    for (owner, mut plan) in owners {
        plan.sort_by_key(rank);
        leftovers.push(Leftover { owner, plan });
    }
    leftovers
}

/// Leaves out what the host does not hold any more.
fn still_there(mut found: Vec<Leftover>, objects: &[host::Object]) -> Vec<Leftover> {
    let mut held = Vec::new();
    for object in objects {
        held.push(&object.resource);
        held.extend(&object.within);
    }
    for leftover in &mut found {
        leftover.plan.retain(|resource| held.contains(&resource));
    }
    found.retain(|leftover| !leftover.plan.is_empty());
    found
}

/// The order in which pods and containers acquire; they are released the other way round.
fn rank(resource: &Resource) -> u8 {
    match resource {
        Resource::Directory { .. } => 0,
        Resource::Mount { .. } => 1,
        Resource::Netns { .. } => 2,
        Resource::Attachment { .. } => 3,
        Resource::Cgroup { .. } => 4,
        Resource::Snapshot { .. } => 5,
        Resource::Task { .. } => 6,
        Resource::Shim { .. } => 7,
    }
}

/// Gives back all that an owner left; what could not be, with the reason.
pub(crate) async fn give_back(
    node: &Node,
    leftover: &Leftover,
    operation: &Operation,
) -> Vec<(Resource, Error)> {
    operation.enter("releasing what no record names").ok();
    let left = resource::release(&leftover.plan, &node.hands).await;
    for resource in &leftover.plan {
        // It was renamed away, and is deleted with the next that nobody holds any more.
        if let Resource::Snapshot { key } = resource {
            node.images.unhold(key);
        }
    }
    tracing::warn!(
        owner = leftover.owner,
        released = leftover.plan.len() - left.len(),
        left = left.len(),
        "leftovers of nobody"
    );
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str) -> Resource {
        Resource::Directory { path: path.into() }
    }

    #[test]
    fn what_a_record_names_is_left_alone_and_the_rest_is_grouped_and_ordered() {
        let mut known = Known::default();
        known.add(&[directory("/run/pods/a"), Resource::Snapshot { key: "kept".into() }]);
        let object = |owner: &str, resource, within: Vec<Resource>| host::Object {
            owner: owner.to_owned(),
            resource,
            within,
        };
        let shim = Resource::Shim { dir: "/run/pods/b/shim".into() };
        let netns = Resource::Netns { path: "/run/netns/podwright-x-b".into() };
        let found = unowned(
            vec![
                object("a", directory("/run/pods/a"), vec![Resource::Shim { dir: "/x".into() }]),
                object("b", netns.clone(), vec![]),
                object("b", directory("/run/pods/b"), vec![shim.clone()]),
                object("k", Resource::Snapshot { key: "kept".into() }, vec![]),
            ],
            &known,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].owner, "b");
        assert_eq!(found[0].plan, [directory("/run/pods/b"), netns, shim]);
        // Its owner was at it.
        let later = [object("b", directory("/run/pods/b"), vec![])];
        let found = still_there(found, &later);
        assert_eq!(found[0].plan, [directory("/run/pods/b")]);
        assert!(still_there(found, &[]).is_empty());
    }
}
