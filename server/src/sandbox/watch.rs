//! What happens to a pod without anybody asking: a container ends, a shim dies or does not answer any more.

use std::sync::Arc;
use std::time::Duration;

use super::state::Event;
use super::{Pods, Sandbox};
use crate::container::Container;
use crate::container::fact::Became;
use crate::container::node::Node;
use crate::container::shim::Shim;
use crate::container::stats;
use crate::container::watch_exit::watch_exit;

/// Watches a running container until it has ended.
pub(crate) fn container(pods: &Pods, container: &Arc<Container>, shim: &Arc<Shim>) {
    let span = tracing::info_span!("watch", container = %container.id());
    let (node, container, shim) = (pods.node.clone(), container.clone(), shim.clone());
    pods.node.tasks.spawn(span, async move { watch_exit(&node, &container, &shim).await });
}

/// Watches a pod's shim until it has ended. A pod whose shim died is not ready; its containers are taken care
/// of by their own watchers, which notice the same death. A shim that lives and does not answer is ended.
pub(crate) fn sandbox(pods: &Pods, sandbox: &Arc<Sandbox>, shim: &Arc<Shim>) {
    let span = tracing::info_span!("watch", sandbox = %sandbox.id());
    let (node, sandbox, shim) = (pods.node.clone(), sandbox.clone(), shim.clone());
    pods.node.tasks.spawn(span, async move {
        let mut init = sandbox.ready().is_some_and(|ready| ready.init_pid != 0);
        loop {
            tokio::select! {
                () = shim.ended() => return down(&node, &sandbox, "the pod's shim died").await,
                () = shim.sandbox_over(), if init => {
                    init = false;
                    down(&node, &sandbox, "the init of the pod's processes died").await;
                }
                () = shim.doubted() => ask(&shim).await,
            }
        }
    });
}

async fn down(node: &Node, sandbox: &Sandbox, why: &str) {
    // A stop under way ends the shim itself; one that comes next finds the pod down.
    let _verb = sandbox.verb.lock().await;
    if !sandbox.is_open() {
        return;
    }
    tracing::error!(sandbox = %sandbox.id(), "{why}: the pod is not ready");
    sandbox.apply(Event::Down).ok();
    node.happened.of_sandbox(sandbox.id(), Became::Stopped);
    sandbox.keep_somehow(node).await;
}

async fn ask(shim: &Shim) {
    let Some(why) = shim.hangs().await else { return };
    tracing::error!(pid = shim.pid, "the pod's shim {why}: it is killed");
    if let Err(err) = shim.kill().await {
        tracing::error!(%err, "the pod's shim cannot be ended");
    }
}

/// How often each shim is looked at. What it costs is told by `e2e/tests/cri/bad_shim.rs`.
const GLANCE: Duration = Duration::from_secs(10);

/// Looks at every shim now and then, since nobody calls an idle pod's, and closes what was open for askers that left.
pub(crate) fn glances(pods: &Arc<Pods>) {
    let span = tracing::info_span!("glances");
    let (all, tasks) = (pods.clone(), pods.node.tasks.clone());
    tasks.spawn(span, async move {
        loop {
            tokio::time::sleep(GLANCE).await;
            for sandbox in all.sandboxes() {
                if let Some(shim) = sandbox.shim() {
                    shim.glance();
                }
                sandbox.sampler.rest();
            }
            all.containers().iter().for_each(|container| stats::rest(container));
        }
    });
}
