//! What only a daemon that runs can tell: whether it is ready, what hangs, and whether registries answer.

use std::collections::BTreeMap;
use std::time::Duration;

use api::cri::v1::{ListImagesRequest, RuntimeCondition, StatusRequest, VersionRequest};
use api::node::v1::{ExplainRegistryRequest, ListOperationsRequest, Operation, RegistryEndpoint};
use serde_json::Value;

use super::node::Settings;
use super::{Finding, fix, ok, warning};
use crate::daemon::Daemon;
use crate::failure;
use crate::human::duration;

/// How long an operation is under way before it is told: longer than anything but a pull should take.
const LONG: u64 = 120_000;
/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Registries of this node's images that are asked.
const MAX_REGISTRIES: usize = 5;

/// Whether it is well, and what is configured.
pub(super) async fn daemon(daemon: &mut Daemon, settings: &mut Settings) -> Vec<Finding> {
    let about = "daemon";
    let version = daemon.runtime.version(VersionRequest { version: String::new() }).await;
    let mut findings = match version {
        Ok(answer) => {
            let answer = answer.into_inner();
            vec![ok(about, format!("{} {} answers", answer.runtime_name, answer.runtime_version))]
        }
        Err(status) => vec![fix(about, failure::told(&status), "")],
    };
    if let Ok(answer) = daemon.runtime.status(StatusRequest { verbose: true }).await {
        let answer = answer.into_inner();
        if let Some(config) = answer.info.get("config") {
            settings.adopt(&serde_json::from_str(config).unwrap_or(Value::Null));
        }
        for handler in answer.runtime_handlers {
            let Some(runtime) = settings.runtimes.get_mut(&handler.name) else { continue };
            let features = handler.features.unwrap_or_default();
            runtime.recursive_read_only = features.recursive_read_only_mounts;
            runtime.user_namespaces = features.user_namespaces;
        }
        findings.extend(answer.status.unwrap_or_default().conditions.iter().filter_map(unready));
    }
    match daemon.node.list_operations(ListOperationsRequest {}).await {
        Ok(list) => findings.extend(list.into_inner().operations.iter().filter_map(late)),
        Err(status) => findings.push(warning(about, failure::told(&status), "")),
    }
    findings
}

fn unready(condition: &RuntimeCondition) -> Option<Finding> {
    let RuntimeCondition { r#type, status, reason, message } = condition;
    (!status).then(|| fix("daemon", format!("{type} is false: {reason}"), message.clone()))
}

fn late(operation: &Operation) -> Option<Finding> {
    let Operation { what, stage, age_ms, waits_for, .. } = operation;
    (*age_ms >= LONG).then(|| {
        let waits = match waits_for.is_empty() {
            true => String::new(),
            false => format!(", waiting for {}", waits_for.join(", ")),
        };
        let text = format!("{what} is under way for {}: {stage}{waits}", duration(*age_ms));
        warning("operation", text, "podwright ops shows how it goes on")
    })
}

/// Asks the registries of these images, or of those that are here.
pub(super) async fn registries(daemon: &mut Daemon, images: &[String]) -> Vec<Finding> {
    let asked = match images {
        [] => {
            let list = daemon.images.list_images(ListImagesRequest::default()).await;
            let here = list.map(|list| list.into_inner().images).unwrap_or_default();
            one_of_each(here.into_iter().flat_map(|image| image.repo_tags))
        }
        named => named.to_vec(),
    };
    let mut findings = Vec::new();
    for image in asked {
        let mut request = tonic::Request::new(ExplainRegistryRequest { image: image.clone() });
        request.set_timeout(PATIENCE);
        findings.push(match daemon.node.explain_registry(request).await {
            Ok(answer) => reached(&image, &answer.into_inner().endpoints),
            Err(status) => warning("registry", format!("{image}: {}", failure::told(&status)), ""),
        });
    }
    findings
}

/// An image of each registry.
fn one_of_each(tags: impl Iterator<Item = String>) -> Vec<String> {
    let mut all = BTreeMap::new();
    for tag in tags {
        let registry = tag.split('/').next().unwrap_or_default().to_owned();
        all.entry(registry).or_insert(tag);
    }
    all.into_values().take(MAX_REGISTRIES).collect()
}

fn reached(image: &str, endpoints: &[RegistryEndpoint]) -> Finding {
    let about = "registry";
    let answers = endpoints.iter().find(|endpoint| !endpoint.digest.is_empty());
    let failed: Vec<String> = endpoints
        .iter()
        .filter(|endpoint| !endpoint.failure.is_empty())
        .map(|endpoint| format!("{}: {}", endpoint.url, endpoint.failure))
        .collect();
    let advice = format!("podwright registry explain {image}");
    match answers {
        Some(endpoint) if failed.is_empty() => {
            ok(about, format!("{} has {image}, {} ms", endpoint.url, endpoint.took_ms))
        }
        Some(endpoint) => {
            let text = format!("{} has {image}, and {}", endpoint.url, failed.join("; "));
            warning(about, text, advice)
        }
        // What is here need not be pulled, so pods may run all the same.
        None if failed.is_empty() => warning(about, format!("nobody has {image}"), advice),
        None => warning(about, format!("{image}: {}", failed.join("; ")), advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_registry_is_reached_through_one_of_its_endpoints() {
        let endpoint = |url: &str, digest: &str, failure: &str| RegistryEndpoint {
            url: url.into(),
            digest: digest.into(),
            failure: failure.into(),
            took_ms: 7,
            ..Default::default()
        };
        let good = endpoint("https://r", "sha256:1", "");
        let bad = endpoint("https://mirror", "", "connection refused");
        let told = reached("r/a:1", std::slice::from_ref(&good));
        assert_eq!((told.verdict, told.text.as_str()), (Verdict::Ok, "https://r has r/a:1, 7 ms"));
        let told = reached("r/a:1", &[bad.clone(), good]);
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.text.contains("mirror: connection refused"), "{told:?}");
        assert_eq!(reached("r/a:1", &[bad]).verdict, Verdict::Warning);
    }

    #[test]
    fn one_image_of_each_registry() {
        let tags = ["r/a:1", "r/b:1", "docker.io/library/c:1"].map(str::to_owned);
        assert_eq!(one_of_each(tags.into_iter()), ["docker.io/library/c:1", "r/a:1"]);
    }

    #[test]
    fn what_hangs_is_told_with_what_it_waits_for() {
        let mut operation = Operation {
            what: "create container c".into(),
            stage: "looking up volumes".into(),
            age_ms: LONG - 1,
            waits_for: vec!["/mnt/nfs".into()],
            ..Default::default()
        };
        assert_eq!(late(&operation), None);
        operation.age_ms = LONG;
        let told = late(&operation).unwrap();
        assert_eq!(
            told.text,
            "create container c is under way for 2m: looking up volumes, waiting for /mnt/nfs"
        );
    }

    #[test]
    fn a_condition_that_is_false_is_to_be_fixed() {
        let mut condition = RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: true,
            reason: "NetworkPluginNotReady".into(),
            message: "no network".into(),
        };
        assert_eq!(unready(&condition), None);
        condition.status = false;
        let told = unready(&condition).unwrap();
        assert_eq!((told.verdict, told.advice.as_str()), (Verdict::Fix, "no network"));
    }
}
