//! One pod's life, driven as a kubelet does: it looks at what there is, asks for the next thing, and if that fails looks
//! again. What a kubelet must never see is an error here.

use std::time::Instant;

use anyhow::{anyhow, bail, ensure};
use e2e::cri::*;
use e2e::eventually;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, sandbox, shell};
use tonic::{Code, Status};

use crate::bystander::{COUNTS, counted};
use crate::exits::Exits;
use crate::node::Node;

/// How often a kubelet of ours asks for the same thing.
const TRIES: usize = 12;
/// Of the container that is stopped: by its own trap, or by a kill where the signal could not be sent.
const STOPPED: i32 = 7;
const KILLED: i32 = 137;
/// Of the container that ends by itself.
const ENDED: i32 = 42;
const SHARES: i64 = 512;
/// The same in cgroup v2's unit.
const WEIGHT: &str = "20";

/// The kinds of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Plain,
    SharedPid,
    HostNetwork,
}

/// Why a step did not come to its end.
pub(crate) enum Trouble {
    /// A call failed: a kubelet tries again.
    Call(Status),
    /// Something was promised and does not hold.
    Wrong(anyhow::Error),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        // A name is never reserved, and nothing here takes a minute.
        match status.code() {
            Code::AlreadyExists | Code::DeadlineExceeded => Self::Wrong(anyhow!("{status}")),
            _ => Self::Call(status),
        }
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(err: anyhow::Error) -> Self {
        Self::Wrong(err)
    }
}

type Step<T> = Result<T, Trouble>;

pub(crate) struct Life<'n> {
    node: &'n mut Node,
    /// Whether work may fail, so that a start may come to nothing.
    may_fail: bool,
    config: PodSandboxConfig,
    options: NamespaceOption,
    exits: Exits,
    attempts: [u32; 2],
    /// The container that was seen to run, and since when.
    runs: Option<(String, i64)>,
    /// It is being stopped: it may run, or have ended.
    stopping: bool,
    /// The one that ends by itself was seen to be gone by then.
    gone_by: Option<i64>,
    /// The ends in the log of that attempt that came of starts which failed.
    void: usize,
    ready: bool,
    /// Calls that failed and were tried again.
    pub(crate) retries: usize,
    said: Vec<String>,
}

/// The two containers.
#[derive(Clone, Copy)]
enum Which {
    Stays = 0,
    Ends = 1,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Ends => "ends",
        }
    }
}

impl<'n> Life<'n> {
    pub(crate) fn new(node: &'n mut Node, kind: Kind, may_fail: bool) -> Self {
        let mut config = sandbox(&node.world, "life");
        let options = match kind {
            Kind::Plain => namespaces(NamespaceMode::Pod, NamespaceMode::Container),
            Kind::SharedPid => namespaces(NamespaceMode::Pod, NamespaceMode::Pod),
            Kind::HostNetwork => {
                config.hostname = String::new();
                namespaces(NamespaceMode::Node, NamespaceMode::Container)
            }
        };
        let linux = config.linux.as_mut().expect("a Linux pod");
        linux.security_context.as_mut().expect("it has one").namespace_options =
            Some(options.clone());
        Self {
            node,
            may_fail,
            config,
            options,
            exits: Exits::default(),
            attempts: [0; 2],
            runs: None,
            stopping: false,
            gone_by: None,
            void: 0,
            ready: false,
            retries: 0,
            said: Vec::new(),
        }
    }

    /// From nothing to nothing.
    pub(crate) fn live(&mut self) -> anyhow::Result<()> {
        self.until("run the first container", |life| Ok(life.up(Which::Stays)?.is_some()))?;
        self.until("execute a command", Self::exec)?;
        self.until("change limits", Self::update)?;
        self.rotate()?;
        self.until("reopen the log", Self::reopen)?;
        self.until("see a container end", Self::ends)?;
        self.until("stop the first container", Self::stop)?;
        self.check_log()?;
        self.until("remove the containers", Self::remove_containers)?;
        self.until("stop the pod", Self::stop_pod)?;
        self.until("remove the pod", Self::remove_pod)
    }

