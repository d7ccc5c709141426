//! The values of `podwright run`'s options.

use api::cri::v1::Protocol;

/// The longest name: it becomes the host name, too.
const MAX_NAME: usize = 63;

/// A forwarded port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) host_ip: String,
    pub(crate) host: u16,
    pub(crate) pod: u16,
    pub(crate) protocol: Protocol,
}

/// A container of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
}

/// A name as Kubernetes wants it. It becomes part of a path, so nothing else will do.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits = text.len() <= MAX_NAME
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.is_empty();
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a name has lower-case letters, digits and dashes between them, {MAX_NAME} at most"
        ))
    }
}

/// `NAME=VALUE`, or `NAME` for what it is in this command's own environment.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => {
            let value = std::env::var(text).map_err(|error| format!("{text}: {error}"))?;
            (text, value)
        }
    };
    if name.is_empty() { Err("the name is empty".into()) } else { Ok((name.to_owned(), value)) }
}

/// `[IP:]HOST:POD[/PROTOCOL]`; an IPv6 address stands in brackets.
pub(crate) fn port(text: &str) -> Result<Port, String> {
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((ports, "sctp")) => (ports, Protocol::Sctp),
        Some((_, other)) => return Err(format!("unknown protocol {other:?}")),
    };
    let (rest, pod) = ports.rsplit_once(':').ok_or("expected HOST:POD")?;
    let (host_ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let host_ip = host_ip.trim_start_matches('[').trim_end_matches(']').to_owned();
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{host_ip:?} is no address"));
    }
    Ok(Port { host_ip, host: number(host)?, pod: number(pod)?, protocol })
}

fn number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("{text:?} is no port")),
    }
}

/// `NAME=IMAGE [COMMAND…]`.
pub(crate) fn container(text: &str) -> Result<Container, String> {
    let (called, rest) = text.split_once('=').ok_or("expected NAME=IMAGE")?;
    let mut words = rest.split_whitespace().map(str::to_owned);
    let image = words.next().ok_or("the image is missing")?;
    Ok(Container { name: name(called)?, image, command: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths_and_host_names() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a.b", "a b", "é", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_read_in_every_form() {
        let tcp = |host_ip: &str, host, pod| Port {
            host_ip: host_ip.into(),
            host,
            pod,
            protocol: Protocol::Tcp,
        };
        assert_eq!(port("8080:80"), Ok(tcp("", 8080, 80)));
        assert_eq!(port("8080:80/tcp"), Ok(tcp("", 8080, 80)));
        assert_eq!(port("127.0.0.1:1:2"), Ok(tcp("127.0.0.1", 1, 2)));
        assert_eq!(port("[::1]:1:2"), Ok(tcp("::1", 1, 2)));
        assert_eq!(port("53:53/udp").unwrap().protocol, Protocol::Udp);
        for bad in ["80", "0:80", "80:0", "80:65536", "a:80", "80:80/icmp", "x:80:80", ":80"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_may_hold_anything() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
        assert!(variable("=b").is_err());
        assert!(variable("PODWRIGHT_SURELY_NOT_SET").is_err());
    }

    #[test]
    fn containers_are_split_at_blanks() {
        let parsed = container("web=r.io:5000/a:1  httpd -f").unwrap();
        assert_eq!(parsed.name, "web");
        assert_eq!(parsed.image, "r.io:5000/a:1");
        assert_eq!(parsed.command, ["httpd", "-f"]);
        for bad in ["web", "web=", "=a", "We=a"] {
            assert!(container(bad).is_err(), "{bad}");
        }
    }
}
