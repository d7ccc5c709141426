//! As containerd drives a shim: runc's options, FIFOs for the streams, events.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use api::events::{ForwardRequest, TaskExit, TaskStart};
use api::runc;
use api::ttrpc::{Request, Response};
use prost::Message;
use shim::client::Options;
use shim::frame::{Decoder, Kind, encode};

use crate::bundle::Spec;
use crate::exec::fifo;
use crate::pod::{LIMIT, Pod, runtime};

/// A daemon that only takes events.
fn listen(path: &Path) -> Receiver<ForwardRequest> {
    let listener = UnixListener::bind(path).expect("a socket");
    let (sender, events) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(&stream.expect("a connection"), &sender);
        }
    });
    events
}

fn serve(mut stream: &UnixStream, sender: &Sender<ForwardRequest>) {
    let mut decoder = Decoder::default();
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        decoder.push(&bytes[..count]);
        while let Some(frame) = decoder.next_frame().expect("frames") {
            let request = Request::decode(&frame.payload[..]).expect("a request");
            assert_eq!(request.service, api::events::SERVICE);
            let event = ForwardRequest::decode(&request.payload[..]).expect("an event");
            let _ = sender.send(event);
            let answer = encode(frame.stream, Kind::Response, &Response::default());
            stream.write_all(&answer.expect("small")).expect("written");
        }
    }
}

#[tokio::test]
async fn events_come_in_order_and_output_goes_to_fifos() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("events.sock");
    let events = listen(&socket);
    let pod = Pod::start_with(&socket.to_string_lossy()).await;
    let mut task = pod.prepare("a", &Spec::sh("echo out; exit 6"));
    let options = runc::Options {
        binary_name: runtime().to_string_lossy().into_owned(),
        root: pod.dir.join("runtime").to_string_lossy().into_owned(),
        ..runc::Options::default()
    };
    task.options = Options::Other(api::pack(&options));
    let output = fifo(&pod, "out");
    task.stdio.stdout = output.to_string_lossy().into_owned();
    let both = std::fs::File::options().read(true).write(true).open(&output);
    let mut reader = both.expect("a fifo");
    pod.client.create(task, LIMIT).await.expect("created");
    let id = pod.container("a");
    let pid = pod.client.start(&id, "", LIMIT).await.expect("started");
    assert_eq!(pod.finish("a").await, 6);
    let mut text = [0; 4];
    reader.read_exact(&mut text).expect("output");
    assert_eq!(&text, b"out\n");

    let next = || events.recv_timeout(LIMIT).expect("an event").envelope.expect("an envelope");
    let topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    for topic in topics {
        let envelope = next();
        assert_eq!((envelope.topic.as_str(), envelope.namespace.as_str()), (topic, "k8s.io"));
        let event = envelope.event.expect("an event");
        match topic {
            "/tasks/start" => {
                let event: TaskStart = api::unpack(&event).expect("a start");
                assert_eq!((event.container_id, event.pid), (id.clone(), pid));
            }
            "/tasks/exit" => {
                let event: TaskExit = api::unpack(&event).expect("an exit");
                assert_eq!((event.id, event.exit_status), (id.clone(), 6));
            }
            _ => {}
        }
    }
    // containerd's root for runtimes has the namespace in it.
    let _ = std::fs::remove_dir(pod.dir.join("runtime/k8s.io"));
    pod.end().await;
}
