//! What the kubelet gives to log in with, and to whom it may be shown.
//!
//! Credentials stay in memory for as long as the pull that they came with. They go to the endpoints that the
//! node's operator configured for the registry and to the token service that such an endpoint names, never to
//! where a registry redirects.

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
    /// Reads an AuthConfig; of several forms the first in containerd's order counts.
    pub(crate) fn from_auth(auth: &AuthFields<'_>) -> Result<Self, Error> {
        let login = if !auth.username.is_empty() {
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

    /// What may be shown to an endpoint that serves `registry`.
    pub(super) fn login_for(&self, registry: &str, endpoint: &str) -> &Login {
        match &self.server {
            Some(server) if !same_server(server, registry) && !same_server(server, endpoint) => {
                &Login::Anonymous
            }
            _ => &self.login,
        }
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
    let docker =
        |host: &str| matches!(host, DOCKER_IO | "index.docker.io" | "registry-1.docker.io");
    a.eq_ignore_ascii_case(b) || (docker(a) && docker(b))
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
        let shown = |server, registry, endpoint| {
            *for_server(server).login_for(registry, endpoint) != Login::Anonymous
        };
        assert!(shown("", "a.io", "mirror.local"));
        assert!(shown("https://a.io/v1/", "a.io", "mirror.local"));
        assert!(shown("mirror.local:5000", "a.io", "mirror.local:5000"));
        assert!(shown("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"));
        assert!(!shown("https://b.io", "a.io", "a.io"));
        assert!(!shown("a.io.evil.org", "a.io", "a.io"));
    }

    #[test]
    fn secrets_do_not_reach_logs() {
        let auth = AuthFields { username: "u", password: "hunter2", ..Default::default() };
        let text = format!("{:?} {auth:?}", Credentials::from_auth(&auth).unwrap());
        assert!(!text.contains("hunter2"), "{text}");
    }
}