    fn until(
        &mut self,
        what: &str,
        mut step: impl FnMut(&mut Self) -> Step<bool>,
    ) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            match step(self) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(Trouble::Wrong(err)) => {
                    bail!("{what}: {err:#}; said before: {}", self.said.join("; "))
                }
                Err(Trouble::Call(status)) => {
                    self.retries += 1;
                    self.said.push(status.to_string());
                    self.come_back()?;
                }
            }
        }
        bail!("{what}: not in {TRIES} tries: {}", self.said.join("; "))
    }

    /// After a call that failed: the daemon is there again, and what ran runs.
    fn come_back(&mut self) -> anyhow::Result<()> {
        self.note_end();
        self.node.revive()?;
        if let Some((id, started_at)) = self.runs.as_ref().filter(|_| !self.stopping) {
            let mut status = self.node.world.container_status(id);
            // The second kill may come as soon as it serves: then there is nobody to say how the container fares.
            for _ in 0..TRIES {
                if status.is_ok() || self.node.world.daemon_answers() {
                    break;
                }
                self.node.revive()?;
                status = self.node.world.container_status(id);
            }
            let same = status.as_ref().is_ok_and(|status| {
                status.state() == ContainerState::ContainerRunning
                    && status.started_at == *started_at
            });
            ensure!(same, "the container that ran does not: {status:?}");
        }
        Ok(())
    }

    /// Once the shim has written down how the container that ends by itself ended, nobody may say that it was later.
    fn note_end(&mut self) {
        if self.gone_by.is_none() && self.ends_logged() > self.void {
            let pods = self.node.world.path("state/pods");
            eventually("the shim to write the exit down", || {
                let found = self.node.world.sh(&format!("find {} -name exit.json", pods.display()));
                (!found.is_empty()).then_some(())
            });
            self.gone_by = Some(now());
        }
    }

    fn ends_logged(&self) -> usize {
        let log = std::fs::read_to_string(self.log_path(Which::Ends)).unwrap_or_default();
        log.matches("ends now").count()
    }

    /// The pod's sandbox, if it is ready; else one step towards it.
    fn sandbox(&mut self) -> Step<Option<String>> {
        let uid = &self.config.metadata.as_ref().expect("it has one").uid;
        let list = self.node.world.client.list_pod_sandbox(ListPodSandboxRequest::default())?;
        let mine: Vec<PodSandbox> = list
            .items
            .into_iter()
            .filter(|item| item.metadata.as_ref().is_some_and(|metadata| metadata.uid == *uid))
            .collect();
        let (ready, not): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|item| item.state() == PodSandboxState::SandboxReady);
        if ready.len() > 1 {
            return Err(anyhow!("{} sandboxes of one pod", ready.len()).into());
        }
        if !not.is_empty() && !self.may_fail {
            return Err(anyhow!("a sandbox is not ready though nothing failed").into());
        }
        for item in not {
            let pod_sandbox_id = item.id;
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
            self.node.world.client.stop_pod_sandbox(stop)?;
            let remove = RemovePodSandboxRequest { pod_sandbox_id };
            self.node.world.client.remove_pod_sandbox(remove)?;
            self.config.metadata.as_mut().expect("it has one").attempt += 1;
            (self.ready, self.runs) = (false, None);
        }
        if let Some(item) = ready.into_iter().next() {
            self.ready = true;
            return Ok(Some(item.id));
        }
        if self.ready {
            return Err(anyhow!("the sandbox is gone").into());
        }
        let run = RunPodSandboxRequest { config: Some(self.config.clone()), ..Default::default() };
        self.node.world.client.run_pod_sandbox(run)?;
        Ok(None)
    }

    /// The container, once it runs or has ended; else one step towards it.
    fn up(&mut self, which: Which) -> Step<Option<ContainerStatus>> {
        let Some(sandbox) = self.sandbox()? else { return Ok(None) };
        let Some(found) = self.find(&sandbox, which)? else {
            self.create(sandbox, which)?;
            return Ok(None);
        };
        let status = self.node.world.container_status(&found.id)?;
        self.exits.see(&status)?;
        match status.state() {
            ContainerState::ContainerCreated => {
                if let Which::Ends = which
                    && self.may_fail
                {
                    // What ran in a start that failed, and whose failure a kill kept from being recorded, has not run.
                    (self.void, self.gone_by) = (self.ends_logged(), None);
                }
                self.node.world.start_container(&found.id)?;
                Ok(None)
            }
            ContainerState::ContainerRunning => {
                if let Which::Stays = which {
                    self.runs = Some((found.id, status.started_at));
                }
                Ok(Some(status))
            }
            ContainerState::ContainerExited if status.reason == "StartError" && self.may_fail => {
                // Before it is removed: a removal whose answer is lost may be done all the same, and what ran for a
                // moment has written to that attempt's log.
                self.attempts[which as usize] += 1;
                (self.void, self.gone_by) = (0, None);
                self.node.world.remove_container(&found.id)?;
                Ok(None)
            }
            _ => Ok(Some(status)),
        }
    }

    fn find(&self, sandbox: &str, which: Which) -> Result<Option<Container>, Status> {
        let filter = ContainerFilter {
            pod_sandbox_id: sandbox.into(),
            label_selector: [("container".to_owned(), which.name().to_owned())].into(),
            ..Default::default()
        };
        let request = ListContainersRequest { filter: Some(filter) };
        Ok(self.node.world.client.list_containers(request)?.containers.into_iter().next())
    }

    fn create(&mut self, pod_sandbox_id: String, which: Which) -> Result<(), Status> {
        let line = match which {
            Which::Stays => format!("trap 'exit {STOPPED}' TERM; {COUNTS}"),
            Which::Ends => format!("date +%s; echo ends now; exit {ENDED}"),
        };
        let mut config = container(which.name(), BUSYBOX, &shell(&line));
        config.metadata.as_mut().expect("it has one").attempt = self.attempts[which as usize];
        config.log_path = self.log_name(which);
        let linux = config.linux.as_mut().expect("a Linux container");
        linux.security_context.as_mut().expect("it has one").namespace_options =
            Some(self.options.clone());
        self.node.world.client.create_container(CreateContainerRequest {
            pod_sandbox_id,
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        })?;
        Ok(())
    }

    fn log_name(&self, which: Which) -> String {
        format!("{}.{}.log", which.name(), self.attempts[which as usize])
    }

    fn log_path(&self, which: Which) -> String {
        format!("{}/{}", self.config.log_directory, self.log_name(which))
    }

    fn running(&self) -> Step<String> {
        let (id, _) = self.runs.clone().ok_or_else(|| anyhow!("no container runs"))?;
        Ok(id)
    }

    fn exec(&mut self) -> Step<bool> {
        let answer = self.node.world.try_exec(&self.running()?, &["echo", "hello"], 30)?;
        if answer.exit_code != 0 || answer.stdout != b"hello\n" {
            return Err(anyhow!("the command answered {answer:?}").into());
        }
        Ok(true)
    }

    fn update(&mut self) -> Step<bool> {
        let linux = LinuxContainerResources { cpu_shares: SHARES, ..Default::default() };
        let container_id = self.running()?;
        self.node.world.client.update_container_resources(UpdateContainerResourcesRequest {
            container_id: container_id.clone(),
            linux: Some(linux),
            ..Default::default()
        })?;
        let status = self.node.world.container_status(&container_id)?;
        let told =
            status.resources.and_then(|resources| resources.linux).map(|linux| linux.cpu_shares);
        let set = self.node.world.sh(&format!(
            "find /sys/fs/cgroup/ -path '*{container_id}*' \\( -name cpu.shares -o -name cpu.weight \\) -exec cat {{}} + 2>/dev/null; true"
        ));
        let right =
            set.split_whitespace().any(|value| value == SHARES.to_string() || value == WEIGHT);
        if told != Some(SHARES) || !right {
            return Err(anyhow!("limits are told as {told:?} and set as {set:?}").into());
        }
        Ok(true)
    }

    fn rotate(&self) -> anyhow::Result<()> {
        let log = self.log_path(Which::Stays);
        Ok(std::fs::rename(&log, format!("{log}.1"))?)
    }

    fn reopen(&mut self) -> Step<bool> {
        let container_id = self.running()?;
        self.node.world.client.reopen_container_log(ReopenContainerLogRequest { container_id })?;
        let log = self.log_path(Which::Stays);
        eventually("the new log to grow", || {
            std::fs::read_to_string(&log).ok().filter(|text| text.lines().count() > 1)
        });
        Ok(true)
    }

    fn ends(&mut self) -> Step<bool> {
        let Some(status) = self.up(Which::Ends)? else { return Ok(false) };
        let start = Instant::now();
        while start.elapsed() < e2e::poll::LIMIT {
            let status = self.node.world.container_status(&status.id)?;
            self.exits.see(&status)?;
            if status.state() == ContainerState::ContainerExited {
                self.check_end(&status)?;
                self.gone_by = Some(status.finished_at);
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Err(anyhow!("lost exit: it is not told").into())
    }

    fn check_end(&self, status: &ContainerStatus) -> anyhow::Result<()> {
        ensure!(
            status.exit_code == ENDED,
            "lost exit: told as {} {}",
            status.exit_code,
            status.reason
        );
        let log = std::fs::read_to_string(self.log_path(Which::Ends))?;
        let began =
            log.lines().next().and_then(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
        let began = began.ok_or_else(|| anyhow!("no time in {log:?}"))? * 1_000_000_000;
        let (at, by) = (status.finished_at, self.gone_by.unwrap_or_else(now));
        ensure!(began <= at && at <= by, "lost exit: {at} is not between {began} and {by}");
        Ok(())
    }

    fn stop(&mut self) -> Step<bool> {
        self.stopping = true;
        let id = self.running()?;
        self.node.world.stop_container(&id, 10)?;
        let status = self.node.world.container_status(&id)?;
        self.exits.see(&status)?;
        let right = status.exit_code == STOPPED || self.may_fail && status.exit_code == KILLED;
        if status.state() != ContainerState::ContainerExited || !right {
            return Err(anyhow!("stopped, it is {status:?}").into());
        }
        Ok(true)
    }

    fn check_log(&self) -> anyhow::Result<()> {
        let log = self.log_path(Which::Stays);
        let old = std::fs::read_to_string(format!("{log}.1"))?;
        let lines = counted(&(old + &std::fs::read_to_string(&log)?))?;
        ensure!(lines > 1, "a log of {lines} lines");
        Ok(())
    }

    fn remove_containers(&mut self) -> Step<bool> {
        let Some(sandbox) = self.sandbox()? else { return Ok(false) };
        for which in [Which::Ends, Which::Stays] {
            if let Some(found) = self.find(&sandbox, which)? {
                let status = self.node.world.container_status(&found.id)?;
                self.exits.see(&status)?;
                self.node.world.remove_container(&found.id)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn mine(&self) -> Result<Vec<PodSandbox>, Status> {
        let uid = &self.config.metadata.as_ref().expect("it has one").uid;
        let list = self.node.world.client.list_pod_sandbox(ListPodSandboxRequest::default())?;
        let is_mine = |item: &PodSandbox| item.metadata.as_ref().is_some_and(|of| of.uid == *uid);
        Ok(list.items.into_iter().filter(is_mine).collect())
    }

    fn stop_pod(&mut self) -> Step<bool> {
        for item in self.mine()? {
            let stop = StopPodSandboxRequest { pod_sandbox_id: item.id.clone() };
            self.node.world.client.stop_pod_sandbox(stop)?;
            let state = self.node.world.sandbox_status(&item.id)?.state();
            if state != PodSandboxState::SandboxNotready {
                return Err(anyhow!("stopped, the pod is ready").into());
            }
        }
        Ok(true)
    }

    fn remove_pod(&mut self) -> Step<bool> {
        for item in self.mine()? {
            let remove = RemovePodSandboxRequest { pod_sandbox_id: item.id };
            self.node.world.client.remove_pod_sandbox(remove)?;
        }
        Ok(self.mine()?.is_empty())
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
