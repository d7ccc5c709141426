//! containerd's Tasks: what runs now. One that has ended is no task any more, as with containerd's CRI plugin, which
//! deletes it at its end.
//!
//! A sandbox has a task while its pod has a process: the init of a shared pid namespace, else a container's, by which
//! the pod's network can be found. Until then it is not found, and cAdvisor asks again.

use api::containerd::tasks as message;
use api::containerd::tasks::tasks_server::Tasks;
use api::types::{Process, Status as State};
use tonic::{Request, Response, Status};

use super::super::info;
use super::{Containerd, Namespace, timestamp};
use crate::container::Container;
use crate::container::state;
use crate::sandbox::{Pods, Sandbox};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Tasks for Containerd {
    async fn get(&self, request: Request<message::GetRequest>) -> Answer<message::GetResponse> {
        let namespace = Namespace::of(&request)?;
        let message::GetRequest { container_id, exec_id } = request.into_inner();
        // Commands in a container are not listed anywhere.
        let looked_for = namespace == Namespace::Ours && exec_id.is_empty();
        let process = looked_for.then(|| find(&self.pods, &container_id)).flatten();
        let process = process.ok_or_else(|| no_task(&container_id))?;
        Ok(Response::new(message::GetResponse { process: Some(process) }))
    }

    async fn list(
        &self,
        request: Request<message::ListTasksRequest>,
    ) -> Answer<message::ListTasksResponse> {
        let tasks = match Namespace::of(&request)? {
            Namespace::Ours => all(&self.pods),
            Namespace::Other => Vec::new(),
        };
        Ok(Response::new(message::ListTasksResponse { tasks }))
    }

    async fn wait(&self, request: Request<message::WaitRequest>) -> Answer<message::WaitResponse> {
        let namespace = Namespace::of(&request)?;
        let message::WaitRequest { container_id, exec_id } = request.into_inner();
        let container = self.pods.container(&container_id).ok().filter(|container| {
            let is_it = container.id().as_str() == container_id && exec_id.is_empty();
            is_it && namespace == Namespace::Ours && running(container).is_some()
        });
        let container = container.ok_or_else(|| no_task(&container_id))?;
        tokio::select! {
            () = container.not_running() => {}
            () = self.events.ending() => return Err(Status::unavailable("podwrightd is ending")),
        }
        match container.state() {
            state::State::Exited(exited) => Ok(Response::new(message::WaitResponse {
                exit_status: exit_status(exited.exit_code),
                exited_at: Some(timestamp(exited.finished_at)),
            })),
            state::State::Created | state::State::Running(_) => Err(no_task(&container_id)),
        }
    }
}

fn no_task(id: &str) -> Status {
    Status::not_found(format!("no running task found: task {id} not found"))
}

/// As a shell counts, which is how both count.
pub(super) fn exit_status(code: i32) -> u32 {
    u32::try_from(code).unwrap_or(state::UNKNOWN_CODE.unsigned_abs())
}

fn find(pods: &Pods, id: &str) -> Option<Process> {
    if let Ok(container) = pods.container(id) {
        return running(&container).filter(|process| process.id == id);
    }
    pods.sandbox(id).ok().and_then(|sandbox| up(pods, &sandbox)).filter(|process| process.id == id)
}

fn all(pods: &Pods) -> Vec<Process> {
    let sandboxes = pods.sandboxes();
    let sandboxes = sandboxes.iter().filter_map(|one| up(pods, one));
    sandboxes.chain(pods.containers().iter().filter_map(|one| running(one))).collect()
}

fn running(container: &Container) -> Option<Process> {
    match container.state() {
        state::State::Running(running) => {
            let terminal = container.fixed.config.tty;
            Some(Process { terminal, ..process(container.id().as_str(), running.pid) })
        }
        state::State::Created | state::State::Exited(_) => None,
    }
}

fn up(pods: &Pods, sandbox: &Sandbox) -> Option<Process> {
    let ready = sandbox.ready()?;
    let pid = info::network_pid(pods, sandbox, ready.init_pid);
    (pid != 0).then(|| process(sandbox.id().as_str(), pid))
}

fn process(id: &str, pid: u32) -> Process {
    Process {
        container_id: id.to_owned(),
        id: id.to_owned(),
        pid,
        status: State::Running.into(),
        ..Default::default()
    }
}
