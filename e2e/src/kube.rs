//! A stand-in for the API server and the kubelet: the few calls that kubectl makes, the streams passed on to the URLs
//! that CRI answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use serde_json::{Value, json};

use crate::stream::{Wanted, parts};
use crate::world::World;

/// A pod with one container, as kubectl knows it.
#[derive(Debug)]
pub struct Kube<'w> {
    pub world: &'w World,
    pub pod: String,
    pub sandbox: String,
    pub container: String,
    stop: AtomicBool,
    listener: TcpListener,
}

impl<'w> Kube<'w> {
    pub fn new(world: &'w World, sandbox: &str, container: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let stop = AtomicBool::new(false);
        let (sandbox, container) = (sandbox.to_owned(), container.to_owned());
        Self { world, pod: "pod".into(), sandbox, container, stop, listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("it listens"))
    }

    /// Serves on threads of `scope` until `stop`.
    pub fn serve<'s, 'e: 's>(&'e self, scope: &'s Scope<'s, 'e>) {
        scope.spawn(move || {
            while let Ok((socket, _)) = self.listener.accept() {
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                scope.spawn(move || {
                    let _ = self.connection(socket);
                });
            }
        });
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.listener.local_addr().expect("it listens")));
    }

    fn connection(&self, socket: TcpStream) -> io::Result<()> {
        // kubectl keeps connections for later.
        socket.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        let mut reader = BufReader::new(socket);
        loop {
            let Some(head) = read_head(&mut reader)? else { return Ok(()) };
            let target = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            if let Some(verb) =
                ["exec", "attach", "portforward"].iter().find(|verb| path.ends_with(*verb))
            {
                return match self.stream(verb, query) {
                    Ok(url) => self.pass_on(reader, &head, &url),
                    Err(status) => answer(
                        reader.get_ref(),
                        500,
                        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": status.to_string(), "code": 500}),
                    ),
                };
            }
            let (code, body) = match self.rest(path) {
                Some(body) => (200, body),
                None => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}),
                ),
            };
            answer(reader.get_ref(), code, &body)?;
        }
    }

    fn rest(&self, path: &str) -> Option<Value> {
        let pods = format!("/api/v1/namespaces/default/pods/{}", self.pod);
        Some(match path {
            "/version" => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.4"}),
            "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
            "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                 "shortNames": ["po"], "verbs": ["get", "list", "create"]},
                {"name": "pods/exec", "singularName": "", "namespaced": true, "kind": "PodExecOptions", "verbs": ["create", "get"]},
            ]}),
            path if path == pods => json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": self.pod, "namespace": "default", "uid": "1"},
                "spec": {"containers": [{"name": "c", "image": "x", "stdin": true, "tty": false}]},
                "status": {"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]},
            }),
            _ => return None,
        })
    }

    /// What the kubelet asks the runtime for.
    fn stream(&self, verb: &str, query: &str) -> Result<String, tonic::Status> {
        let fields: Vec<(String, String)> = query
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), unescape(value)))
            .collect();
        let is = |name: &str| {
            fields.iter().any(|(one, value)| one == name && (value == "true" || value == "1"))
        };
        let tty = is("tty");
        let wanted =
            Wanted { tty, stdin: is("stdin"), stdout: is("stdout"), stderr: is("stderr") && !tty };
        let all = |name: &str| -> Vec<&str> {
            fields.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str()).collect()
        };
        match verb {
            "exec" => self.world.exec_url(&self.container, &all("command"), wanted),
            "attach" => self.world.attach_url(&self.container, wanted),
            _ => {
                let ports: Vec<i32> =
                    all("ports").iter().filter_map(|port| port.parse().ok()).collect();
                self.world.forward_url(&self.sandbox, &ports)
            }
        }
    }

    /// The upgrade with another path, then bytes both ways.
    fn pass_on(&self, reader: BufReader<TcpStream>, head: &[String], url: &str) -> io::Result<()> {
        let (address, path) = parts(url);
        let mut runtime = self.world.connect(address)?;
        let method = head[0].split(' ').next().unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for line in &head[1..] {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        runtime.write_all(request.as_bytes())?;
        runtime.write_all(reader.buffer())?;
        let client = reader.into_inner();
        client.set_read_timeout(None)?;
        client.set_nodelay(true)?;
        runtime.set_nodelay(true)?;
        let (client_read, runtime_write) = (client.try_clone()?, runtime.try_clone()?);
        std::thread::scope(|scope| {
            scope.spawn(|| copy(client_read, runtime_write));
            copy(runtime, client);
        });
        Ok(())
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => return Ok((!lines.is_empty()).then_some(lines)),
            line => lines.push(line.to_owned()),
        }
    }
}

fn answer(mut socket: &TcpStream, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} Answer\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body.as_bytes())
}

/// Of a query's value.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = after;
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
