//! `podwright inspect`: all that is known of a pod, a container or an image, as JSON.

use std::io::Write;
use std::process::ExitCode;

use anyhow::anyhow;
use api::cri::v1::{
    ContainerStatusRequest, ImageSpec, ImageStatusRequest, PodSandboxStatusRequest,
};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::find::{Candidates, Found, no_such};
use crate::human::rfc3339;
use crate::json::inspection;

/// What Go prints for a time that is not set, and crictl with it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Show all that is known of pods, containers or images, as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids, names or references
    #[arg(required = true, value_name = "POD|CONTAINER|IMAGE")]
    wanted: Vec<String>,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let all = Candidates::load(daemon).await?;
    for wanted in &args.wanted {
        let mut told = match all.any(wanted)? {
            Some(Found::Pod(pod)) => of_pod(pod.id, daemon).await?,
            Some(Found::Container(container)) => of_container(container.id, daemon).await?,
            None => of_image(wanted, daemon).await?,
        };
        readable_times(&mut told["status"]);
        writeln!(std::io::stdout(), "{told:#}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_pod(pod_sandbox_id: String, daemon: &mut Daemon) -> anyhow::Result<Value> {
    let request = PodSandboxStatusRequest { pod_sandbox_id, verbose: true };
    let answer = daemon.runtime.pod_sandbox_status(request).await?.into_inner();
    inspection(&answer.status.ok_or_else(|| anyhow!("the answer is empty"))?, answer.info)
}

async fn of_container(container_id: String, daemon: &mut Daemon) -> anyhow::Result<Value> {
    let request = ContainerStatusRequest { container_id, verbose: true };
    let answer = daemon.runtime.container_status(request).await?.into_inner();
    inspection(&answer.status.ok_or_else(|| anyhow!("the answer is empty"))?, answer.info)
}

async fn of_image(wanted: &str, daemon: &mut Daemon) -> anyhow::Result<Value> {
    let image = Some(ImageSpec { image: wanted.into(), ..Default::default() });
    let request = ImageStatusRequest { image, verbose: true };
    let answer = daemon.images.image_status(request).await?.into_inner();
    let image = answer.image.ok_or_else(|| no_such(wanted, "pod, container or image"))?;
    inspection(&image, answer.info)
}

/// Nanoseconds become times.
fn readable_times(status: &mut Value) {
    for key in ["createdAt", "startedAt", "finishedAt"] {
        let Some(value) = status.get_mut(key) else { continue };
        let Some(nanos) = value.as_str().and_then(|text| text.parse().ok()) else { continue };
        *value = if nanos == 0 { NO_TIME.into() } else { rfc3339(nanos).into() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_readable() {
        let mut status =
            json!({ "createdAt": "1700000000000000000", "finishedAt": "0", "id": "7" });
        readable_times(&mut status);
        let expected = json!({
            "createdAt": "2023-11-14T22:13:20Z", "finishedAt": NO_TIME, "id": "7",
        });
        assert_eq!(status, expected);
    }
}
