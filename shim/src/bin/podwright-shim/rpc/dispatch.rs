//! From a service and a method's name to the code that does it.

use std::pin::pin;
use std::rc::Rc;

use api::{podwright, sandbox, task as wire, ttrpc::Request};
use prost::Message;

use super::connection::Connection;
use super::failure::Failure;
use crate::pod::{self, Pod};
use crate::reactor::race;
use crate::task;

type Answer = Result<Vec<u8>, Failure>;

/// Does what a request asks for and encodes the answer.
pub(super) async fn call(
    pod: &Rc<Pod>,
    connection: &Connection,
    request: &Request,
) -> Result<Vec<u8>, Failure> {
    let (method, bytes) = (request.method.as_str(), &request.payload[..]);
    match request.service.as_str() {
        wire::SERVICE_V2 | wire::SERVICE_V3 => task_call(pod, connection, method, bytes).await,
        sandbox::SERVICE => sandbox_call(pod, connection, method, bytes).await,
        podwright::SERVICE => pod_call(pod, connection, method, bytes).await,
        other => Err(Failure::unimplemented(format_args!("service {other}"))),
    }
}

async fn task_call(pod: &Rc<Pod>, connection: &Connection, method: &str, bytes: &[u8]) -> Answer {
    match method {
        "State" => encode(task::state(pod, &decode(bytes)?)),
        "Create" => encode(task::create(pod, decode(bytes)?).await),
        "Start" => encode(task::start(pod, &decode(bytes)?).await),
        "Delete" => encode(task::delete(pod, &decode(bytes)?).await),
        "Pids" => encode(task::pids(pod, &decode(bytes)?)),
        "Pause" => empty(task::pause(pod, &decode(bytes)?).await),
        "Resume" => empty(task::resume(pod, &decode(bytes)?).await),
        "Kill" => empty(task::kill(pod, &decode(bytes)?).await),
        "Exec" => empty(task::exec(pod, decode(bytes)?)),
        "ResizePty" => empty(task::resize(pod, &decode(bytes)?)),
        "CloseIO" => empty(task::close_io(pod, &decode(bytes)?)),
        "Update" => empty(task::update(pod, &decode(bytes)?).await),
        "Wait" => {
            let request = decode(bytes)?;
            while_connected(connection, async { encode(task::wait(pod, &request).await) }).await
        }
        "Connect" => encode(task::connect(pod, &decode(bytes)?)),
        "Shutdown" => empty(pod::shutdown(pod, &decode(bytes)?)),
        other => Err(Failure::unimplemented(format_args!("task method {other}"))),
    }
}

async fn sandbox_call(
    pod: &Rc<Pod>,
    connection: &Connection,
    method: &str,
    bytes: &[u8],
) -> Answer {
    match method {
        "CreateSandbox" => encode(pod::create(pod, decode(bytes)?).await),
        "StartSandbox" => encode(pod::start(pod, &decode(bytes)?)),
        "Platform" => encode(pod::platform(&decode(bytes)?)),
        "StopSandbox" => encode(pod::stop(pod, &decode(bytes)?).await),
        "WaitSandbox" => {
            let request = decode(bytes)?;
            while_connected(connection, async { encode(pod::wait(pod, &request).await) }).await
        }
        "SandboxStatus" => encode(pod::status(pod, &decode(bytes)?)),
        "PingSandbox" => {
            encode(Ok(decode::<sandbox::PingRequest>(bytes).map(|_| sandbox::PingResponse {})?))
        }
        "ShutdownSandbox" => encode(pod::shutdown_sandbox(pod, &decode(bytes)?).await),
        other => Err(Failure::unimplemented(format_args!("sandbox method {other}"))),
    }
}

async fn pod_call(pod: &Rc<Pod>, connection: &Connection, method: &str, bytes: &[u8]) -> Answer {
    match method {
        "Attach" => {
            let request = decode(bytes)?;
            while_connected(connection, async { encode(task::attach(pod, &request).await) }).await
        }
        "ReopenLog" => encode(task::reopen_log(pod, &decode(bytes)?).await),
        "Ping" => encode(
            decode::<podwright::PingRequest>(bytes)
                .map(|_| podwright::PingResponse { version: env!("CARGO_PKG_VERSION").into() }),
        ),
        other => Err(Failure::unimplemented(format_args!("pod method {other}"))),
    }
}

/// A call that may wait for ever ends with its client.
async fn while_connected(connection: &Connection, call: impl Future<Output = Answer>) -> Answer {
    let gone = async {
        connection.closed.wait().await;
        Err(Failure::unknown("the client is gone"))
    };
    race(pin!(call), pin!(gone)).await
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Failure> {
    M::decode(bytes).map_err(Failure::invalid)
}

fn encode<M: Message>(answer: Result<M, Failure>) -> Answer {
    answer.map(|message| message.encode_to_vec())
}

/// `google.protobuf.Empty` has no bytes.
fn empty(answer: Result<(), Failure>) -> Answer {
    answer.map(|()| Vec::new())
}
