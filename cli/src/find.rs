//! Which pod or container a user means: by id, by the beginning of one, or by name.
//!
//! A whole id wins over a name, a name over the beginning of an id. A container may be named
//! with its pod, as `pod/container`. Where a name fits several, the one that is alive is meant.

use anyhow::{anyhow, bail};
use api::cri::v1::{Container, ContainerState, PodSandbox, PodSandboxState};

use crate::daemon::Daemon;
use crate::human::short;

/// What was found.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    Pod(PodSandbox),
    Container(Container),
}

/// Everything that could be meant.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) pods: Vec<PodSandbox>,
    pub(crate) containers: Vec<Container>,
}

impl Candidates {
    pub(crate) async fn load(daemon: &mut Daemon) -> anyhow::Result<Self> {
        Ok(Self { pods: daemon.pods().await?, containers: daemon.containers().await? })
    }

    /// A pod or a container; `None` where nothing fits. A pod is meant rather than a container
    /// of the same name.
    pub(crate) fn any(&self, wanted: &str) -> anyhow::Result<Option<Found>> {
        for fits in [by_id as Fits, by_name] {
            for found in [self.pods(wanted, fits), self.containers(wanted, fits)] {
                if let Some(one) = self.one(wanted, found)? {
                    return Ok(Some(one));
                }
            }
        }
        let mut found = self.pods(wanted, by_prefix);
        found.extend(self.containers(wanted, by_prefix));
        self.one(wanted, found)
    }

    /// A container; a pod's name or id stands for its only one.
    pub(crate) fn container(&self, wanted: &str) -> anyhow::Result<Container> {
        for fits in [by_id as Fits, by_name, by_prefix] {
            match self.one(wanted, self.containers(wanted, fits))? {
                Some(Found::Container(container)) => return Ok(container),
                _ => {
                    if let Some(Found::Pod(pod)) = self.one(wanted, self.pods(wanted, fits))? {
                        return self.only_one_of(&pod);
                    }
                }
            }
        }
        Err(no_such(wanted, "container"))
    }

    fn only_one_of(&self, pod: &PodSandbox) -> anyhow::Result<Container> {
        let theirs = self.containers.iter().filter(|container| container.pod_sandbox_id == pod.id);
        let (alive, ended): (Vec<_>, Vec<_>) = theirs.partition(|container| is_running(container));
        let meant = if alive.is_empty() { ended } else { alive };
        match meant.as_slice() {
            [] => bail!("pod {} has no containers", pod_name(pod)),
            [one] => Ok((*one).clone()),
            several => {
                let names: Vec<_> = several.iter().map(|one| self.full_name(one)).collect();
                bail!(
                    "pod {} has several containers: name one of {}",
                    pod_name(pod),
                    names.join(", ")
                )
            }
        }
    }

    fn pods(&self, wanted: &str, fits: Fits) -> Vec<Found> {
        let pods = self.pods.iter().filter(|pod| fits(wanted, &pod.id, &[pod_name(pod)]));
        pods.cloned().map(Found::Pod).collect()
    }

    fn containers(&self, wanted: &str, fits: Fits) -> Vec<Found> {
        let containers = self.containers.iter().filter(|container| {
            let names = [container_name(container), &self.full_name(container)];
            fits(wanted, &container.id, &names)
        });
        containers.cloned().map(Found::Container).collect()
    }

    /// The only one found, or the only one of them that is alive.
    fn one(&self, wanted: &str, found: Vec<Found>) -> anyhow::Result<Option<Found>> {
        if found.len() < 2 {
            return Ok(found.into_iter().next());
        }
        let mut alive = found.iter().filter(|one| one.is_alive());
        if let (Some(one), None) = (alive.next(), alive.next()) {
            return Ok(Some(one.clone()));
        }
        let names: Vec<_> = found.iter().map(|one| self.told(one)).collect();
        bail!("{wanted:?} could be any of {}: name one by its id", names.join(", "))
    }

    /// `pod/container`.
    pub(crate) fn full_name(&self, container: &Container) -> String {
        let pod = self.pods.iter().find(|pod| pod.id == container.pod_sandbox_id);
        format!("{}/{}", pod.map_or("?", pod_name), container_name(container))
    }

