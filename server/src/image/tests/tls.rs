//! Registries behind TLS: whom we trust, and what we show.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, as PEM.
fn signed(by: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// A server for 127.0.0.1 that wants to see a certificate of the `clients` authority, if one is given.
fn server(
    by: &CertifiedIssuer<'static, KeyPair>,
    clients: Option<&CertifiedIssuer<'static, KeyPair>>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let (certificate, key) = signed(by, "127.0.0.1");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_the_configuration_are_trusted() {
    let node = Node::new();
    let (right, other) = (authority("right"), authority("other"));
    let fake = Fake::speaking(&node.tasks, Some(server(&right, None))).await;
    fake.image("v1", &[layer("a", b"x")], "{}");
    let url = format!("server = \"https://{}\"\n", fake.address);
    let registry = fake.address.to_string();
    let dir = node.root.path().join("certs.d").join(&registry);
    node.hosts(&registry, &format!("{url}ca = \"ca.pem\""));
    let err = node.fails(&fake.name("demo:v1")).await;
    assert!(err.contains("hosts.toml:1") && err.contains("ca.pem"), "{err}");
    std::fs::write(dir.join("ca.pem"), other.pem()).unwrap();
    let err = node.fails(&fake.name("demo:v1")).await;
    assert!(
        err.starts_with("RegistryUnavailable: https://") && err.contains("certificate"),
        "{err}"
    );
    wait(|| fake.refused() == 1).await;
    assert_eq!(fake.refused(), 1, "a wrong certificate is not tried again");
    // A changed file counts at the next pull.
    std::fs::write(dir.join("ca.pem"), other.pem() + &right.pem()).unwrap();
    node.pull(&fake.name("demo:v1")).await.unwrap();
    node.hosts(&registry, &format!("{url}skip_verify = true"));
    node.pull(&fake.name("demo:v1")).await.unwrap();
    // In the clear only where nobody speaks TLS: a certificate that cannot be believed is no reason.
    node.hosts(&registry, &format!("server = \"http://{registry}\"\nskip_verify = false"));
    let err = node.fails(&fake.name("demo:v1")).await;
    assert!(err.starts_with("RegistryUnavailable: https://"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_shown_to_who_asks() {
    let node = Node::new();
    let (ours, clients, others) = (authority("ours"), authority("clients"), authority("others"));
    let fake = Fake::speaking(&node.tasks, Some(server(&ours, Some(&clients)))).await;
    fake.image("v1", &[layer("a", b"x")], "{}");
    let registry = fake.address.to_string();
    let dir = node.root.path().join("certs.d").join(&registry);
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let (certificate, key) = signed(&clients, "node");
    let (wrong, wrong_key) = signed(&others, "node");
    write("ca.crt", &ours.pem());
    // Docker's layout, at first with nothing to show.
    node.fails(&fake.name("demo:v1")).await;
    write("client.cert", &certificate);
    write("client.key", &key);
    node.pull(&fake.name("demo:v1")).await.unwrap();
    let head = format!("server = \"https://{registry}\"\nca = \"ca.crt\"\n");
    write("both.pem", &(certificate.clone() + &key));
    write("wrong.pem", &(wrong + &wrong_key));
    for client in [
        r#"client = "both.pem""#,
        r#"client = ["both.pem"]"#,
        r#"client = [["client.cert", "client.key"]]"#,
        // The one that the server's authority signed is chosen.
        r#"client = ["wrong.pem", ["client.cert", "client.key"]]"#,
    ] {
        node.hosts(&registry, &format!("{head}{client}"));
        node.pull(&fake.name("demo:v1")).await.unwrap_or_else(|err| panic!("{client}: {err}"));
    }
    for (client, told) in [
        (r#"client = "wrong.pem""#, "RegistryUnavailable: https://"),
        (r#"client = [["client.cert", "wrong.pem"]]"#, "another certificate's"),
        (r#"client = "ca.crt""#, "client key"),
        (r#"client = "missing.pem""#, "missing.pem"),
    ] {
        node.hosts(&registry, &format!("{head}{client}"));
        let err = node.fails(&fake.name("demo:v1")).await;
        assert!(err.contains(told) && !err.contains("PRIVATE"), "{client}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_shown_to_a_token_service_in_the_clear() {
    let node = Node::new();
    let ours = authority("ours");
    let fake = Fake::speaking(&node.tasks, Some(server(&ours, None))).await;
    let listener = Fake::start(&node.tasks).await;
    let registry = fake.address.to_string();
    node.hosts(&registry, &format!("server = \"https://{registry}\"\nskip_verify = true"));
    let challenge = format!("Bearer realm=\"http://{}/token\"", listener.address);
    fake.always("/manifests/v1", Script::Answer(401, vec![("WWW-Authenticate", challenge)]));
    let err = node.pull_as(&fake.name("demo:v1"), password("p")).await.unwrap_err().to_string();
    assert!(err.contains("in the clear"), "{err}");
    let there = format!("http://{}/v2/demo/manifests/v2", listener.address);
    fake.always("/manifests/v2", Script::Redirect(there));
    let err = node.fails(&fake.name("demo:v2")).await;
    assert!(err.contains("redirects from https to http"), "{err}");
    assert!(listener.seen().is_empty());
}
