//! Port-forward over SPDY.

use e2e::cri::{NamespaceMode, PodSandboxConfig};
use e2e::eventually;
use e2e::image::catalogue::{BUSYBOX, WEB};
use e2e::pod::{Pod, container, namespaces, sandbox, shell};
use e2e::spdy::{Frame, RST_STREAM, Spdy};
use e2e::{Options, World};
use tonic::Code;

use crate::world;

pub(crate) const PROTOCOL: &str = "portforward.k8s.io";
const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// One forwarded connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) error: u32,
    pub(crate) data: u32,
}

pub(crate) fn pair(spdy: &Spdy, port: u16, request: u32) -> Pair {
    let (port, request) = (port.to_string(), request.to_string());
    let open = |kind| {
        let headers = [("streamtype", kind), ("port", &*port), ("requestid", &*request)];
        spdy.writer.open(&headers).unwrap()
    };
    let error = open("error");
    spdy.writer.end(error).unwrap();
    Pair { error, data: open("data") }
}

/// All that a pair says until both of its streams have ended, and the error's text.
pub(crate) fn finish(spdy: &mut Spdy, pair: Pair) -> (Vec<u8>, String) {
    let (mut data, mut error) = (Vec::new(), Vec::new());
    let (mut data_ended, mut error_ended) = (false, false);
    while !(data_ended && error_ended) {
        let frame = spdy.read().expect("the connection stays");
        let id = frame.id();
        match frame {
            Frame::Data { bytes, end, .. } if id == pair.data => {
                data.extend(bytes);
                data_ended |= end;
            }
            Frame::Data { bytes, end, .. } if id == pair.error => {
                error.extend(bytes);
                error_ended |= end;
            }
            Frame::Control { kind: RST_STREAM, .. } if id == pair.data => data_ended = true,
            _ => {}
        }
    }
    (data, String::from_utf8(error).unwrap())
}

fn connect(world: &World, pod: &Pod<'_>) -> Spdy {
    world.spdy(&world.forward_url(&pod.id, &[]).unwrap(), PROTOCOL)
}

fn listening(world: &World, id: &str, port: u16) {
    eventually("the pod to listen", || {
        world.exec(id, "netstat -ltn").contains(&format!(":{port} ")).then_some(())
    });
}

#[test]
fn reaches_localhost_of_the_pod_and_pairs_are_independent() {
    let world = world();
    world.pull(WEB);
    let pod = world.pod("web");
    let id = pod.run(container("c", WEB, &[]));
    listening(&world, &id, 80);
    let mut spdy = connect(&world, &pod);
    let one = pair(&spdy, 80, 0);
    spdy.writer.data(one.data, GET, false).unwrap();
    let (data, error) = finish(&mut spdy, one);
    let text = String::from_utf8_lossy(&data).into_owned();
    assert!(text.ends_with("hello from podwright\n") && error.is_empty(), "{text} {error}");
    // Nobody listens there: told on the error stream, and the connection stays.
    let refused = pair(&spdy, 81, 1);
    let (data, error) = finish(&mut spdy, refused);
    assert!(data.is_empty());
    assert!(
        error.starts_with(&format!("error forwarding port 81 to pod {}, uid : ", pod.id)),
        "{error}"
    );
    assert!(error.contains("dial tcp4 127.0.0.1:81: connect: "), "{error}");
    let again = pair(&spdy, 80, 2);
    spdy.writer.data(again.data, GET, true).unwrap();
    assert!(finish(&mut spdy, again).0.ends_with(b"hello from podwright\n"));
    pod.end();
    world.finish();
}

#[test]
fn each_direction_ends_by_itself() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("half-close");
    // Says how much it got once there is no more, as `nc -N` and database clients need it.
    let line = "nc -ll -p 7000 -e sh -c 'wc -c; echo after the end' & nc -ll -p 7001 -e sh -c 'echo early; exec >&-; cat > /tmp/got' & wait";
    let id = pod.run(container("c", BUSYBOX, &shell(line)));
    listening(&world, &id, 7000);
    listening(&world, &id, 7001);
    let mut spdy = connect(&world, &pod);
    let counted = pair(&spdy, 7000, 0);
    spdy.writer.data(counted.data, &[b'x'; 100_000], false).unwrap();
    spdy.writer.end(counted.data).unwrap();
    let (data, error) = finish(&mut spdy, counted);
    assert_eq!(
        (String::from_utf8(data).unwrap().as_str(), error.as_str()),
        ("100000\nafter the end\n", "")
    );
    pod.end();
    world.finish();
}

