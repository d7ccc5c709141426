//! What the kubelet gives to log in with, and to whom it may be shown.
//!
//! Credentials stay in memory for as long as the pull that they came with. As in containerd, those that name no
//! server go to every endpoint that the node's operator configured for the registry; those that name one go to the
//! endpoint of that name only, the registry's own name meaning its server, not a mirror. An endpoint's token
//! service sees them, too; where a registry redirects never does.

use std::fmt;

use base64::Engine as _;

use super::super::error::Error;
use super::super::reference::DOCKER_IO;

/// How to log in.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) enum Login {
    #[default]
    Anonymous,
    Password {
        username: String,
        password: String,
    },
    /// An OAuth2 refresh token, to be exchanged at the token service.
    Identity(String),
    /// A bearer token for the registry itself.
    Bearer(String),
}

/// A login and, where the client named one, the only server that it is for.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    login: Login,
    server: Option<String>,
}

/// The fields of CRI's AuthConfig.
#[derive(Default)]
pub(crate) struct AuthFields<'a> {
    pub username: &'a str,
    pub password: &'a str,
    /// base64 of `username:password`.
    pub auth: &'a str,
    pub server_address: &'a str,
    pub identity_token: &'a str,
    pub registry_token: &'a str,
}

impl fmt::Debug for AuthFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthFields")
    }
}

impl Credentials {
    /// Reads an AuthConfig; of several forms the first in containerd's order counts. A name without a password
    /// beside an identity token is what Azure's tools write: there the token counts.
    pub(crate) fn from_auth(auth: &AuthFields<'_>) -> Result<Self, Error> {
        let only_named = auth.password.is_empty() && !auth.identity_token.is_empty();
        let login = if !auth.username.is_empty() && !only_named {
            Login::Password { username: auth.username.into(), password: auth.password.into() }
        } else if !auth.identity_token.is_empty() {
            Login::Identity(auth.identity_token.into())
        } else if !auth.auth.is_empty() {
            decode(auth.auth)?
        } else if !auth.registry_token.is_empty() {
            Login::Bearer(auth.registry_token.into())
        } else {
            Login::Anonymous
        };
        let server = match auth.server_address {
            "" => None,
            address => Some(host_of(address).to_owned()),
        };
        Ok(Self { login, server })
    }

    /// What may be shown to an endpoint of `registry`; `is_server`: it is no mirror.
    pub(super) fn login_for(&self, registry: &str, endpoint: &str, is_server: bool) -> &Login {
        let meant = self.server.as_ref().is_none_or(|server| {
            same_server(server, endpoint) || is_server && same_server(server, registry)
        });
        if meant { &self.login } else { &Login::Anonymous }
    }

    pub(super) fn into_login(self) -> Login {
        self.login
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
            Self::Bearer(_) => "Bearer",
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:?}", self.login, self.server)
    }
}

fn decode(auth: &str) -> Result<Login, Error> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(auth)
        .map_err(|_| Error::Credentials("auth is not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Credentials("auth is not UTF-8"))?;
    let (username, password) =
        text.split_once(':').ok_or(Error::Credentials("auth is not username:password"))?;
    Ok(Login::Password {
        username: username.to_owned(),
        password: password.trim_matches('\0').to_owned(),
    })
}

/// `https://host:port/path` and `host:port` alike.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn same_server(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (is_docker(a) && is_docker(b))
}

/// The names of Docker's own registry.
pub(super) fn is_docker(host: &str) -> bool {
    let names = [DOCKER_IO, "index.docker.io", "registry-1.docker.io"];
    names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(auth: &AuthFields<'_>) -> Login {
        Credentials::from_auth(auth).unwrap().login
    }

    #[test]
    fn every_form_of_auth_config_is_read() {
        let password = Login::Password { username: "u".into(), password: "p:q".into() };
        assert_eq!(login(&AuthFields::default()), Login::Anonymous);
        let plain =
            AuthFields { username: "u", password: "p:q", auth: "bm8=", ..Default::default() };
        assert_eq!(login(&plain), password);
        assert_eq!(login(&AuthFields { auth: "dTpwOnE=", ..Default::default() }), password);
        assert_eq!(
            login(&AuthFields { identity_token: "r", registry_token: "t", ..Default::default() }),
            Login::Identity("r".into())
        );
        assert_eq!(
            login(&AuthFields { registry_token: "t", ..Default::default() }),
            Login::Bearer("t".into())
        );
        let azure = AuthFields { username: "0", identity_token: "r", ..Default::default() };
        assert_eq!(login(&azure), Login::Identity("r".into()));
        for auth in ["dTpwOnE", "!", "dXBx"] {
            assert!(Credentials::from_auth(&AuthFields { auth, ..Default::default() }).is_err());
        }
    }

    #[test]
    fn a_named_server_is_the_only_one_that_sees_the_login() {
        let for_server = |server_address| {
            let auth = AuthFields { username: "u", server_address, ..Default::default() };
            Credentials::from_auth(&auth).unwrap()
        };
        let shown = |server, registry, endpoint, is_server| {
            *for_server(server).login_for(registry, endpoint, is_server) != Login::Anonymous
        };
        assert!(shown("", "a.io", "mirror.local", false));
        assert!(!shown("https://a.io/v1/", "a.io", "mirror.local", false));
        assert!(shown("https://a.io/v1/", "a.io", "backend.local", true));
        assert!(shown("mirror.local:5000", "a.io", "mirror.local:5000", false));
        assert!(shown("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", true));
        assert!(!shown("https://b.io", "a.io", "a.io", true));
        assert!(!shown("a.io.evil.org", "a.io", "a.io", true));
    }

    #[test]
    fn secrets_do_not_reach_logs() {
        let auth = AuthFields { username: "u", password: "hunter2", ..Default::default() };
        let text = format!("{:?} {auth:?}", Credentials::from_auth(&auth).unwrap());
        assert!(!text.contains("hunter2"), "{text}");
    }
}
