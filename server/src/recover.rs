//! What a start finds: the records of the last daemon, and what the host really holds.
//!
//! Each owner is looked at alone and under a time limit, all at once, so that one hung shim delays only itself.
//! What a crash cut is released; what lives is attached to again; what is dead is said to be dead; what no record
//! names is given back. A changed boot id means that no process survived, and nothing is dialled. All of it is
//! listed among the operations, and what takes long goes on behind the served calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::container::{self, Container, Intent};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::process;
use crate::id::SandboxId;
use crate::leftover;
use crate::metric::{self, Recovered};
use crate::operation::{Operation, What};
use crate::sandbox::state::State;
use crate::sandbox::{self, Pods, Sandbox};
use crate::telemetry::blocking;

mod adopt;
mod garbage;

/// For each owner: to reach its shim, to hear of each of its containers, to release what it lost.
const BUDGET: Duration = Duration::from_secs(1);

/// The sandboxes with their containers, and what has no sandbox.
#[derive(Default)]
struct Recorded {
    owners: Vec<(Arc<Sandbox>, Vec<Arc<Container>>)>,
    intents: Vec<Intent>,
}

/// Brings memory, records and host to agreement. CRI is not served before it returns.
///
/// # Errors
/// When the records cannot be read at all.
pub(crate) async fn recover(pods: &Arc<Pods>) -> Result<()> {
    let began = Instant::now();
    let operation = pods.node.operations.begin("recover what the last daemon left");
    operation.enter("reading the records")?;
    let Recorded { owners, intents } = read(pods).await?;
    end_plugins(&owners).await;
    operation.enter("attaching to pods, and undoing what was cut off")?;
    let (pod_count, cut) = (owners.len(), intents.len());
    let owners = owners.into_iter().map(|(sandbox, own)| adopt::one(pods, sandbox, own));
    let intents = intents.into_iter().map(|intent| undo_create(pods, intent));
    tokio::join!(join_all(owners), join_all(intents));
    operation.enter("giving back what no record names")?;
    let swept = sweep(pods).await;
    failpoint::sure("recover/collect", || pods.node.images.start_collecting());
    garbage::collect_soon(pods);
    let took = began.elapsed();
    metric::RECOVERED.set(Recovered { took, sandboxes: pod_count, cut, swept }).ok();
    tracing::info!(pods = pod_count, cut, swept, ms = took.as_millis(), "recovered");
    Ok(())
}

async fn read(pods: &Pods) -> Result<Recorded> {
    let node = pods.node.clone();
    let load = blocking(move || {
        let sandboxes: Vec<(String, sandbox::Record)> = node.store.load(sandbox::TABLE)?;
        let containers: Vec<(String, container::Record)> = node.store.load(container::TABLE)?;
        Ok((sandboxes, containers))
    });
    let (sandboxes, containers) = failpoint::step_async("recover/load", load).await?;
    let mut recorded = Recorded::default();
    let mut by_sandbox: HashMap<SandboxId, Vec<Arc<Container>>> = HashMap::new();
    for (_, record) in containers {
        match record {
            container::Record::Intent(intent) => recorded.intents.push(intent),
            container::Record::Whole(whole) => {
                let container = Arc::new(Container::new(*whole));
                let layers = container.fixed.layer_ids();
                if let Err(err) = pods.node.images.hold(container.id().as_str(), &layers) {
                    tracing::error!(container = %container.id(), %err, "the container's image is damaged");
                }
                by_sandbox.entry(container.fixed.sandbox_id.clone()).or_default().push(container);
            }
        }
    }
    for (_, record) in sandboxes {
        let containers = by_sandbox.remove(&record.fixed.id).unwrap_or_default();
        recorded.owners.push((Arc::new(Sandbox::new(record)), containers));
    }
    recorded.intents.extend(by_sandbox.into_values().flatten().map(|orphan| {
        tracing::warn!(container = %orphan.id(), "releasing a container whose sandbox has no record");
        orphan.intent()
    }));
    Ok(recorded)
}

/// Ends what the plugins of pods that were being attached have started: they died with the last daemon, their delegates
/// and helpers did not, and would go on making what is about to be released.
async fn end_plugins(owners: &[(Arc<Sandbox>, Vec<Arc<Container>>)]) {
    let starting = owners.iter().filter(|(one, _)| matches!(one.now().state, State::Starting));
    let ids: HashSet<String> = starting.map(|(one, _)| one.id().to_string()).collect();
    if ids.is_empty() {
        return;
    }
    let end = move || {
        let is_theirs = |variable: &[u8]| {
            let id = variable.strip_prefix(b"CNI_CONTAINERID=");
            id.and_then(|id| std::str::from_utf8(id).ok()).is_some_and(|id| ids.contains(id))
        };
        process::end_told(is_theirs, BUDGET).map_err(Error::Runtime)
    };
    if let Err(err) = blocking(end).await {
        tracing::warn!(%err, "a network plugin goes on after what it made is released");
    }
}

/// Does `work` as an operation of its own, and waits for it for as long as one owner may hold up the others. Plugins
/// and runtimes that hang go on being waited for while CRI is served already.
async fn settle<W, F>(pods: &Arc<Pods>, what: What, limit: Duration, work: W)
where
    W: FnOnce(Arc<Operation>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let operation = pods.node.operations.begin(what);
    let span = tracing::info_span!("recover", what = %operation.progress().what);
    let work = failpoint::sure_async("recover/owner", work(operation.clone()));
    let task = pods.node.tasks.spawn(span, operation.scope(work));
    if tokio::time::timeout(limit, task).await.is_err() {
        tracing::warn!(progress = %operation.progress(), "takes long and goes on in the background");
    }
}

fn cut_off(kind: &'static str, id: impl std::fmt::Display) -> What {
    What::new(kind, format!("{id} that was cut off"))
}

/// A create that a crash cut, or a container that no client can reach.
async fn undo_create(pods: &Arc<Pods>, intent: Intent) {
    let what = cut_off("undo the create of container", &intent.id);
    let node = pods.node.clone();
    let work = |operation: Arc<Operation>| async move {
        operation.enter("releasing what it held").ok();
        node.undo_create(intent).await;
    };
    settle(pods, what, BUDGET, work).await;
}

/// Gives back what nobody owns; how many owners there were.
async fn sweep(pods: &Arc<Pods>) -> usize {
    let found = match leftover::find(&pods.node).await {
        Ok(found) => found,
        Err(err) => {
            tracing::error!(%err, "not looked for leftovers");
            return 0;
        }
    };
    let count = found.len();
    let sweeps = found.into_iter().map(|leftover| {
        let node = pods.node.clone();
        let what = What::new("release what", format!("{} left", leftover.owner));
        settle(pods, what, BUDGET, |operation| async move {
            leftover::give_back(&node, &leftover, &operation).await;
        })
    });
    join_all(sweeps).await;
    count
}