#[test]
fn ipv6_alone_host_network_and_old_clients() {
    let world = world();
    world.pull(BUSYBOX);
    let pod = world.pod("six");
    let id = pod.run(container("c", BUSYBOX, &shell("exec httpd -f -p '[::1]:7000'")));
    eventually("the pod to listen", || {
        world.exec(&id, "netstat -ltn").contains(":7000 ").then_some(())
    });
    let mut spdy = connect(&world, &pod);
    let six = pair(&spdy, 7000, 0);
    spdy.writer.data(six.data, GET, false).unwrap();
    let (data, error) = finish(&mut spdy, six);
    assert!(!data.is_empty() && error.is_empty(), "{error}");
    pod.end();

    let mut config: PodSandboxConfig = sandbox(&world, "host");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options = Some(namespaces(NamespaceMode::Node, NamespaceMode::Container));
    let pod = world.pod_of(config);
    // The registry listens on the node's own localhost.
    let mut spdy = connect(&world, &pod);
    let headers = |kind| [("streamtype", kind), ("port", "5000")];
    let error = spdy.writer.open(&headers("error")).unwrap();
    spdy.writer.end(error).unwrap();
    let data = spdy.writer.open(&headers("data")).unwrap();
    spdy.writer.data(data, b"GET /v2/ HTTP/1.0\r\n\r\n", false).unwrap();
    let (data, error) = finish(&mut spdy, Pair { error, data });
    assert!(data.starts_with(b"HTTP/1.0 200"), "{} {error}", String::from_utf8_lossy(&data));
    pod.end();
    world.finish();
}

#[test]
fn a_pod_with_a_network_of_its_own_is_reached_at_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let named = dir.path().join("runsc");
    std::os::unix::fs::symlink(e2e::place::Tools::find().program("crun"), &named).unwrap();
    let named = named.display();
    let isolated = format!("default_runtime = \"isolated\"\n[runtimes]\nisolated = \"{named}\"\n");
    for (config, reached) in [(String::new(), false), (isolated, true)] {
        let world = World::start(Options { config, ..Default::default() });
        world.pull(BUSYBOX);
        let pod = world.pod("address");
        let line = format!("exec httpd -f -p {}:7000", pod.ip());
        let id = pod.run(container("c", BUSYBOX, &shell(&line)));
        listening(&world, &id, 7000);
        let mut spdy = connect(&world, &pod);
        let forwarded = pair(&spdy, 7000, 0);
        spdy.writer.data(forwarded.data, GET, false).unwrap();
        let (data, error) = finish(&mut spdy, forwarded);
        assert_eq!((data.starts_with(b"HTTP"), error.is_empty()), (reached, reached), "{error}");
        pod.end();
        world.finish();
    }
}

#[test]
fn what_is_refused() {
    let world = world();
    let pod = world.pod("refused");
    let refused = world.forward_url(&pod.id, &[70000]).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(world.forward_url("deadbeef", &[80]).unwrap_err().code(), Code::NotFound);
    let mut spdy = connect(&world, &pod);
    for headers in [
        &[("streamtype", "data"), ("port", "0")][..],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "data")],
        &[("streamtype", "stdin"), ("port", "80")],
        &[],
    ] {
        let id = spdy.writer.open(headers).unwrap();
        let reset =
            spdy.until("a reset", |frame| matches!(frame, Frame::Control { kind: RST_STREAM, .. }));
        assert_eq!(reset.id(), id, "{headers:?}");
    }
    // A client that resets its data stream leaves nothing, and the rest of the connection works.
    let gone = pair(&spdy, 80, 9);
    spdy.writer.reset(gone.data).unwrap();
    let told = pair(&spdy, 80, 10);
    assert!(finish(&mut spdy, told).1.contains("connect: "));
    pod.stop().unwrap();
    let late = pair(&spdy, 80, 11);
    assert!(finish(&mut spdy, late).1.contains("not ready"));
    let refused = world.forward_url(&pod.id, &[80]).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    pod.remove().unwrap();
    world.finish();
}
