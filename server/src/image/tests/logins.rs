//! Who is shown which credentials, and what configured secrets do not reach.

use super::*;
use crate::image::registry::{Registries, Settings as RegistrySettings};

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

impl Node {
    fn docker(&self, text: &str) {
        std::fs::write(self.root.path().join("docker.json"), text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_is_bought_anew_in_mid_blob() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let blob = layer("a", &noise(6_000));
    let digest = Digest::sha256(&blob.0);
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    fake.auth(Auth::Bearer { password: "right" });
    fake.script(digest.as_str(), Script::Expire(50_000));
    node.pull_as(&fake.name("demo:v1"), password("right")).await.unwrap();
    assert_eq!(fake.count("/token"), 2, "one token serves all of a pull");
    assert!(fake.ranges().iter().all(|range| range == "bytes=50000-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_lets_in_is_asked_twice() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let realm = format!("Bearer realm=\"http://{}/token\"", fake.address);
    let challenge = || Script::Answer(401, vec![("WWW-Authenticate", realm.clone())]);
    fake.always("/manifests/v1", challenge());
    fake.always("/token", Script::Instead(br#"{"access_token":"t"}"#.to_vec()));
    let err = node.pull_as(&fake.name("demo:v1"), password("p")).await.unwrap_err().to_string();
    assert!(err.contains("answers 401"), "{err}");
    assert_eq!((fake.count("/manifests/"), fake.count("/token")), (2, 1));
    // A token service that is away is tried again, and its answers are bounded.
    fake.script("/token", Script::Status(503));
    fake.script("/token", Script::Instead(vec![b' '; 2 << 20]));
    let err = node.pull_as(&fake.name("demo:v1"), password("p")).await.unwrap_err().to_string();
    assert!(err.contains("sends more than 1048576 bytes"), "{err}");
    for (realm, told) in [("ftp://x/t", "is no token service"), ("nonsense", "is no token service")]
    {
        let challenge = format!("Bearer realm=\"{realm}\"");
        fake.always("/manifests/v2", Script::Answer(401, vec![("WWW-Authenticate", challenge)]));
        let pulled = node.pull_as(&fake.name("demo:v2"), password("p")).await;
        let err = pulled.unwrap_err().to_string();
        assert!(err.contains(told) && err.contains(realm), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_config_serves_where_the_kubelet_gives_nothing() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    fake.image("v1", &[layer("a", b"x")], "{}");
    fake.auth(Auth::Basic { password: "right" });
    let name = fake.name("team/demo:v1");
    node.fails(&name).await;
    let config = |path: &str, password: &str| {
        let auth = basic("user", password);
        format!(r#"{{"auths": {{"{}{path}": {{"auth": "{auth}"}}}}}}"#, fake.address)
    };
    node.docker(&config("/other", "right"));
    node.fails(&name).await;
    node.docker(&config("/team", "right"));
    let err = node.pull_as(&name, password("wrong")).await.unwrap_err().to_string();
    assert!(err.contains("401"), "the kubelet's count: {err}");
    node.pull(&name).await.unwrap();
    node.docker("{");
    let err = node.fails(&name).await;
    assert!(err.contains("docker.json: line 1"), "{err}");
    // A helper that is not there does not hide what anybody may have, and is told to who is refused.
    node.docker(r#"{"credsStore": "not-there-at-all"}"#);
    let err = node.fails(&name).await;
    assert!(err.contains("401") && err.contains("docker-credential-not-there-at-all: "), "{err}");
    let open = Fake::start(&node.tasks).await;
    open.image("v1", &[layer("a", b"x")], "{}");
    node.pull(&open.name("demo:v1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_mirrors() {
    let node = Node::new();
    let (mirror, server) = (Fake::start(&node.tasks).await, Fake::start(&node.tasks).await);
    for fake in [&mirror, &server] {
        fake.image("v1", &[layer("a", b"x")], "{}");
        fake.auth(Auth::Basic { password: "right" });
    }
    let hosts =
        format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.address, mirror.address);
    node.hosts("example.invalid", &hosts);
    let told = |fake: &Fake| fake.seen().iter().any(|seen| seen.authorization.is_some());
    let name = "example.invalid/demo:v1";
    // What the node's operator gave for the registry is its server's alone.
    let auth = basic("user", "right");
    node.docker(&format!(r#"{{"auths": {{"example.invalid": {{"auth": "{auth}"}}}}}}"#));
    node.pull(name).await.unwrap();
    assert!(!told(&mirror) && told(&server));
    // So is what the kubelet gives for the registry by name …
    let fields = AuthFields {
        username: "user",
        password: "right",
        server_address: "https://example.invalid",
        ..AuthFields::default()
    };
    node.pull_as(name, Credentials::from_auth(&fields).unwrap()).await.unwrap();
    assert!(!told(&mirror));
    // … but what it gives for any server goes to all that are configured, as in containerd.
    node.pull_as(name, password("right")).await.unwrap();
    assert!(told(&mirror));
}

#[tokio::test(flavor = "multi_thread")]
async fn configured_headers_reach_their_host_only() {
    let node = Node::new();
    let fake = Fake::start(&node.tasks).await;
    let elsewhere = Fake::start(&node.tasks).await;
    let blob = layer("a", b"x");
    fake.image("v1", std::slice::from_ref(&blob), "{}");
    let digest = elsewhere.blob(&blob.0);
    let target = format!("http://{}/v2/any/blobs/{digest}", elsewhere.address);
    fake.script(digest.as_str(), Script::Redirect(target));
    node.hosts(
        &fake.address.to_string(),
        &format!("server = \"http://{}\"\n[header]\nx-key = [\"s3cret\"]\n", fake.address),
    );
    node.pull(&fake.name("demo:v1")).await.unwrap();
    assert!(fake.seen().iter().all(|seen| seen.header("x-key") == Some("s3cret")));
    assert_eq!(elsewhere.seen().len(), 1);
    assert_eq!(elsewhere.seen()[0].header("x-key"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_unless_it_is_excepted() {
    let tasks = Tasks::default();
    let proxy = Fake::start(&tasks).await;
    proxy.image("v1", &[], "{}");
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("registry.invalid");
    std::fs::create_dir(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), "server = \"http://registry.invalid\"").unwrap();
    let settings = RegistrySettings {
        hosts_dir: dir.path().to_owned(),
        docker_config: None,
        limits: limits(),
    };
    let address = format!("http://me:pass@{}", proxy.address);
    let asked = async |env: &[(&str, &str)]| {
        let registries = Registries::with_env(env, settings.clone());
        let reference = Reference::parse("registry.invalid/demo:v1").unwrap();
        let session = registries.session(&reference, Credentials::default())?;
        session.manifest(reference.target()).await
    };
    asked(&[("http_proxy", address.as_str())]).await.unwrap();
    let seen = proxy.seen();
    assert_eq!(seen[0].path, "http://registry.invalid/v2/demo/manifests/v1");
    let login = format!("Basic {}", basic("me", "pass"));
    assert_eq!(seen[0].header("proxy-authorization"), Some(login.as_str()));
    let env = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", "other,.invalid")];
    let err = asked(&env).await.unwrap_err().to_string();
    assert!(err.starts_with("RegistryUnavailable: http://registry.invalid: "), "{err}");
    assert_eq!(proxy.seen().len(), 1);
    let err = asked(&[("HTTP_PROXY", "nonsense://x")]).await.unwrap_err().to_string();
    assert!(err.contains("HTTP_PROXY"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_tells_everything_but_secrets() {
    let node = Node::new();
    let (mirror, server) = (Fake::start(&node.tasks).await, Fake::start(&node.tasks).await);
    let (_, manifest) = server.image("v1", &[], "{}");
    server.auth(Auth::Basic { password: "s3cret" });
    let (mirror_url, server_url) = (mirror.address, server.address);
    let hosts = format!(
        "server = \"http://{server_url}\"\n[host.\"http://{mirror_url}\"]\ncapabilities = [\"pull\"]\n\
         header = {{ x-key = \"s3cret\" }}\n"
    );
    node.hosts("example.invalid", &hosts);
    let auth = basic("user", "s3cret");
    node.docker(&format!(r#"{{"auths": {{"example.invalid/team": {{"auth": "{auth}"}}}}}}"#));
    let (reference, told) = node.images.explain("example.invalid/team/demo:v1").await.unwrap();
    assert_eq!(reference, "example.invalid/team/demo:v1");
    let shown = format!("{told:?}");
    assert!(!shown.contains("s3cret") && !shown.contains(&auth), "{shown}");
    assert_eq!(told[0].url, format!("http://{mirror_url}/v2"));
    assert!(told[0].from.ends_with("example.invalid/hosts.toml:2"), "{}", told[0].from);
    assert!(!told[0].is_server && !told[0].resolve && told[0].pull);
    assert_eq!(
        (told[0].credentials.as_str(), told[0].headers.as_slice()),
        ("none", &["x-key".to_owned()][..])
    );
    assert!(told[0].outcome.as_ref().unwrap_err().ends_with(": not found"));
    assert!(told[1].credentials.ends_with("docker.json: auths \"example.invalid/team\""));
    // The digest comes in a header that the scripted registry does not send.
    assert_eq!(told[1].outcome, Ok(None), "{manifest}");
    assert_eq!(told[1].proxy, None);
    node.hosts("example.invalid", "server = 7");
    let err = node.images.explain("example.invalid/team/demo:v1").await.unwrap_err().to_string();
    assert!(err.contains("hosts.toml:1: server"), "{err}");
}
