//! Out of memory: who is told, and who is not.

use shim::record::ExitRecord;

use crate::bundle::Spec;
use crate::pod::Pod;

const LIMIT: u64 = 32 << 20;
/// Takes memory until it is killed.
const EAT: &str = "awk 'BEGIN { s = \"xxxxxxxxxxxxxxxx\"; while (1) s = s s }'";

fn record(pod: &Pod) -> ExitRecord {
    ExitRecord::read(&pod.bundle("a").join("exit.json")).expect("readable").expect("a record")
}

async fn run(script: &str) -> (u32, ExitRecord) {
    let pod = Pod::start().await;
    let mut spec = Spec::sh(script);
    spec.memory = Some(LIMIT);
    pod.run("a", &spec).await;
    let status = pod.finish("a").await;
    let record = record(&pod);
    pod.end().await;
    (status, record)
}

#[tokio::test]
async fn a_container_that_eats_too_much_is_known_to_have() {
    let (status, record) = run(&format!("exec {EAT}")).await;
    assert_eq!((status, record.oom_killed, record.signal), (137, true, Some(9)));
}

#[tokio::test]
async fn a_child_s_death_that_takes_its_parent_along_counts() {
    let (status, record) = run(&format!("{EAT}; exit $?")).await;
    assert_eq!((status, record.oom_killed, record.signal), (137, true, None));
}

#[tokio::test]
async fn a_child_s_death_that_is_survived_does_not() {
    let (status, record) = run(&format!("{EAT}; sleep 0.1; exit 0")).await;
    assert_eq!((status, record.oom_killed), (0, false));
}
