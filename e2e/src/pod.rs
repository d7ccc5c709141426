//! Configurations as a kubelet would write them, and the usual sequences of calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::Status;

use crate::cri::*;
use crate::poll::eventually;
use crate::world::World;

/// A pod's configuration with everything a kubelet always sets.
pub fn sandbox(world: &World, name: &str) -> PodSandboxConfig {
    static UID: AtomicU32 = AtomicU32::new(0);
    let uid = format!("{name}-{}", UID.fetch_add(1, Ordering::Relaxed));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: uid.clone(),
            namespace: "tests".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: log_directory(world, &uid),
        labels: [("pod".to_owned(), name.to_owned())].into(),
        annotations: [("made-by".to_owned(), "e2e".to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: world.driver().of_pod(&world.cgroup, &uid),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(NamespaceMode::Pod, NamespaceMode::Container)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The kubelet makes a pod's log directory.
fn log_directory(world: &World, uid: &str) -> String {
    let dir = world.path("logs").join(uid);
    std::fs::create_dir_all(&dir).expect("the world's directory");
    dir.display().to_string()
}

pub fn namespaces(network: NamespaceMode, pid: NamespaceMode) -> NamespaceOption {
    NamespaceOption { network: network.into(), pid: pid.into(), ..Default::default() }
}

/// A container's configuration; its log is `<name>.log`.
pub fn container(name: &str, image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.into(), ..Default::default() }),
        command: command.iter().map(ToString::to_string).collect(),
        labels: [("container".to_owned(), name.to_owned())].into(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources::default()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(NamespaceMode::Pod, NamespaceMode::Container)),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// How long a pull may take: some write gigabytes or a million files, to a disk that others write to as well.
const PULL: Duration = Duration::from_secs(900);

/// A shell line as a container's command.
pub fn shell(line: &str) -> [&str; 3] {
    ["/bin/sh", "-c", line]
}

/// A sandbox that runs, with the configuration it was made from.
#[derive(Debug)]
pub struct Pod<'w> {
    pub world: &'w World,
    pub id: String,
    pub config: PodSandboxConfig,
}

impl World {
    pub fn pull(&self, image: &str) -> String {
        self.try_pull(image).unwrap_or_else(|status| panic!("pull {image}: {status}"))
    }

    pub fn try_pull(&self, image: &str) -> Result<String, Status> {
        let image = Some(ImageSpec { image: image.into(), ..Default::default() });
        let request = PullImageRequest { image, ..Default::default() };
        self.client.pull_image_within(PULL, request).map(|pulled| pulled.image_ref)
    }

    pub fn remove_image(&self, image: &str) {
        let image = Some(ImageSpec { image: image.into(), ..Default::default() });
        self.client.remove_image(RemoveImageRequest { image }).expect("RemoveImage");
    }

    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.pod_of(sandbox(self, name))
    }

    pub fn pod_of(&self, config: PodSandboxConfig) -> Pod<'_> {
        self.try_pod(config).unwrap_or_else(|status| panic!("RunPodSandbox: {status}"))
    }

    pub fn try_pod(&self, config: PodSandboxConfig) -> Result<Pod<'_>, Status> {
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = self.client.run_pod_sandbox(request)?.pod_sandbox_id;
        Ok(Pod { world: self, id, config })
    }

    pub fn container_status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.client.container_status(request).map(|answer| answer.status.expect("a status"))
    }

    pub fn sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
        self.client.pod_sandbox_status(request).map(|answer| answer.status.expect("a status"))
    }

    /// The container's status once it has ended.
    pub fn ended(&self, id: &str) -> ContainerStatus {
        eventually("the container to end", || {
            let status = self.container_status(id).expect("ContainerStatus");
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    pub fn try_exec(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        self.client.exec_sync(ExecSyncRequest {
            container_id: id.into(),
            cmd: command.iter().map(ToString::to_string).collect(),
            timeout,
        })
    }

    /// What a shell line prints in the container; panics where it fails.
    pub fn exec(&self, id: &str, line: &str) -> String {
        let answer =
            self.try_exec(id, &shell(line), 50).unwrap_or_else(|err| panic!("{line}: {err}"));
        let out = String::from_utf8_lossy(&answer.stdout).into_owned();
        let err = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.exit_code, 0, "{line}: {out}{err}");
        out
    }

    pub fn stop_container(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: id.into(), timeout };
        self.client.stop_container(request).map(|_| ())
    }

    pub fn remove_container(&self, id: &str) -> Result<(), Status> {
        self.client.remove_container(RemoveContainerRequest { container_id: id.into() }).map(|_| ())
    }

    pub fn start_container(&self, id: &str) -> Result<(), Status> {
        self.client.start_container(StartContainerRequest { container_id: id.into() }).map(|_| ())
    }
}

impl Pod<'_> {
    pub fn try_create(&self, config: ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        self.world.client.create_container(request).map(|answer| answer.container_id)
    }

    pub fn create(&self, config: ContainerConfig) -> String {
        self.try_create(config).unwrap_or_else(|status| panic!("CreateContainer: {status}"))
    }

    /// Creates and starts.
    pub fn run(&self, config: ContainerConfig) -> String {
        let id = self.create(config);
        self.world.start_container(&id).unwrap_or_else(|status| panic!("StartContainer: {status}"));
        id
    }

    /// The contents of each line of a container's log.
    pub fn log(&self, name: &str) -> String {
        let path = format!("{}/{name}.log", self.config.log_directory);
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The pod's address.
    pub fn ip(&self) -> String {
        let status = self.world.sandbox_status(&self.id).expect("PodSandboxStatus");
        status.network.expect("a network").ip
    }

    pub fn stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.world.client.stop_pod_sandbox(request).map(|_| ())
    }

    pub fn remove(&self) -> Result<(), Status> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.world.client.remove_pod_sandbox(request).map(|_| ())
    }

    /// Stops and removes, as the kubelet ends a pod.
    pub fn end(self) {
        self.stop().unwrap_or_else(|status| panic!("StopPodSandbox: {status}"));
        self.remove().unwrap_or_else(|status| panic!("RemovePodSandbox: {status}"));
    }
}
