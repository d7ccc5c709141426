//! containerd's events of what CRI does: containers are created and deleted, their tasks created, started, killed for
//! want of memory, ended and deleted.
//!
//! As with containerd's CRI plugin a task is created by StartContainer, and deleted when it has ended. A sandbox is a
//! container; it has a task of its own where it has a process of its own, the init of a shared pid namespace.

use std::collections::BTreeMap;

use api::containerd::events as message;
use api::containerd::events::events_server::Events;
use api::events::{self as event, topic};
use api::types::Envelope;
use prost_types::Any;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::filter::Filters;
use super::tasks::exit_status;
use super::{Containerd, K8S, containers, timestamp};
use crate::container::Container;
use crate::container::fact::{Became, Fact};
use crate::container::state::{Exited, Reason, State};
use crate::host::Handler;
use crate::sandbox::config::PodPid;
use crate::sandbox::{Pods, Sandbox};

/// An event, and what a filter may ask of it.
#[derive(Debug)]
pub(in crate::cri) struct Told {
    pub envelope: Envelope,
    fields: BTreeMap<&'static str, String>,
}

impl Told {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["namespace"] => Some(self.envelope.namespace.clone()),
            ["topic"] => Some(self.envelope.topic.clone()),
            ["event", name] => self.fields.get(name).cloned(),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl Events for Containerd {
    type SubscribeStream = BoxStream<Envelope>;

    /// Of all namespaces, as containerd does it: what is wanted of them a filter says.
    async fn subscribe(
        &self,
        request: Request<message::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = Filters::parse(&request.into_inner().filters);
        let filters = filters.map_err(Status::invalid_argument)?;
        let admit = move |told: &Told| {
            filters.admit(|path| told.field(path)).then(|| told.envelope.clone())
        };
        Ok(Response::new(self.events.told(admit)))
    }
}

/// What containerd would tell of a fact at that time.
pub(in crate::cri) fn told(
    pods: &Pods,
    fact: &Fact,
    sandbox: &Sandbox,
    container: Option<&Container>,
    at: i64,
) -> Vec<Told> {
    let events = match (&fact.container_id, container) {
        (None, _) => of_sandbox(pods, sandbox, fact.became, at),
        (Some(_), Some(container)) => of_container(pods, container, fact.became),
        (Some(_), None) => Vec::new(),
    };
    let envelope = |topic: &str, event| Envelope {
        timestamp: Some(timestamp(at)),
        namespace: K8S.to_owned(),
        topic: topic.to_owned(),
        event: Some(event),
    };
    let told = |(topic, event, fields): Event| Told { envelope: envelope(topic, event), fields };
    events.into_iter().map(told).collect()
}

type Event = (&'static str, Any, BTreeMap<&'static str, String>);

fn of_container(pods: &Pods, container: &Container, became: Became) -> Vec<Event> {
    let id = container.id().as_str();
    match (became, container.state()) {
        (Became::Created, _) => {
            vec![created(pods, id, containers::image(container), &container.fixed.handler)]
        }
        (Became::Started, State::Running(running)) => started(container, running.pid),
        // It has ended since.
        (Became::Started, State::Exited(exited)) => started(container, exited.pid),
        (Became::Stopped, State::Exited(exited)) if exited.started_at != 0 => ended(id, &exited),
        // It never ran, so there was no task; and nothing starts or stops while it is created.
        (Became::Stopped, State::Exited(_))
        | (Became::Started | Became::Stopped, State::Created)
        | (Became::Stopped, State::Running(_)) => Vec::new(),
        (Became::Deleted, _) => vec![deleted(id)],
    }
}

fn of_sandbox(pods: &Pods, sandbox: &Sandbox, became: Became, at: i64) -> Vec<Event> {
    let fixed = &sandbox.fixed;
    let id = fixed.id.as_str();
    let has_task = fixed.config.namespaces.pid == PodPid::Pod;
    match became {
        Became::Created => vec![created(pods, id, String::new(), &fixed.handler)],
        Became::Started if has_task => {
            let pid = sandbox.ready().map_or(0, |ready| ready.init_pid);
            let bundle = pods.node.pod_dir(&fixed.id).to_string_lossy().into_owned();
            let create =
                event::TaskCreate { container_id: id.into(), bundle, pid, ..Default::default() };
            vec![task(topic::CREATE, id, &create), start(id, pid)]
        }
        Became::Stopped if has_task => {
            let exited = Exited {
                pid: 0,
                started_at: fixed.created_at,
                finished_at: at,
                exit_code: 0,
                reason: Reason::Completed,
                message: String::new(),
            };
            ended(id, &exited)
        }
        Became::Started | Became::Stopped => Vec::new(),
        Became::Deleted => vec![deleted(id)],
    }
}

fn created(pods: &Pods, id: &str, image: String, handler: &Handler) -> Event {
    let fields = BTreeMap::from([("id", id.to_owned()), ("image", image.clone())]);
    let runtime = event::container_create::Runtime {
        name: containers::runtime(handler),
        options: Some(containers::options(&pods.node, handler)),
    };
    let create = event::ContainerCreate { id: id.into(), image, runtime: Some(runtime) };
    (topic::CONTAINER_CREATE, api::pack(&create), fields)
}

fn deleted(id: &str) -> Event {
    let event = api::pack(&event::ContainerDelete { id: id.into() });
    (topic::CONTAINER_DELETE, event, BTreeMap::from([("id", id.to_owned())]))
}

fn started(container: &Container, pid: u32) -> Vec<Event> {
    let fixed = &container.fixed;
    let id = fixed.id.as_str();
    let io = event::TaskIo { terminal: fixed.config.tty, ..Default::default() };
    let create = event::TaskCreate {
        container_id: id.into(),
        bundle: fixed.bundle.to_string_lossy().into_owned(),
        io: Some(io),
        pid,
        ..Default::default()
    };
    vec![task(topic::CREATE, id, &create), start(id, pid)]
}

fn start(id: &str, pid: u32) -> Event {
    task(topic::START, id, &event::TaskStart { container_id: id.into(), pid })
}

fn ended(id: &str, exited: &Exited) -> Vec<Event> {
    let (exit_status, exited_at) = (exit_status(exited.exit_code), timestamp(exited.finished_at));
    let exit = event::TaskExit {
        container_id: id.into(),
        id: id.into(),
        pid: exited.pid,
        exit_status,
        exited_at: Some(exited_at),
    };
    let delete = event::TaskDelete {
        container_id: id.into(),
        id: id.into(),
        pid: exited.pid,
        exit_status,
        exited_at: Some(exited_at),
    };
    let oom = event::TaskOom { container_id: id.into() };
    let oom = (exited.reason == Reason::OomKilled).then(|| task(topic::OOM, id, &oom));
    let rest = [task(topic::EXIT, id, &exit), task(topic::DELETE, id, &delete)];
    oom.into_iter().chain(rest).collect()
}

fn task<M: api::Name>(topic: &'static str, id: &str, event: &M) -> Event {
    (topic, api::pack(event), BTreeMap::from([("container_id", id.to_owned())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_told_before_the_end_that_it_made() {
        let mut exited = Exited {
            pid: 7,
            started_at: 1,
            finished_at: 2_000_000_003,
            exit_code: 137,
            reason: Reason::OomKilled,
            message: String::new(),
        };
        let topics = |exited: &Exited| -> Vec<&str> {
            ended("c", exited).into_iter().map(|(topic, _, _)| topic).collect()
        };
        assert_eq!(topics(&exited), [topic::OOM, topic::EXIT, topic::DELETE]);
        let (_, any, fields) = ended("c", &exited).swap_remove(1);
        let exit: event::TaskExit = api::unpack(&any).unwrap();
        assert_eq!((exit.pid, exit.exit_status, fields["container_id"].as_str()), (7, 137, "c"));
        assert_eq!(exit.exited_at, Some(prost_types::Timestamp { seconds: 2, nanos: 3 }));
        exited.reason = Reason::Error;
        assert_eq!(topics(&exited), [topic::EXIT, topic::DELETE]);
    }
}
