//! Which proxy a request goes through, by the environment, as curl and Go's programs read it: `HTTP_PROXY`,
//! `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case.
//!
//! What runs on this machine is never asked through a proxy. A proxy's address may hold a password, so it is shown
//! without.

use std::net::IpAddr;

use reqwest::Url;

/// The proxies of this process.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    except: Vec<Exception>,
}

/// An entry of NO_PROXY.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Net {
        address: IpAddr,
        bits: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `sub`: only what is below the name, not the name itself.
    Name {
        name: String,
        sub: bool,
        port: Option<u16>,
    },
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(shown);
        write!(f, "Proxies({:?}, {:?}, {:?})", shown(&self.http), shown(&self.https), self.except)
    }
}

impl Proxies {
    /// Reads this process's environment.
    pub(super) fn from_env() -> Result<Self, String> {
        Self::new(|name| std::env::var(name).ok())
    }

    /// Reads an environment; an address that is no proxy's is a mistake, since going without it could tell others
    /// what they must not know.
    pub(super) fn new(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| {
            let given = |name: &str| env(name).filter(|value| !value.trim().is_empty());
            given(name).map(|value| (name.to_owned(), value)).or_else(|| {
                let lower = name.to_lowercase();
                given(&lower).map(|value| (lower, value))
            })
        };
        let proxy = |name: &str| get(name).map(|(name, value)| address(&name, &value)).transpose();
        let except = get("NO_PROXY").map_or(String::new(), |(_, value)| value);
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            except: except.split([',', ' ']).filter_map(exception).collect(),
        })
    }

    /// The proxy for a URL; `None`: ask its host itself.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http }.as_ref()?;
        let host = url.host_str()?.trim_end_matches('.').to_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let port = url.port_or_known_default();
        let excepted = self.except.iter().any(|entry| entry.matches(&host, address, port));
        (!local && !excepted).then_some(proxy)
    }
}

/// An address without what it may hold of secrets.
pub(super) fn shown(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.authority().rsplit('@').next().unwrap_or_default())
}

fn address(name: &str, value: &str) -> Result<Url, String> {
    let value = value.trim();
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    Url::parse(&text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| format!("the environment's {name} is not the address of an http proxy"))
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_lowercase();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = text.split_once('/') {
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        return (bits <= most).then_some(Exception::Net { address, bits });
    }
    if let Ok(address) = text.parse() {
        return Some(Exception::Address { address, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text.as_str(), None),
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(Exception::Address { address, port });
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    let sub = host.starts_with('.');
    let name = host.trim_start_matches('.').trim_end_matches('.').to_owned();
    (!name.is_empty()).then_some(Exception::Name { name, sub, port })
}

impl Exception {
    fn matches(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let same = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Self::All => true,
            Self::Net { address: net, bits } => {
                address.is_some_and(|address| within(address, *net, *bits))
            }
            Self::Address { address: wanted, port } => address == Some(*wanted) && same(port),
            Self::Name { name, sub, port } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|h| h.ends_with('.'));
                same(port) && (below || !sub && host == name)
            }
        }
    }
}

fn within(address: IpAddr, net: IpAddr, bits: u8) -> bool {
    let (a, b, width) = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    bits == 0 || a >> (width - bits) == b >> (width - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(env: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::new(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn goes(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&Url::parse(url).unwrap()).map(shown)
    }

    #[test]
    fn upper_case_counts_before_lower_and_each_scheme_has_its_own() {
        let env = [
            ("HTTP_PROXY", "http://user:secret@up:3128"),
            ("http_proxy", "http://low:1"),
            ("https_proxy", "low:2"),
        ];
        let both = proxies(&env).unwrap();
        assert_eq!(goes(&both, "http://a.io/x").as_deref(), Some("http://up:3128"));
        assert_eq!(goes(&both, "https://a.io/x").as_deref(), Some("http://low:2"));
        assert!(!format!("{both:?}").contains("secret"));
        for local in ["http://localhost:5000", "https://127.0.0.9", "https://[::1]:5000"] {
            assert_eq!(goes(&both, local), None, "{local}");
        }
        assert_eq!(goes(&proxies(&[]).unwrap(), "https://a.io"), None);
        for bad in ["socks5://x:1", "http://", "ftp://x"] {
            let err = proxies(&[("HTTPS_PROXY", bad)]).unwrap_err();
            assert!(err.contains("HTTPS_PROXY"), "{err}");
        }
    }

    #[test]
    fn exceptions_of_every_form() {
        for (except, direct, through) in [
            (
                "a.io",
                vec!["https://a.io", "https://A.io.:444", "https://b.a.io"],
                vec!["https://xa.io"],
            ),
            (".a.io", vec!["https://b.a.io"], vec!["https://a.io"]),
            ("*.a.io", vec!["https://c.b.a.io"], vec!["https://a.io"]),
            ("a.io:444", vec!["https://a.io:444"], vec!["https://a.io"]),
            ("a.io:443", vec!["https://a.io"], vec!["https://a.io:444"]),
            (
                "10.0.0.0/8, 192.168.1.0/24",
                vec!["https://10.9.8.7", "https://192.168.1.2:5000"],
                vec!["https://11.0.0.1", "https://192.168.2.1", "https://ten.io"],
            ),
            (
                "fd00::/8",
                vec!["https://[fd12::1]:5000"],
                vec!["https://[fe80::1]", "https://10.0.0.1"],
            ),
            ("10.0.0.1", vec!["https://10.0.0.1:5000"], vec!["https://10.0.0.2"]),
            ("10.0.0.1:5000", vec!["https://10.0.0.1:5000"], vec!["https://10.0.0.1"]),
            ("[fd00::1]:5000", vec!["https://[fd00::1]:5000"], vec!["https://[fd00::1]"]),
            ("*", vec!["https://a.io"], vec![]),
            ("0.0.0.0/0", vec!["https://8.8.8.8"], vec!["https://a.io"]),
            (",, 10.0.0.0/99,a b", vec!["https://a", "https://b"], vec!["https://10.0.0.1"]),
        ] {
            let set = proxies(&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", except)]).unwrap();
            for url in direct {
                assert_eq!(goes(&set, url), None, "{except}: {url}");
            }
            for url in through {
                assert_eq!(goes(&set, url).as_deref(), Some("http://p:1"), "{except}: {url}");
            }
        }
    }
}
