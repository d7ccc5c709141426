//! `WWW-Authenticate`: what a registry wants to see before it serves.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// Most headers of one answer that are looked at.
const MAX_HEADERS: usize = 16;
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
    for header in headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_HEADERS) {
        let Ok(text) = header.to_str() else { continue };
        if text.len() > MAX_HEADER {
            continue;
        }
        for (scheme, params) in challenges(text) {
            let param = |name: &str| {
                let found = params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = param("realm") {
                    let (service, scope) = (param("service"), param("scope"));
                    return Some(Challenge::Bearer { realm, service, scope });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                best = Some(Challenge::Basic);
            }
        }
    }
    best
}

/// Schemes with their parameters. Registries write what the grammar does not allow, such as URLs without
/// quotes, so all is taken that can be told apart; what cannot, up to the next comma, is passed over.
fn challenges(text: &str) -> Vec<(&str, Vec<(&str, String)>)> {
    let mut found: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return found;
        }
        let word_end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if let Some(value) = after.trim_start().strip_prefix('=').filter(|_| !word.is_empty()) {
            let Some((value, left)) = value_of(value.trim_start()) else { return found };
            if let Some((_, params)) = found.last_mut() {
                params.push((word, value));
            }
            rest = left;
        } else if word.is_empty() {
            rest = after.split_once(',').map_or("", |(_, left)| left);
        } else {
            found.push((word, Vec::new()));
            rest = after;
        }
    }
}

/// A value, quoted or not, and what follows it; `None`: its quotes are never closed.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
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
            (
                vec!["Bearer realm=https://x/t?a=b,service=s , scope=\"c\""],
                bearer("https://x/t?a=b", Some("s"), Some("c")),
            ),
            (vec!["Bearer realm = \"https://x/t\" , error=\"x"], bearer("https://x/t", None, None)),
            (vec!["Digest a=\"x, Basic\", Basic"], Some(Challenge::Basic)),
            (vec!["NTLM abc==, Basic realm=x"], Some(Challenge::Basic)),
            (vec!["=x, \"y\", Basic"], Some(Challenge::Basic)),
            (vec![], None),
        ] {
            assert_eq!(parsed(&headers), want, "{headers:?}");
        }
        assert_eq!(parsed(&[&format!("Basic realm=\"{}\"", "x".repeat(9000))]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_a_reason_to_panic(text in "[ -~]{0,200}", odd in "[a-c ,=\"\\\\]{0,40}") {
            for text in [text, odd] {
                parsed(&[&text]);
                parsed(&[&format!("Bearer realm={text}")]);
            }
        }

        #[test]
        fn what_is_quoted_comes_out_as_it_was(realm in "[ -~]{1,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Basic realm=\"x\", Bearer a=b, realm=\"{quoted}\"");
            proptest::prop_assert_eq!(parsed(&[&header]), bearer(&realm, None, None));
        }
    }
}
