//! What stream clients send, as targets of `crate::fuzz`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::negotiate::{Agreed, agree};

/// The headers of a request to upgrade: a line each, `name: value`.
pub(crate) fn negotiation(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for for_ports in [false, true] {
        let mut answer = HeaderMap::new();
        match agree(&headers, for_ports) {
            Ok(agreed) => {
                agreed.tell(&mut answer);
                assert!(answer.contains_key("upgrade") && answer.contains_key("connection"));
                let spdy = matches!(agreed, Agreed::Spdy(_));
                assert_eq!(answer.contains_key("x-stream-protocol-version"), spdy);
            }
            Err(refused) => {
                refused.tell(&mut answer);
                assert!(refused.status.is_client_error());
            }
        }
    }
}
