//! The files that a pod's containers see as their hostname, hosts and resolver configuration.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::config::{DnsConfig, PodOrHost, SandboxConfig};
use super::users;
use crate::container::relabel::relabel;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::id::SandboxId;

const HOST_HOSTS: &str = "/etc/hosts";
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// The pod's host name: as asked, else the node's in the host's network, else made from the id.
pub(super) fn hostname(config: &SandboxConfig, id: &SandboxId, node_hostname: &str) -> String {
    match (config.hostname.as_str(), config.namespaces.network) {
        ("", PodOrHost::Host) => node_hostname.to_owned(),
        ("", PodOrHost::Pod) => id.short().to_owned(),
        (asked, _) => asked.to_owned(),
    }
}

/// Writes `hostname`, `hosts` and `resolv.conf` into the pod's directory, with the label that SELinux
/// wants of them. Blocks.
///
/// # Errors
/// When one cannot be written, or the host's own cannot be read.
pub(super) fn write(
    dir: &Path,
    config: &SandboxConfig,
    hostname: &str,
    ips: &[IpAddr],
    label: Option<&str>,
) -> Result<()> {
    put(&dir.join("hostname"), format!("{hostname}\n").as_bytes())?;
    let hosts = match config.namespaces.network {
        PodOrHost::Host => {
            std::fs::read(HOST_HOSTS).unwrap_or_else(|_| hosts(hostname, ips).into_bytes())
        }
        PodOrHost::Pod => hosts(hostname, ips).into_bytes(),
    };
    put(&dir.join("hosts"), &hosts)?;
    let resolver = match &config.dns_config {
        Some(dns) => resolv_conf(dns).into_bytes(),
        // A node without one has no resolver to hand on.
        None => std::fs::read(HOST_RESOLV_CONF).unwrap_or_default(),
    };
    put(&dir.join("resolv.conf"), &resolver)?;
    let files = ["hostname", "hosts", "resolv.conf"].map(|name| dir.join(name));
    for path in label.iter().flat_map(|_| &files) {
        relabel(path, label.unwrap_or_default(), &|| false)
            .map_err(|reason| Error::Internal(format!("{} {reason}", path.display())))?;
    }
    users::give(&files.each_ref().map(|file| file.as_path()), config.security.userns.as_ref())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    failpoint::step("run/file", || std::fs::write(path, bytes).map_err(Error::io("write", path)))
}

fn hosts(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text =
        String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for ip in ips {
        writeln!(text, "{ip}\t{hostname}").ok();
    }
    text
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).ok();
    }
    for server in &dns.servers {
        writeln!(text, "nameserver {server}").ok();
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_lines_in_the_order_clients_compare() {
        let dns = DnsConfig {
            servers: vec!["10.10.10.10".into()],
            searches: vec!["google.com".into(), "b".into()],
            options: vec!["ndots:8".into()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "search google.com b\nnameserver 10.10.10.10\noptions ndots:8\n"
        );
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }
}
