//! Which protocol a request and we agree on.

use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::websocket::{self, Disagreed};
use super::{forward, remote};

const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What the connection becomes.
#[derive(Debug)]
pub(super) enum Agreed {
    Spdy(&'static str),
    WebSocket(websocket::Agreed),
}

/// Why it does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: StatusCode,
    pub text: &'static str,
    /// What would have been accepted, where that is told.
    pub accepted: Vec<&'static str>,
}

/// Takes the first of the client's protocols that we speak.
pub(super) fn agree(headers: &HeaderMap, for_ports: bool) -> Result<Agreed, Refused> {
    let bad = |text| Refused { status: StatusCode::BAD_REQUEST, text, accepted: Vec::new() };
    let unknown = |accepted| Refused {
        status: StatusCode::FORBIDDEN,
        text: "none of the protocols is spoken here",
        accepted,
    };
    let upgrades = |to| names(headers, &CONNECTION, "upgrade") && names(headers, &UPGRADE, to);
    if upgrades(WEBSOCKET) {
        let offered = list(headers, &SEC_WEBSOCKET_PROTOCOL);
        let agreed = websocket::agree(headers, &offered, for_ports);
        return agreed.map(Agreed::WebSocket).map_err(|reason| match reason {
            Disagreed::Malformed => bad("unable to upgrade: no handshake of WebSocket 13"),
            Disagreed::Protocol => unknown(Vec::new()),
        });
    }
    if !upgrades(SPDY) {
        return Err(bad("unable to upgrade: missing upgrade headers in request"));
    }
    let known = if for_ports { vec![forward::PROTOCOL] } else { remote::protocols() };
    let offered = list(headers, &PROTOCOL);
    if offered.is_empty() {
        return Err(bad("unable to upgrade: X-Stream-Protocol-Version is required"));
    }
    let agreed = offered.iter().find_map(|one| known.iter().find(|known| *known == one));
    agreed.map(|name| Agreed::Spdy(name)).ok_or_else(|| unknown(known))
}

impl Agreed {
    /// The protocol's name, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Spdy(name) => name,
            Self::WebSocket(agreed) => agreed.name,
        }
    }

    /// The headers of the answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Spdy(name) => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(PROTOCOL, HeaderValue::from_static(name));
            }
            Self::WebSocket(agreed) => {
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                agreed.tell(headers);
            }
        }
    }
}

impl Refused {
    /// The headers of the answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        for name in &self.accepted {
            headers.append(ACCEPTED, HeaderValue::from_static(name));
        }
    }
}

/// All values of a header that is a list.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}

fn names(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    list(headers, name).iter().any(|one| one.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_client_s_order_counts_over_several_headers_and_in_one() {
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "spdy/3.1")];
        let protocols = ["v9.channel.k8s.io, v2.channel.k8s.io", "v4.channel.k8s.io"];
        let mut asked = headers(&upgrade);
        assert_eq!(agree(&asked, false).unwrap_err().status, StatusCode::BAD_REQUEST);
        for value in protocols {
            asked.append(PROTOCOL, HeaderValue::from_static(value));
        }
        assert_eq!(agree(&asked, false).unwrap().name(), "v2.channel.k8s.io");
        let refused = agree(&asked, true).unwrap_err();
        assert_eq!(
            (refused.status, refused.accepted),
            (StatusCode::FORBIDDEN, vec![forward::PROTOCOL])
        );
        assert_eq!(
            agree(&headers(&upgrade[1..]), false).unwrap_err().status,
            StatusCode::BAD_REQUEST
        );
    }
}