    fn told(&self, found: &Found) -> String {
        match found {
            Found::Pod(pod) => format!("pod {} ({})", short(&pod.id), pod_name(pod)),
            Found::Container(container) => {
                format!("container {} ({})", short(&container.id), self.full_name(container))
            }
        }
    }
}

impl Found {
    fn is_alive(&self) -> bool {
        match self {
            Self::Pod(pod) => pod.state() == PodSandboxState::SandboxReady,
            Self::Container(container) => is_running(container),
        }
    }
}

/// The failure when nothing fits.
pub(crate) fn no_such(wanted: &str, what: &str) -> anyhow::Error {
    anyhow!("no such {what}: {wanted}")
}

pub(crate) fn pod_name(pod: &PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("?", |metadata| &metadata.name)
}

pub(crate) fn container_name(container: &Container) -> &str {
    container.metadata.as_ref().map_or("?", |metadata| &metadata.name)
}

pub(crate) fn is_running(container: &Container) -> bool {
    container.state() == ContainerState::ContainerRunning
}

/// Whether an object of this id and these names is what is wanted.
type Fits = fn(wanted: &str, id: &str, names: &[&str]) -> bool;

fn by_id(wanted: &str, id: &str, _: &[&str]) -> bool {
    wanted == id
}

fn by_name(wanted: &str, _: &str, names: &[&str]) -> bool {
    names.contains(&wanted)
}

fn by_prefix(wanted: &str, id: &str, _: &[&str]) -> bool {
    !wanted.is_empty() && id.starts_with(wanted)
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{ContainerMetadata, PodSandboxMetadata};

    use super::*;

    fn pod(id: &str, name: &str, ready: bool) -> PodSandbox {
        PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata { name: name.into(), ..Default::default() }),
            state: i32::from(!ready),
            ..Default::default()
        }
    }

    fn container(id: &str, pod: &str, name: &str, state: ContainerState) -> Container {
        Container {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            state: state.into(),
            ..Default::default()
        }
    }

    fn candidates() -> Candidates {
        use ContainerState::{ContainerExited as Exited, ContainerRunning as Running};
        Candidates {
            pods: vec![
                pod("aa11", "web", true),
                pod("aa22", "web", false),
                pod("bb33", "db", true),
            ],
            containers: vec![
                container("c111", "aa11", "web", Running),
                container("c122", "aa11", "log", Running),
                container("d333", "bb33", "db", Running),
                container("d444", "bb33", "db", Exited),
            ],
        }
    }

    fn id_of(found: Option<Found>) -> String {
        match found {
            None => "nothing".into(),
            Some(Found::Pod(pod)) => pod.id,
            Some(Found::Container(container)) => container.id,
        }
    }

    #[test]
    fn anything_is_found_by_id_name_and_prefix() {
        let all = candidates();
        let cases = [
            ("aa22", "aa22"),
            ("web", "aa11"),
            ("log", "c122"),
            ("web/log", "c122"),
            ("db/db", "d333"),
            ("bb", "bb33"),
            ("d4", "d444"),
            ("zz", "nothing"),
            ("", "nothing"),
        ];
        for (wanted, id) in cases {
            assert_eq!(id_of(all.any(wanted).unwrap()), id, "{wanted}");
        }
    }

    #[test]
    fn what_could_be_several_is_asked_back() {
        let told = candidates().any("c1").unwrap_err().to_string();
        assert_eq!(
            told,
            r#""c1" could be any of container c111 (web/web), container c122 (web/log): name one by its id"#
        );
        // Of the two, one is alive.
        assert_eq!(id_of(candidates().any("aa").unwrap()), "aa11");
    }

    #[test]
    fn a_pod_stands_for_its_only_running_container() {
        let all = candidates();
        assert_eq!(all.container("bb33").unwrap().id, "d333");
        assert_eq!(all.container("web").unwrap().id, "c111");
        assert_eq!(all.container("d444").unwrap().id, "d444");
        let told = all.container("aa11").unwrap_err().to_string();
        assert_eq!(told, "pod web has several containers: name one of web/web, web/log");
        assert_eq!(all.container("aa22").unwrap_err().to_string(), "pod web has no containers");
        assert_eq!(all.container("nope").unwrap_err().to_string(), "no such container: nope");
    }
}
