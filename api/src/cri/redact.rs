//! `Debug` of the messages that carry secrets: what is there is told, not what it says.

use std::fmt;

use super::v1::{AuthConfig, KeyValue};

/// Prints in place of a secret; an empty one shows as such.
struct Redacted(usize);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 == 0 { "\"\"" } else { "<redacted>" })
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { username, password, auth, server_address, identity_token, registry_token } =
            self;
        f.debug_struct("AuthConfig")
            .field("username", username)
            .field("password", &Redacted(password.len()))
            .field("auth", &Redacted(auth.len()))
            .field("server_address", server_address)
            .field("identity_token", &Redacted(identity_token.len()))
            .field("registry_token", &Redacted(registry_token.len()))
            .finish()
    }
}

/// Environment variables often come out of Secrets.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value } = self;
        f.debug_struct("KeyValue").field("key", key).field("value", &Redacted(value.len())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::v1::PullImageRequest;

    #[test]
    fn no_secret_is_printed() {
        let auth = AuthConfig {
            username: "me".into(),
            password: "hunter2".into(),
            auth: "hunter2".into(),
            server_address: "https://registry.example".into(),
            identity_token: "hunter2".into(),
            registry_token: String::new(),
        };
        let request = PullImageRequest { auth: Some(auth), ..Default::default() };
        let env = KeyValue { key: "PASSWORD".into(), value: "hunter2".into() };
        let printed = format!("{request:?} {request:#?} {env:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains("username: \"me\"") && printed.contains("<redacted>"));
        assert!(printed.contains("registry_token: \"\""));
    }
}
