//! What `start` prints: a protobuf message, JSON, or just an address.

use api::bootstrap::BootstrapResult;
use prost::Message;
use serde_json::{Value, json};

/// How a shim is reached. Worth keeping: the next daemon needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The version of the shim protocol.
    pub version: u32,
    /// Where the shim listens.
    pub address: String,
    /// What it speaks there.
    pub protocol: Protocol,
    /// Its pid, if it told (podwright-shim does).
    pub pid: Option<u32>,
}

/// What shims speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The usual one.
    Ttrpc,
    /// With version 3 and later.
    Grpc,
}

impl Bootstrap {
    /// Reads any of the three forms, among them [`Bootstrap::to_json`]'s.
    pub fn parse(printed: &[u8]) -> Option<Self> {
        if let Ok(result) = BootstrapResult::decode(printed)
            && !result.address.is_empty()
            && result.version > 0
        {
            let pid = result.metadata.get("pid").and_then(|pid| pid.parse().ok());
            return Self::new(i64::from(result.version), &result.address, &result.protocol, pid);
        }
        let text = std::str::from_utf8(printed).ok()?.trim();
        if let Ok(value) = serde_json::from_str::<Value>(text)
            && value.is_object()
        {
            let pid = value["metadata"]["pid"].as_str().and_then(|pid| pid.parse().ok());
            let version = value["version"].as_i64()?;
            let protocol = value["protocol"].as_str().unwrap_or_default();
            return Self::new(version, value["address"].as_str()?, protocol, pid);
        }
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        plain.then(|| Self::new(2, text, "ttrpc", None))?
    }

    fn new(version: i64, address: &str, protocol: &str, pid: Option<u32>) -> Option<Self> {
        let protocol = match protocol {
            "" | "ttrpc" => Protocol::Ttrpc,
            "grpc" => Protocol::Grpc,
            _ => return None,
        };
        let version = u32::try_from(version).ok().filter(|version| *version >= 2)?;
        (!address.is_empty()).then(|| Self { version, address: address.into(), protocol, pid })
    }

    /// As containerd stores it in `bootstrap.json`.
    pub fn to_json(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Ttrpc => "ttrpc",
            Protocol::Grpc => "grpc",
        };
        let metadata = self.pid.map_or(json!({}), |pid| json!({ "pid": pid.to_string() }));
        json!({
            "version": self.version,
            "address": self.address,
            "protocol": protocol,
            "metadata": metadata,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        let expected = Bootstrap {
            version: 3,
            address: "unix:///run/s".into(),
            protocol: Protocol::Ttrpc,
            pid: None,
        };
        let json = br#"{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}"#;
        assert_eq!(Bootstrap::parse(json).as_ref(), Some(&expected));
        let message = BootstrapResult {
            version: 3,
            address: "unix:///run/s".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        assert_eq!(Bootstrap::parse(&message.encode_to_vec()).as_ref(), Some(&expected));
        let plain = Bootstrap::parse(b"unix:///run/s\n").expect("an address");
        assert_eq!((plain.version, plain.address), (2, expected.address.clone()));
        let with_pid = Bootstrap { pid: Some(7), ..expected };
        assert_eq!(Bootstrap::parse(with_pid.to_json().as_bytes()), Some(with_pid));
    }

    #[test]
    fn nonsense_is_not() {
        for bad in
            [&b""[..], b"{}", b"{\"version\":1,\"address\":\"a\"}", b"two words", b"\xff\xfe"]
        {
            assert_eq!(Bootstrap::parse(bad), None, "{bad:?}");
        }
    }
}
