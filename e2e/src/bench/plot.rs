//! A report as a picture: of each row, what of the peer's cost the first contestant needs.
//!
//! Plain SVG without a font, a script or a background of its own: it takes the reader's colours, light or dark.

use std::fmt::Write;

use super::report::{Report, Row};
use super::table::number;

/// Places on the sheet.
const WIDTH: usize = 860;
const LEFT: usize = 330;
const BAR: usize = 300;
const LINE: usize = 22;
const GROUP: usize = 30;
const TOP: usize = 58;
const BOTTOM: usize = 18;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.note{fill:#59636e;font-size:12px}.group{font-weight:600}\
.end{text-anchor:end}.all{fill:#d1d9e0}.own{fill:#1a7f64}.more{fill:#bf5a00}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.all{fill:#3d444d}.own{fill:#3fb68f}\
.more{fill:#e0883a}}";

/// The picture; rows that not both have are left out. `None` without a peer.
pub fn svg(report: &Report) -> Option<String> {
    let peer = report.peer?;
    let own = (0..report.contestants.len()).find(|at| *at != peer)?;
    let rows: Vec<(&Row, f64)> = report
        .rows
        .iter()
        .filter_map(|row| row.share(own, peer).map(|share| (row, share)))
        .collect();
    let mut body = String::new();
    let (mut y, mut group) = (TOP, "");
    for (row, share) in rows {
        if row.group != group {
            group = &row.group;
            y += GROUP;
            text(&mut body, 12, y - 10, "group", group);
        }
        bar(&mut body, y, share);
        let unit = row.unit.name();
        text(&mut body, LEFT - 10, y + 12, "end", &row.what);
        let value = |at: usize| row.figures[at].map_or(0.0, |figure| figure.value);
        let figures = format!(
            "{} ×: {} {unit}, not {}",
            number(share),
            number(value(own)),
            number(value(peer))
        );
        text(&mut body, LEFT + BAR + 10, y + 12, "note", &figures);
        y += LINE;
    }
    let height = y + BOTTOM;
    let (own, peer) = (&report.contestants[own], &report.contestants[peer]);
    let mut head = String::new();
    text(
        &mut head,
        12,
        22,
        "group",
        &format!("What {own} needs of what {peer} needs: less is better"),
    );
    text(&mut head, 12, 42, "note", &report.about);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n{head}{body}</svg>\n"
    ))
}

/// The peer's whole, and of it our share; one that is more than all of it has another colour.
fn bar(out: &mut String, y: usize, share: f64) {
    let class = if share > 1.0 { "more" } else { "own" };
    let length = (share.min(1.0) * BAR as f64).max(1.0);
    rect(out, y, BAR as f64, "all");
    rect(out, y, length, class);
}

fn rect(out: &mut String, y: usize, width: f64, class: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"15\" rx=\"2\" class=\"{class}\"/>"
    );
}

fn text(out: &mut String, x: usize, y: usize, class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As a run writes it.
    const REPORT: &str = r#"{
        "about": "2 cores", "contestants": ["podwright", "containerd"], "peer": 1,
        "rows": [
            {"group": "pods", "what": "up", "unit": "milliseconds", "floor": 20.0, "figures": [
                {"value": 50.0, "p90": 60.0, "p99": 70.5, "target": {"share": 0.5}},
                {"value": 200.0, "p90": 240.0, "p99": 300.0, "target": null}]},
            {"group": "streams", "what": "log & <lines>", "unit": "megabytes_per_second", "floor": null, "figures": [
                {"value": 240.0, "p90": null, "p99": null, "target": {"at_least": 250.0}},
                {"value": 24.0, "p90": null, "p99": null, "target": null}]},
            {"group": "streams", "what": "metrics", "unit": "milliseconds", "floor": null, "figures": [
                {"value": 2.0, "p90": null, "p99": null, "target": {"at_most": 20.0}}, null]}]}"#;

    pub(in super::super) fn report() -> Report {
        serde_json::from_str(REPORT).expect("a report")
    }

    #[test]
    fn bars_are_shares_of_the_peers_cost() {
        let svg = svg(&report()).expect("there is a peer");
        let widths: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("class=\"own\""))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next())
            .collect();
        // A quarter of the time; ten times as fast; and none for what only one of them can.
        assert_eq!(widths, ["75.0", "30.0"]);
        assert!(svg.contains("log &amp; &lt;lines>"), "{svg}");
        assert!(svg.contains("0.250 ×: 50.0 ms, not 200"), "{svg}");
        assert!(!svg.contains("metrics"), "{svg}");
    }

    #[test]
    fn who_needs_more_than_the_peer_is_not_cut_off() {
        let mut report = report();
        report.peer = Some(0);
        let svg = svg(&report).expect("there is a peer");
        assert_eq!(svg.matches("class=\"more\"").count(), 2, "{svg}");
        assert!(svg.contains("4.00 ×"), "{svg}");
    }

    #[test]
    fn a_report_comes_back_from_its_file() {
        let text = serde_json::to_string(&report()).expect("JSON");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report());
    }

    #[test]
    fn nothing_is_drawn_without_a_peer() {
        let mut report = report();
        report.peer = None;
        assert_eq!(svg(&report), None);
    }
}
