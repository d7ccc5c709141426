use super::*;

fn urls(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|e| format!("{}://{}{}", e.scheme.as_str(), e.host, e.path)).collect()
}

fn parse(text: &str, registry: &str) -> Result<Vec<Endpoint>, String> {
    file::parse(text, Path::new("/etc/certs.d/a.io/hosts.toml"), registry)
}

fn parsed(text: &str) -> Vec<Endpoint> {
    parse(text, "a.io").unwrap()
}

#[test]
fn hosts_keep_the_order_of_the_file_and_the_server_comes_last() {
    let endpoints = parsed(
        r#"
server = "https://a.io"

[host."https://z.local:8443"]
capabilities = ["pull"]
ca = "ca.pem"

[host."http://b.local/prefix"]
capabilities = ["pull", "Resolve"]
dial_timeout = "1.5s"

[host."https://c.local/v2/proxy/"]
override_path = true
skip_verify = true
ca = ["/abs/ca.pem", "rel.pem"]
"#,
    );
    assert_eq!(
        urls(&endpoints),
        [
            "https://z.local:8443/v2",
            "http://b.local/prefix/v2",
            "https://c.local/v2/proxy",
            "https://a.io/v2"
        ]
    );
    let given: Vec<_> = endpoints.iter().map(|endpoint| &endpoint.given).collect();
    assert!(given[0].pull && !given[0].resolve);
    assert_eq!(given[0].tls.ca, [PathBuf::from("/etc/certs.d/a.io/ca.pem")]);
    assert!(given[1].pull && given[1].resolve);
    assert_eq!(given[1].dial_timeout, Duration::from_millis(1500));
    assert_eq!(given[2].tls.skip_verify, Some(true));
    assert_eq!(
        given[2].tls.ca,
        [PathBuf::from("/abs/ca.pem"), PathBuf::from("/etc/certs.d/a.io/rel.pem")]
    );
    assert!(given[3].pull && given[3].resolve && given[3].tls.skip_verify.is_none());
    let from: Vec<_> = endpoints.iter().map(|endpoint| endpoint.from.as_str()).collect();
    assert_eq!(from[0], "/etc/certs.d/a.io/hosts.toml:4");
    assert_eq!(from[3], "/etc/certs.d/a.io/hosts.toml:2");
    assert!(endpoints[3].is_server && !endpoints[2].is_server);
}

#[test]
fn without_a_server_the_registry_itself_is_last() {
    assert_eq!(urls(&parsed("[host.\"m.local\"]")), ["https://m.local/v2", "https://a.io/v2"]);
    // As in containerd: what the unnamed server may be asked for is not for the file to say.
    let own = parsed("skip_verify = true\ncapabilities = [\"pull\"]");
    assert_eq!(own[0].given.tls.skip_verify, Some(true));
    assert!(own[0].given.resolve);
    assert_eq!(urls(&parse("", "docker.io").unwrap()), ["https://registry-1.docker.io/v2"]);
    let named = parsed("server = \"m.io\"\ncapabilities = [\"pull\"]\n");
    assert!(!named[0].given.resolve && named[0].is_server);
}

#[test]
fn client_certificates_and_headers_in_every_form() {
    let endpoints = parsed(
        r#"
server = "https://a.io"
client = "both.pem"
[host."https://m.io".header]
x-one = "1"
x-many = ["a", "b"]
[host."https://m.io"]
client = ["x.pem", ["/c.pem", "k.pem"]]
[host."https://n.io"]
client = [["c.pem", "k.pem"], ["d.pem", "l.pem"]]
"#,
    );
    let base = Path::new("/etc/certs.d/a.io");
    let both = |name: &str| ClientFiles { certificate: base.join(name), key: None };
    let pair =
        |c: &str, k: &str| ClientFiles { certificate: base.join(c), key: Some(base.join(k)) };
    assert_eq!(endpoints[0].given.tls.client, [both("x.pem"), pair("/c.pem", "k.pem")]);
    assert_eq!(endpoints[1].given.tls.client, [pair("c.pem", "k.pem"), pair("d.pem", "l.pem")]);
    assert_eq!(endpoints[2].given.tls.client, [both("both.pem")]);
    let headers = &endpoints[0].given.headers.0;
    let mut values: Vec<_> = headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["1", "a", "b"]);
    assert_eq!(format!("{:?}", endpoints[1].given.headers), "[]");
    assert!(!format!("{endpoints:?}").contains("\"b\""), "values of headers may be secret");
}

