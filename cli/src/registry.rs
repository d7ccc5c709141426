//! `podwright registry`: how this node reaches an image's registry.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use api::node::v1::{ExplainRegistryRequest, ExplainRegistryResponse, RegistryEndpoint};

use crate::daemon::Daemon;
use crate::json;

/// Look at how this node reaches registries
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Explain(Explain),
}

/// Show which endpoints would be asked for an image, with what, and what each answers
///
/// The daemon asks every endpoint for the manifest with the node's own logins; what the kubelet
/// would give with a pull is not known here. Exits with 1 if none has the image.
#[derive(Debug, clap::Args)]
struct Explain {
    /// The image, as in a pod
    image: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let Verb::Explain(Explain { image, json }) = args.verb;
    let request = ExplainRegistryRequest { image };
    let told = daemon.node.explain_registry(request).await?.into_inner();
    let text = if json { format!("{:#}\n", json::message(&told)?) } else { text(&told) };
    std::io::stdout().write_all(text.as_bytes())?;
    let served = told.endpoints.iter().any(|endpoint| endpoint.failure.is_empty());
    Ok(if served { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(told: &ExplainRegistryResponse) -> String {
    let mut text = format!("{}\n", told.reference);
    for (at, endpoint) in told.endpoints.iter().enumerate() {
        let kind = if endpoint.is_server { "the registry's server" } else { "a mirror" };
        let _ = writeln!(text, "\n{}. {}, {kind}", at + 1, endpoint.url);
        for (name, value) in lines(endpoint) {
            let _ = writeln!(text, "   {name:<8} {value}");
        }
    }
    text
}

fn lines(endpoint: &RegistryEndpoint) -> Vec<(&'static str, String)> {
    let may = match (endpoint.resolve, endpoint.pull) {
        (true, true) => "resolve tags, serve content",
        (true, false) => "resolve tags only",
        (false, true) => "serve content only",
        (false, false) => "nothing",
    };
    let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    let took = endpoint.took_ms;
    let answer = match (endpoint.failure.as_str(), endpoint.digest.as_str()) {
        ("", "") => format!("has it, in {took} ms"),
        ("", digest) => format!("{digest}, in {took} ms"),
        (failure, _) => format!("{failure}, in {took} ms"),
    };
    let mut lines = vec![
        ("from", endpoint.from.clone()),
        ("may", may.to_owned()),
        ("tls", endpoint.tls.clone()),
        ("login", or_none(&endpoint.credentials)),
        ("proxy", or_none(&endpoint.proxy)),
    ];
    if !endpoint.headers.is_empty() {
        lines.push(("headers", endpoint.headers.join(", ")));
    }
    lines.push(("answer", answer));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_tells_where_it_is_from_and_what_it_said() {
        let mirror = RegistryEndpoint {
            url: "https://m.io/v2".into(),
            from: "/etc/x/hosts.toml:3".into(),
            pull: true,
            tls: "verified".into(),
            failure: "a.io/x:1: not found".into(),
            took_ms: 7,
            headers: vec!["x-key".into()],
            ..Default::default()
        };
        let server = RegistryEndpoint {
            url: "https://a.io/v2".into(),
            is_server: true,
            resolve: true,
            pull: true,
            proxy: "http://p:1".into(),
            digest: "sha256:12".into(),
            ..mirror.clone()
        };
        let server = RegistryEndpoint { failure: String::new(), headers: Vec::new(), ..server };
        let endpoints = vec![mirror, server];
        let told = ExplainRegistryResponse { reference: "a.io/x:1".into(), endpoints };
        let want = "\
a.io/x:1

1. https://m.io/v2, a mirror
   from     /etc/x/hosts.toml:3
   may      serve content only
   tls      verified
   login    none
   proxy    none
   headers  x-key
   answer   a.io/x:1: not found, in 7 ms

2. https://a.io/v2, the registry's server
   from     /etc/x/hosts.toml:3
   may      resolve tags, serve content
   tls      verified
   login    none
   proxy    http://p:1
   answer   sha256:12, in 7 ms
";
        assert_eq!(text(&told), want);
    }
}
