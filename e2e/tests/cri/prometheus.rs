//! What the daemon tells Prometheus of itself, and whether the dashboard and the alerts in `deploy/` know it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{Pod, container, shell};
use e2e::{Options, World, eventually, place};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::NO_SUCH_ID;

const METRICS: u16 = 1338;
const PROMETHEUS: u16 = 9090;
/// How long Prometheus scrapes; `PODWRIGHT_SCRAPE_SECONDS` is another.
const SCRAPE: Duration = Duration::from_secs(6);

fn world(address: &str) -> World {
    World::start(Options { config: at(address), ..Default::default() })
}

fn at(address: &str) -> String {
    format!("[metrics]\naddress = \"{address}\"\n")
}

/// The configuration of a daemon that [`logged`] can ask.
pub(super) fn config() -> String {
    at(&format!("127.0.0.1:{METRICS}"))
}

/// Without keep-alive and chunks: HTTP/1.0.
fn get(mut to: impl Read + Write, path: &str) -> (u16, String) {
    write!(to, "GET {path} HTTP/1.0\r\nHost: podwright\r\n\r\n").unwrap();
    let mut answer = String::new();
    to.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn get_tcp(world: &World, port: u16, path: &str) -> (u16, String) {
    get(world.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap(), path)
}

fn scrape(world: &World) -> String {
    let (status, text) = get_tcp(world, METRICS, "/metrics");
    assert_eq!(status, 200);
    text
}

/// The value of a series, which is named as it stands in the text.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

/// The whole of a pod's life, a pull and a call that fails.
fn some_work(world: &World) {
    world.pull(BUSYBOX);
    let pod = world.pod("measured");
    let id = pod.run(container("main", BUSYBOX, &shell("echo told; sleep 10000")));
    world.exec(&id, "true");
    let request = ContainerStatusRequest { container_id: NO_SUCH_ID.into(), verbose: false };
    world.client.container_status(request).unwrap_err();
    let text = scrape(world);
    assert_eq!(value(&text, "podwright_sandboxes{state=\"ready\"}"), 1.0);
    assert_eq!(value(&text, "podwright_containers{state=\"running\"}"), 1.0);
    assert_eq!(value(&text, "podwright_shims"), 1.0);
    // The container runs, and what it has said is counted.
    counted(world);
    pod.end();
}

const LOGGED: &str = "podwright_container_log_bytes_total";

/// How many bytes of logs the daemon has counted.
pub(super) fn logged(world: &World) -> f64 {
    value(&scrape(world), LOGGED)
}

/// As many, once a line is among them.
pub(super) fn counted(world: &World) -> f64 {
    eventually("a line to be counted", || Some(logged(world)).filter(|bytes| *bytes > 30.0))
}

#[test]
fn a_log_is_counted_while_its_container_runs_and_once() {
    let mut world = world(&format!("127.0.0.1:{METRICS}"));
    world.pull(BUSYBOX);
    let Pod { id, config, .. } = world.pod("logged");
    let says = "echo told; while [ ! -e /dev/shm/go ]; do sleep 0.1; done; echo more; sleep 10000";
    Pod { world: &world, id: id.clone(), config: config.clone() }.run(container(
        "main",
        BUSYBOX,
        &shell(says),
    ));
    let first = counted(&world);
    world.end_daemon(Signal::KILL);
    world.start_daemon();
    // Its predecessor has told of the first line.
    assert_eq!(logged(&world), 0.0);
    world.sh(&format!("touch {}", world.path(&format!("state/pods/{id}/shm/go")).display()));
    assert_eq!(counted(&world), first, "lines of one length");
    Pod { world: &world, id, config }.end();
    assert_eq!(logged(&world), first, "nothing is counted again at the end");
    world.finish();
}

/// Every name in the text with a metric's form.
fn names_in(text: &str) -> BTreeSet<String> {
    let word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !word(char));
    let metric = |name: &&str| name.starts_with("podwright_") || name.starts_with("process_");
    words.filter(metric).map(str::to_owned).collect()
}

/// Every name that a series can have.
fn told(text: &str) -> BTreeSet<String> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    kinds
        .flat_map(|(name, kind)| match kind {
            "histogram" => ["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")).to_vec(),
            _ => vec![name.to_owned()],
        })
        .collect()
}

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn read_deployed(name: &str) -> String {
    std::fs::read_to_string(deployed(name)).unwrap()
}