#[test]
fn every_mistake_is_named_with_its_line_and_key() {
    for (text, words) in [
        ("server = 1", vec![":1: server: needs a URL"]),
        ("[host.\"ftp://x\"]\ncapabilities = []\n", vec![":1: ftp://x: \"ftp://x\" is not"]),
        ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", vec![":2: capabilities:", "fly"]),
        ("[host.\"https://x\"]\nclient = 7", vec![":2: client: needs a path"]),
        ("[host.\"https://x\"]\nclient = [[\"a\"]]", vec![":2: client: needs a certificate and a"]),
        ("[host.\"https://x\".header]\n\"x y\" = \"y\"", vec![":2: x y: is not a header"]),
        ("[host.\"https://x\"]\ndial_timeout = \"soon\"", vec![":2: dial_timeout: \"soon\""]),
        ("[host.\"https://x\"]\nskip_verify = \"yes\"", vec![":2: skip_verify: needs true or"]),
        ("[host.\"http://\"]", vec![":1: http://: ", "URL"]),
        ("not toml", vec!["hosts.toml:1: "]),
        ("ca = 1\n\nserver = 2\n", vec![":1: ca: ", ":3: server: "]),
    ] {
        match parse(text, "a.io") {
            Err(err) => {
                let named = words.iter().all(|word| err.contains(word));
                assert!(named && err.starts_with("/etc/certs.d/a.io/hosts.toml:"), "{text}: {err}");
            }
            Ok(endpoints) => panic!("{text}: {endpoints:?}"),
        }
    }
    // containerd does not know these either and goes on.
    assert_eq!(parsed("version = 2\n[plugins]\n").len(), 1);
    assert_eq!(parsed("dial_timeout = \"0s\"")[0].given.dial_timeout, DIAL_TIMEOUT);
}

#[test]
fn local_registries_may_speak_plain_http() {
    let own = |registry: &str| server(registry, Given::default(), String::new());
    for registry in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.3.2.1:8080"] {
        let endpoint = own(registry);
        assert!(endpoint.http_fallback && endpoint.given.tls.skip_verify == Some(true));
    }
    assert_eq!(own("localhost:80").scheme, Scheme::Http);
    let bare = own("localhost");
    assert!(!bare.http_fallback && bare.given.tls.skip_verify == Some(true));
    for registry in ["10.0.0.1:5000", "localhost.evil.org:5000", "[fd00::1]:5000", "a.io"] {
        let endpoint = own(registry);
        assert!(!endpoint.http_fallback && endpoint.given.tls.skip_verify.is_none(), "{registry}");
    }
    let scheme = |text: &str| {
        let endpoint = &parsed(text)[0];
        (endpoint.scheme, endpoint.http_fallback)
    };
    assert_eq!(scheme("server = \"http://r.lan:5000\""), (Scheme::Http, false));
    let both = "server = \"http://r.lan:5000\"\nskip_verify = false";
    assert_eq!(scheme(both), (Scheme::Https, true));
    assert_eq!(scheme("server = \"http://r.lan\"\nca = \"x\""), (Scheme::Https, true));
    assert_eq!(scheme("server = \"http://r.lan:80\"\nca = \"x\""), (Scheme::Http, false));
}

#[test]
fn directories_are_found_as_containerd_finds_them() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, server: &str| {
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), format!("server = \"http://{server}\"")).unwrap();
    };
    let first = |registry| endpoints(root.path(), registry).unwrap()[0].host.clone();
    assert_eq!(first("r.io:5000"), "r.io:5000");
    write("_default", "d");
    assert_eq!(first("r.io:5000"), "d");
    write("r.io:5000", "colon");
    assert_eq!(first("r.io:5000"), "colon");
    write("r.io_5000_", "underscore");
    assert_eq!(first("r.io:5000"), "underscore");
    std::fs::write(root.path().join("_default/hosts.toml"), "server = ").unwrap();
    let err = endpoints(root.path(), "x.io").unwrap_err().to_string();
    assert!(err.contains("_default/hosts.toml:1"), "{err}");
    assert_eq!(first("r.io:5000"), "underscore", "one registry's mistake is not another's");
}

#[test]
fn certificates_beside_each_other_as_docker_has_them() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("r.io:5000");
    std::fs::create_dir(&dir).unwrap();
    for name in ["ca.crt", "b.cert", "b.key", "a.cert", "other.key", "README"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    // Without a word in it a hosts.toml does not count.
    std::fs::write(dir.join("hosts.toml"), "").unwrap();
    let found = endpoints(root.path(), "r.io:5000").unwrap();
    assert_eq!(urls(&found), ["https://r.io:5000/v2"]);
    let tls = &found[0].given.tls;
    assert_eq!(tls.ca, [dir.join("ca.crt")]);
    let pair = |name: &str, key: Option<&str>| ClientFiles {
        certificate: dir.join(name),
        key: key.map(|key| dir.join(key)),
    };
    assert_eq!(tls.client, [pair("a.cert", None), pair("b.cert", Some("b.key"))]);
    std::fs::write(dir.join("hosts.toml"), "# nothing\n").unwrap();
    assert!(endpoints(root.path(), "r.io:5000").unwrap()[0].given.tls.ca.is_empty());
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_reason_to_panic(text in "\\PC{0,200}", url in "\\PC{0,40}") {
        let _ = parse(&text, "a.io");
        let _ = endpoint(&url, Given::default(), String::new());
        let _ = duration::parse(&text);
    }
}
