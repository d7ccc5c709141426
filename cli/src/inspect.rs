//! `podwright inspect`: all that is known of a pod, a container or an image, as JSON or YAML.

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

/// Show all that is known of pods, containers or images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ids, names or references
    #[arg(required = true, value_name = "POD|CONTAINER|IMAGE")]
    wanted: Vec<String>,
    /// In which form; in YAML each is a document
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Form {
    #[default]
    Json,
    Yaml,
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
        std::io::stdout().write_all(written(&told, args.output)?.as_bytes())?;
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

fn written(told: &Value, form: Form) -> anyhow::Result<String> {
    Ok(match form {
        Form::Json => format!("{told:#}\n"),
        Form::Yaml => format!("---\n{}", serde_saphyr::to_string(told)?),
    })
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

    #[test]
    fn both_forms_say_the_same() {
        // What a reader of YAML could take for something else.
        let odd = [
            "",
            "yes",
            "no",
            "null",
            "~",
            "true",
            "0x1f",
            "1e3",
            "007",
            "1:30",
            ".inf",
            "- a",
            "# b",
            "a: b",
            "a #b",
            " x ",
            "*a",
            "&a",
            "!t",
            "%",
            "@",
            "`",
            "\"",
            "'",
            "[",
            "{",
            "two\nlines\n",
            "\n",
            "tab\there",
            "---",
            "é\u{1}\u{85}",
            "\\",
        ];
        let all: Vec<Value> = odd
            .iter()
            .map(|&text| json!({ "k": text, text: [text, 1, 1.5, null, {}, []] }))
            .collect();
        let told = json!({ "status": all, "deep": { "er": { "b": true, "big": u64::MAX, "small": i64::MIN } } });
        assert_eq!(
            serde_json::from_str::<Value>(&written(&told, Form::Json).unwrap()).unwrap(),
            told
        );
        let yaml = written(&told, Form::Yaml).unwrap();
        assert!(yaml.starts_with("---\n") && yaml.ends_with('\n'), "{yaml}");
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), told, "{yaml}");
    }
}
