//! Calls whose client gives up: the work goes on, the retry joins it, and everybody can see what it waits for.

use std::time::Duration;

use e2e::World;
use e2e::cri::*;
use e2e::node::{ListOperationsRequest, Operation};
use e2e::pod::sandbox;
use e2e::scripted;
use tonic::Code;

/// An impatient client's patience.
const SHORT: Duration = Duration::from_millis(700);

/// The operations whose description begins so.
fn operations(world: &World, what: &str) -> Vec<Operation> {
    let mut all = world.client.list_operations(ListOperationsRequest {}).unwrap().operations;
    all.retain(|operation| operation.what.starts_with(what));
    all
}

#[test]
fn a_run_whose_client_gave_up_is_listed_and_joined() {
    let (world, script) = scripted::plugin(20);
    script.order("ADD", "sleep 1.5");
    let config = sandbox(&world, "slow");
    let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let status = world.client.run_pod_sandbox_within(SHORT, request).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    for part in ["run sandbox tests/slow", "attaching the network", "scripted", " s in all"] {
        assert!(status.message().contains(part), "{status}");
    }
    let [operation] = operations(&world, "run sandbox tests/slow").try_into().unwrap();
    assert_eq!(operation.waiting_callers, 0, "the client is gone");
    assert!(operation.stage.contains("attaching the network"), "{operation:?}");
    assert!(operation.waits_for.iter().any(|what| what.ends_with("/scripted")), "{operation:?}");
    assert!(operation.age_ms >= 500 && operation.age_ms >= operation.in_stage_ms, "{operation:?}");
    let pod = world.pod_of(config);
    assert!(operations(&world, "run sandbox").is_empty());
    let list = world.client.list_pod_sandbox(ListPodSandboxRequest::default()).unwrap();
    assert_eq!(list.items.len(), 1);
    pod.end();
    world.finish();
}
