use std::time::Duration;

use super::*;

fn written<const L: usize, T: family::Instrument>(family: &Family<L, T>) -> Vec<String> {
    let mut text = Text::default();
    family.write(&mut text);
    text.finish().lines().skip(2).map(str::to_owned).collect()
}

#[test]
fn a_histogram_counts_up_to_each_bound() {
    let histogram = Histogram::new(&[0.1, 1.0]);
    for value in [0.05, 0.1, 0.5, 7.0] {
        histogram.observe(value);
    }
    let read = histogram.read();
    assert_eq!(read.buckets, [(0.1, 2), (1.0, 3), (f64::INFINITY, 4)]);
    assert!((read.sum - 7.65).abs() < 1e-9, "{}", read.sum);
    histogram.took(Duration::from_millis(1));
    assert_eq!(histogram.read().count(), 5);
}

#[test]
fn labels_are_told_apart_and_written_in_order_and_quoted() {
    static FAMILY: Family<2, Counter> = Family::new("t", "h", ["a", "b"], Counter::default);
    FAMILY.of(["x", "y\"z"]).add(2);
    FAMILY.of(["xy", "\"z"]).add(3);
    FAMILY.of(["x", "y\"z"]).add(2);
    assert_eq!(written(&FAMILY), ["t{a=\"x\",b=\"y\\\"z\"} 4", "t{a=\"xy\",b=\"\\\"z\"} 3"]);
}

#[test]
fn a_full_family_counts_the_rest_under_other_and_loses_nothing() {
    static FAMILY: Family<1, Counter> = Family::new("t", "h", ["a"], Counter::default);
    let many = family::PLACES + 40;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..many).for_each(|label| FAMILY.of([&label.to_string()]).add(1)));
        }
    });
    let lines = written(&FAMILY);
    assert_eq!(lines.len(), family::PLACES + 1);
    assert!(lines.iter().any(|line| line == "t{a=\"other\"} 160"), "{lines:?}");
    let sum: u64 =
        lines.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 4 * many as u64);
}

#[test]
fn the_process_knows_itself() {
    let mut text = Text::default();
    process(&mut text);
    let text = text.finish();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e5);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - value("process_start_time_seconds");
    assert!((-2.0..86400.0).contains(&age), "started {age} s ago");
    assert!(value("process_cpu_seconds_total") >= 0.0);
}
