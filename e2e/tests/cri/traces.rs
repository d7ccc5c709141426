//! Traces: a pod's start is one whole tree below its caller's span, and a collector that fails holds up nothing.

use std::collections::HashMap;

use api::otlp::span::Kind;
use api::otlp::{Span, status};
use e2e::collector::{Collector, attribute};
use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use e2e::{Options, World, eventually};

use super::NO_SUCH_ID;

const PORT: u16 = 4318;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// The span of whoever calls.
const CALLER: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A world whose daemon sends its traces to the collector.
fn world(samples_per_million: u32) -> (World, Collector) {
    let config = format!(
        "[tracing]\nendpoint = \"http://127.0.0.1:{PORT}\"\nsamples_per_million = {samples_per_million}\n"
    );
    let mut world = World::without_daemon(Options { config, ..Default::default() });
    let collector = Collector::start(&world, PORT);
    world.begin();
    (world, collector)
}

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let one = found.next().unwrap_or_else(|| panic!("no span {name}: {spans:#?}"));
    assert!(found.next().is_none(), "several spans {name}");
    one
}

/// The call, the operation below it and, below that, its stages in their order.
fn whole(spans: &[Span], method: &str, operation: &str, object: &str, stages: &[&str]) {
    let call = named(spans, &format!("runtime.v1.RuntimeService/{method}"));
    assert_eq!((call.kind(), hex(&call.parent_span_id)), (Kind::Server, CALLER.to_owned()));
    assert_eq!(attribute(&call.attributes, "rpc.method").as_deref(), Some(method));
    assert_eq!(attribute(&call.attributes, "rpc.grpc.status_code").as_deref(), Some("0"));
    let work = named(spans, operation);
    assert_eq!((work.kind(), &work.parent_span_id), (Kind::Internal, &call.span_id));
    let told = attribute(&work.attributes, "podwright.object").unwrap();
    assert!(told.contains(object), "{told}");
    assert!(call.start_time_unix_nano <= work.start_time_unix_nano);
    let mut parts: Vec<&Span> =
        spans.iter().filter(|span| span.parent_span_id == work.span_id).collect();
    parts.sort_by_key(|part| part.start_time_unix_nano);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert!(stages.iter().all(|stage| names.contains(stage)), "{operation} has {names:?}");
    for part in parts {
        assert!(part.start_time_unix_nano >= work.start_time_unix_nano, "{part:?}");
        assert!(part.end_time_unix_nano >= part.start_time_unix_nano, "{part:?}");
        assert!(part.end_time_unix_nano <= work.end_time_unix_nano, "{part:?} of {work:?}");
    }
}

#[test]
fn the_start_of_a_pod_is_one_tree_below_its_callers_span() {
    let (world, collector) = world(0);
    world.pull(BUSYBOX);
    world.client.trace(Some(&format!("00-{TRACE}-{CALLER}-01")));
    let pod = world.pod("traced");
    let id = pod.run(container("main", BUSYBOX, &shell("sleep 10000")));
    let missing = container("missing", "127.0.0.1:5000/nothing:1", &["x"]);
    pod.try_create(missing).unwrap_err();
    // This caller does not sample, and of those that say nothing none is.
    world.client.trace(Some(&format!("00-{}-{CALLER}-00", TRACE.replace('0', "1"))));
    world.container_status(&id).unwrap();
    world.client.trace(None);
    pod.end();
    let last = "runtime.v1.RuntimeService/CreateContainer";
    let spans = eventually("both creates, and so all before them", || {
        let spans = collector.spans();
        (spans.iter().filter(|span| span.name == last).count() == 2).then_some(spans)
    });
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let by_id: HashMap<String, &Span> =
        spans.iter().map(|span| (hex(&span.span_id), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own");
    for span in &spans {
        let parent = hex(&span.parent_span_id);
        assert!(parent == CALLER || by_id.contains_key(&parent), "an orphan: {span:?}");
    }
    let (failed, started): (Vec<Span>, Vec<Span>) = spans.into_iter().partition(|span| {
        let told = attribute(&span.attributes, "podwright.object").unwrap_or_default();
        let code = attribute(&span.attributes, "rpc.grpc.status_code").unwrap_or_default();
        told.contains("missing") || !matches!(code.as_str(), "" | "0")
    });
    let attaching = "attaching the network and starting the shim";
    let stages = ["queued", "recording the intent", attaching];
    whole(&started, "RunPodSandbox", "run sandbox", "tests/traced", &stages);
    let stages = ["preparing the root file system and the bundle", "recording the container"];
    whole(&started, "CreateContainer", "create container", "main in sandbox", &stages);
    let stages = ["starting the container's process"];
    whole(&started, "StartContainer", "start container", &id, &stages);
    let failure = named(&failed, "create container").status.clone().unwrap();
    assert_eq!(failure.code(), status::Code::Error);
    assert!(failure.message.contains("nothing:1"), "{failure:?}");
    for sender in collector.senders() {
        assert_eq!(attribute(&sender, "service.name").as_deref(), Some("podwrightd"));
    }
    world.finish();
}

#[test]
fn a_collector_that_refuses_is_told_once_and_holds_up_nothing() {
    let (world, collector) = world(1_000_000);
    collector.refuse(true);
    world.pod("untold").end();
    let log = || world.read(world.path("daemon.log"));
    let lost = |log: &str| log.lines().filter(|line| line.contains("traces are lost")).count();
    eventually("the loss to be told", || (lost(&log()) == 1).then_some(()));
    world.pod("untold").end();
    collector.refuse(false);
    let unknown = ContainerStatusRequest { container_id: NO_SUCH_ID.into(), verbose: false };
    world.client.container_status(unknown).unwrap_err();
    eventually("the traces to arrive again", || {
        log().contains("traces arrive again").then_some(())
    });
    assert_eq!(lost(&log()), 1);
    // Of a trace that begins here.
    let name = "runtime.v1.RuntimeService/ContainerStatus";
    let span = eventually("the last call", || {
        collector.spans().into_iter().find(|span| span.name == name)
    });
    assert!(span.parent_span_id.is_empty());
    assert_eq!(attribute(&span.attributes, "rpc.grpc.status_code").as_deref(), Some("5"));
    assert!(span.status.is_none(), "that something is not here is no failure: {span:?}");
    world.finish();
}