const DASHBOARD: &str = "grafana/podwright.json";
const RULES: &str = "prometheus/podwright.rules.yml";

#[test]
fn what_was_done_is_what_is_told_and_the_dashboard_and_alerts_know_its_names() {
    let world = world(&format!("127.0.0.1:{METRICS}"));
    some_work(&world);
    // A pull is told to its callers before its books are closed.
    let pulled = "podwright_operations_total{operation=\"pull\",result=\"ok\"} 1\n";
    let text = eventually("the pull and all else to end", || {
        let text = scrape(&world);
        let idle = value(&text, "podwright_operations_in_progress") == 0.0;
        (idle && text.contains(pulled)).then_some(text)
    });
    let rpc = |method: &str, code: &str| {
        let labels = format!("service=\"runtime.v1.RuntimeService\",method=\"{method}\"");
        let seconds = format!("podwright_rpc_duration_seconds_count{{{labels}}}");
        assert!(value(&text, &seconds) >= 1.0);
        value(&text, &format!("podwright_rpc_requests_total{{{labels},code=\"{code}\"}}"))
    };
    assert_eq!((rpc("RunPodSandbox", "Ok"), rpc("CreateContainer", "Ok")), (1.0, 1.0));
    assert_eq!(rpc("ContainerStatus", "NotFound"), 1.0);
    let done = |operation: &str| {
        value(
            &text,
            &format!("podwright_operations_total{{operation=\"{operation}\",result=\"ok\"}}"),
        )
    };
    assert_eq!((done("run sandbox"), done("start container")), (1.0, 1.0));
    let stage = "podwright_operation_stage_duration_seconds_count{operation=\"run sandbox\",\
        stage=\"attaching the network and starting the shim\"}";
    assert_eq!(value(&text, stage), 1.0);
    assert_eq!(value(&text, "podwright_image_pull_duration_seconds_count{result=\"ok\"}"), 1.0);
    let fetched = value(&text, "podwright_image_layers_total{result=\"fetched\"}");
    assert!(fetched >= 1.0);
    let bytes = value(&text, "podwright_image_pull_bytes_total");
    assert!(bytes > 0.0 && value(&text, "podwright_image_unpacked_bytes_total") > bytes);
    // "told", and the time and stream before it.
    assert!((30.0..100.0).contains(&value(&text, LOGGED)));
    assert_eq!(value(&text, "podwright_container_log_lost_lines_total"), 0.0);
    assert!(value(&text, "podwright_store_commit_duration_seconds_count{store=\"pods\"}") > 3.0);
    assert!(value(&text, "podwright_store_commit_records_sum{store=\"pods\"}") > 3.0);
    assert_eq!(value(&text, "podwright_store_commit_failures_total{store=\"pods\"}"), 0.0);
    assert!(value(&text, "podwright_recovery_duration_seconds") > 0.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert_eq!(value(&text, "podwright_shims"), 0.0);

    let told = told(&text);
    for file in [DASHBOARD, RULES] {
        let named = names_in(&read_deployed(file));
        assert!(named.len() > 5, "{file}: {named:?}");
        let unknown: Vec<_> = named.difference(&told).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, told are {told:?}");
    }
    assert_eq!(get_tcp(&world, METRICS, "/v1/metrics").0, 200);
    assert_eq!(get_tcp(&world, METRICS, "/").0, 404);
    world.finish();
}

#[test]
fn metrics_on_a_socket_are_for_root_and_a_place_that_is_taken_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, taken) = (dir.path().join("m.sock"), dir.path().join("taken"));
    // What a killed daemon leaves.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut world = world(&format!("unix://{}", socket.display()));
    let connect = || std::os::unix::net::UnixStream::connect(world.seen(&socket)).unwrap();
    let (status, text) = get(connect(), "/metrics");
    assert_eq!((status, value(&text, "podwright_shims")), (200, 0.0));
    let metadata = std::fs::metadata(world.seen(&socket)).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    world.end_daemon(Signal::TERM);
    assert!(!world.seen(&socket).exists());

    std::fs::write(&taken, "somebody's").unwrap();
    let config = format!("[metrics]\naddress = \"unix://{}\"\n", taken.display());
    std::fs::write(world.path("conf.d/test.toml"), config).unwrap();
    world.start_daemon();
    assert!(world.read(world.path("daemon.log")).contains("metrics are not served"));
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "somebody's");
    world.finish();
}

