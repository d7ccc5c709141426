//! Where something is served: a TCP address or a Unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        let wrong = "is neither ADDRESS:PORT with an IP address nor unix:// and an absolute path";
        text.parse().map(Self::Tcp).map_err(|_| wrong.into())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sockets() {
        let parse = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
        assert_eq!(parse("127.0.0.1:1338").unwrap(), "http://127.0.0.1:1338");
        assert_eq!(parse("[::1]:9").unwrap(), "http://[::1]:9");
        assert_eq!(parse("unix:///run/a.sock").unwrap(), "unix:///run/a.sock");
        assert_eq!(parse("/run/a.sock").unwrap(), "unix:///run/a.sock");
        for wrong in ["localhost:1", "127.0.0.1", "unix://a", ":9090"] {
            parse(wrong).unwrap_err();
        }
    }
}
