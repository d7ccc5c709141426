//! `WWW-Authenticate`: what a registry wants to see before it serves.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Longest header that is parsed.
const MAX_HEADER: usize = 8 << 10;

/// A way to log in that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Buy a token at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
    Basic,
}

/// The best challenge of an answer: bearer before basic, as Docker does.
pub(super) fn parse(headers: &HeaderMap) -> Option<Challenge> {
    let mut best = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = header.to_str() else { continue };
        if text.len() > MAX_HEADER {
            continue;
        }
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            let param = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = param("realm") {
                    let (service, scope) = (param("service"), param("scope"));
                    return Some(Challenge::Bearer { realm, service, scope });
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                best = Some(Challenge::Basic);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(headers: &[&str]) -> Option<Challenge> {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(WWW_AUTHENTICATE, header.parse().unwrap());
        }
        parse(&map)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
    }

    #[test]
    fn challenges_of_real_registries() {
        for (headers, want) in [
            (
                vec![
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                ],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/busybox:pull"),
                ),
            ),
            (vec![r#"bearer Realm="https://x/t""#], bearer("https://x/t", None, None)),
            (
                vec![r#"Basic realm="x", Bearer realm="https://x/t",service="s""#],
                bearer("https://x/t", Some("s"), None),
            ),
            (vec![r#"Basic realm="a \"quoted\" one""#], Some(Challenge::Basic)),
            (vec!["Negotiate", r#"Basic realm="x""#], Some(Challenge::Basic)),
            (
                vec![r#"Bearer realm="https://x/t",scope="a:b:pull,push c:d:pull""#],
                bearer("https://x/t", None, Some("a:b:pull,push c:d:pull")),
            ),
            (vec![r#"Bearer service="no realm""#], None),
            (vec![r#"Bearer realm="""#], None),
            (vec!["Digest realm=x"], None),
            (vec!["", ",,,", "Bearer realm=\"open"], None),
            (vec![], None),
        ] {
            assert_eq!(parsed(&headers), want, "{headers:?}");
        }
        assert_eq!(parsed(&[&format!("Basic realm=\"{}\"", "x".repeat(9000))]), None);
    }
}
