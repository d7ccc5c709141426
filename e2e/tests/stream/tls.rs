//! Streams over TLS, through the command: certificates of its own making and from files, and clients that need one.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use e2e::image::catalogue::BUSYBOX;
use e2e::pod::container;
use e2e::stream::OUTPUT;
use e2e::{Options, World, place};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Signs certificates, and has its own in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = dir.join(format!("{name}-authority.crt"));
        std::fs::write(&file, issuer.as_ref().pem()).unwrap();
        Self { issuer, file }
    }

    /// Writes a certificate for this node, and its key.
    fn sign(&self, dir: &Path, name: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix| dir.join(format!("{name}.{suffix}")).display().to_string();
        std::fs::write(file("crt"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        [file("crt"), file("key")]
    }
}

fn world(streaming: &str) -> World {
    let config = format!("[streaming]\n{streaming}\n");
    let world = World::start(Options { config, ..Default::default() });
    world.pull(BUSYBOX);
    world
}

fn podwright(world: &World, arguments: &[&str]) -> Child {
    world
        .command(place::binary("podwright"))
        .arg("--socket")
        .arg(world.path("state/podwright.sock"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(world: &World, arguments: &[&str]) -> Output {
    podwright(world, arguments).wait_with_output().unwrap()
}

/// An exec that goes through the streams, with these of the command's own options.
fn try_echo(world: &World, options: &[&str], id: &str) -> Output {
    run(world, &[options, &["exec", "-i", id, "echo", "through"]].concat())
}

#[track_caller]
fn works(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"through\n"[..]), "{told}");
}

#[track_caller]
fn fails(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{told}");
}

#[test]
fn a_certificate_of_its_own_at_the_address_of_the_configuration() {
    let world = world("tls = true\naddress = \"127.0.0.2\"\nport = 17443");
    let pod = world.pod("own");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let url = world.exec_url(&id, &["true"], OUTPUT).unwrap();
    assert!(url.starts_with("https://127.0.0.2:17443/exec/"), "{url}");
    works(&try_echo(&world, &[], &id));
    // Nobody has signed it.
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::new(dir.path(), "other");
    let refused = try_echo(&world, &["--tls-ca", other.file.to_str().unwrap()], &id);
    fails(&refused);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("TLS handshake"), "{told}");
    // Whoever does not speak TLS gets no answer that looks like one.
    let mut socket = world.connect("127.0.0.2:17443".parse().unwrap()).unwrap();
    let path = &url["https://127.0.0.2:17443".len()..];
    let _ = write!(socket, "POST {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut socket, &mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    pod.end();
    world.finish();
}

#[test]
fn files_are_read_again_and_open_sessions_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| Authority::new(dir.path(), name));
    let [certificate, key] = first.sign(dir.path(), "server");
    let world = world(&format!("tls_certificate = {certificate:?}\ntls_key = {key:?}"));
    let pod = world.pod("files");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let of = |authority: &Authority| authority.file.display().to_string();
    let trusting_first = [&*of(&first)];
    let trusting = |ca: &str| try_echo(&world, &["--tls-ca", ca], &id);
    works(&trusting(trusting_first[0]));
    fails(&trusting(&of(&second)));

    let mut open = podwright(&world, &["--tls-ca", trusting_first[0], "exec", "-i", &id, "cat"]);
    let mut typing = open.stdin.take().unwrap();
    let mut lines = BufReader::new(open.stdout.take().unwrap()).lines();
    writeln!(typing, "before").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    second.sign(dir.path(), "server");
    works(&trusting(&of(&second)));
    fails(&trusting(trusting_first[0]));
    // What cannot be used leaves what was in force.
    std::fs::write(&certificate, "no certificate").unwrap();
    works(&trusting(&of(&second)));
    writeln!(typing, "after").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "after");
    drop(typing);
    assert!(open.wait().unwrap().success());
    let log = world.read(world.path("daemon.log"));
    assert!(log.contains("the certificate on disk is not used"), "{log}");
    pod.end();
    world.finish();
}

#[test]
fn clients_need_a_certificate_where_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, other] = ["ours", "other"].map(|name| Authority::new(dir.path(), name));
    let [certificate, key] = ours.sign(dir.path(), "server");
    let ca = ours.file.display();
    let world = world(&format!(
        "tls_certificate = {certificate:?}\ntls_key = {key:?}\ntls_client_ca = \"{ca}\""
    ));
    let pod = world.pod("clients");
    let id = pod.run(container("c", BUSYBOX, &[]));
    let with = |files: &[String; 2]| {
        try_echo(&world, &["--tls-cert", &files[0], "--tls-key", &files[1]], &id)
    };
    works(&with(&ours.sign(dir.path(), "client")));
    fails(&with(&other.sign(dir.path(), "stranger")));
    fails(&try_echo(&world, &[], &id));
    pod.end();
    world.finish();
}

#[test]
fn a_port_that_is_taken_is_told() {
    let config = "[streaming]\nport = 5000\n".into();
    let mut world = World::without_daemon(Options { config, ..Default::default() });
    world.start_registry();
    assert!(!world.try_start_daemon(), "it listens where the registry does");
    let log = world.read(world.path("daemon.log"));
    assert!(log.contains("streaming server at 127.0.0.1:5000"), "{log}");
}
