use super::*;

fn urls(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|e| format!("{}://{}{}", e.scheme.as_str(), e.host, e.path)).collect()
}

fn parsed(text: &str) -> Vec<Endpoint> {
    parse(text, Path::new("/etc/certs.d/a.io"), "a.io").unwrap()
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
    assert!(endpoints[0].pull && !endpoints[0].resolve);
    assert_eq!(endpoints[0].tls.ca, [PathBuf::from("/etc/certs.d/a.io/ca.pem")]);
    assert!(endpoints[1].pull && endpoints[1].resolve);
    assert_eq!(endpoints[1].dial_timeout, Duration::from_millis(1500));
    assert!(endpoints[2].tls.skip_verify);
    assert_eq!(
        endpoints[2].tls.ca,
        [PathBuf::from("/abs/ca.pem"), PathBuf::from("/etc/certs.d/a.io/rel.pem")]
    );
    assert!(endpoints[3].pull && endpoints[3].resolve && !endpoints[3].tls.skip_verify);
}

#[test]
fn without_a_server_the_registry_itself_is_last() {
    assert_eq!(urls(&parsed("[host.\"m.local\"]")), ["https://m.local/v2", "https://a.io/v2"]);
    let own = parsed("skip_verify = true\ncapabilities = [\"pull\"]");
    assert!(own[0].tls.skip_verify && !own[0].resolve);
    let docker = parse("", Path::new("/x"), "docker.io").unwrap();
    assert_eq!(urls(&docker), ["https://registry-1.docker.io/v2"]);
}

#[test]
fn mistakes_are_named() {
    for (text, word) in [
        ("server = 1", "string"),
        ("[host.\"ftp://x\"]\ncapabilities = []\n", ""),
        ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", "fly"),
        ("[host.\"https://x\"]\nclient = \"c.pem\"", "client"),
        ("[host.\"https://x\".header]\nx = \"y\"", "header"),
        ("[host.\"https://x\"]\ndial_timeout = \"soon\"", "soon"),
        ("[host.\"http://\"]", "URL"),
        ("not toml", ""),
    ] {
        match parse(text, Path::new("/x"), "a.io") {
            Err(err) => assert!(err.contains(word), "{text}: {err}"),
            // As in containerd, what has no http scheme is taken for a host name.
            Ok(endpoints) => assert!(text.contains("ftp"), "{endpoints:?}"),
        }
    }
}

#[test]
fn local_registries_may_speak_plain_http() {
    let server = |registry| default_server(registry, &Host::default(), Path::new("")).unwrap();
    for registry in ["localhost:5000", "127.0.0.1:5000", "127.1.2.3:81", "[::1]:5000"] {
        let endpoint = server(registry);
        assert!(endpoint.http_fallback && endpoint.tls.skip_verify, "{registry}");
    }
    assert_eq!(server("localhost:80").scheme, Scheme::Http);
    assert!(!server("localhost").http_fallback && server("localhost").tls.skip_verify);
    for registry in ["10.0.0.1:5000", "localhost.evil.org:5000", "[fd00::1]:5000", "a.io"] {
        let endpoint = server(registry);
        assert!(!endpoint.http_fallback && !endpoint.tls.skip_verify, "{registry}");
    }
    let plain = parse("server = \"http://r.lan:5000\"", Path::new("/x"), "r.lan:5000").unwrap();
    assert_eq!((plain[0].scheme, plain[0].http_fallback), (Scheme::Http, false));
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
    assert!(err.contains("_default/hosts.toml"), "{err}");
}