/// A program in a world, which ends with its value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Debian's `prometheus` and `promtool`, where `e2e/prometheus` could get them.
#[allow(clippy::explicit_write, reason = "the harness keeps to itself what a passing test prints")]
fn tools() -> Option<(PathBuf, PathBuf)> {
    let dir = place::prometheus();
    let found = dir.join("prometheus").exists();
    if !found {
        writeln!(std::io::stderr(), "no prometheus in {}: skipped", dir.display()).unwrap();
    }
    found.then(|| (dir.join("prometheus"), dir.join("promtool")))
}

fn query(world: &World, path: &str) -> Value {
    let (status, body) = get_tcp(world, PROMETHEUS, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The answer to an expression now.
fn evaluate(world: &World, expression: &str) -> Vec<Value> {
    let mut encoded = String::new();
    for byte in expression.bytes() {
        encoded.push_str(&format!("%{byte:02X}"));
    }
    let answer = query(world, &format!("/api/v1/query?query={encoded}"));
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let text = targets.map(|target| target["expr"].as_str().unwrap());
    text.map(|text| text.replace("$__rate_interval", "1m").replace("$instance", ".*")).collect()
}

#[test]
fn prometheus_scrapes_without_an_error_and_every_panel_has_data() {
    let Some((prometheus, promtool)) = tools() else { return };
    let world = world(&format!("127.0.0.1:{METRICS}"));
    let checked = world.command(&promtool).args(["check", "rules"]).arg(deployed(RULES)).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let config = world.path("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 2s, evaluation_interval: 1s}}\nrule_files: [{:?}]\n\
         scrape_configs:\n- job_name: podwright\n  static_configs: [{{targets: ['127.0.0.1:{METRICS}']}}]\n",
        deployed(RULES).canonicalize().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(world.path("prometheus.log")).unwrap();
    let mut command = world.command(prometheus);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", world.path("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    let running = Running::start(command.stdout(log.try_clone().unwrap()).stderr(log));
    eventually("Prometheus to scrape", || {
        let ready = world.listens(PROMETHEUS) && get_tcp(&world, PROMETHEUS, "/-/ready").0 == 200;
        (ready && !evaluate(&world, "up == 1").is_empty()).then_some(())
    });
    let began = Instant::now();
    some_work(&world);
    let long = std::env::var("PODWRIGHT_SCRAPE_SECONDS").ok().and_then(|text| text.parse().ok());
    let long = long.map_or(SCRAPE, Duration::from_secs);
    let dashboard: Value = serde_json::from_str(&read_deployed(DASHBOARD)).unwrap();
    for expression in expressions(&dashboard) {
        eventually(&expression, || (!evaluate(&world, &expression).is_empty()).then_some(()));
    }
    while began.elapsed() < long {
        some_work(&world);
    }
    // No scrape failed in all that time, and Prometheus found nothing to complain about in what it got.
    let failed = evaluate(&world, "min_over_time(up{job=\"podwright\"}[10m]) == 0");
    assert!(failed.is_empty(), "{failed:?}");
    let targets = query(&world, "/api/v1/targets")["data"]["activeTargets"].clone();
    assert_eq!(targets[0]["lastError"], "", "{targets}");
    let rules = query(&world, "/api/v1/rules")["data"]["groups"][0]["rules"].clone();
    for rule in rules.as_array().unwrap() {
        assert_ne!(rule["health"], "err", "{rule}");
    }
    drop(running);
    let complaints = world.read(world.path("prometheus.log"));
    for word in ["level=error", "level=ERROR", "out-of-order", "duplicate"] {
        assert!(!complaints.contains(word), "{complaints}");
    }
    let linted = lint(&world, &promtool, &scrape(&world));
    assert!(linted.is_empty(), "{linted}");
    world.finish();
}

/// What `promtool check metrics` has to say.
fn lint(world: &World, promtool: &Path, text: &str) -> String {
    let mut linter = world.command(promtool);
    linter.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut linter = linter.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    linter.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = linter.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    if said.status.success() { text } else { format!("{}: {text}", said.status) }
}
