//! A report as a table, which is Markdown and readable as it stands.

use super::report::{Figure, Report, Row};

/// The whole of it.
pub fn of(report: &Report) -> String {
    let mut lines = vec![head(report)];
    let mut group = "";
    for row in &report.rows {
        if row.group != group {
            group = &row.group;
            lines.push(wide(report, &format!("**{group}**")));
        }
        lines.push(line(report, row));
    }
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| width(&line[column])).max().unwrap_or(0))
        .collect();
    let ruler = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.insert(1, ruler);
    let text = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> =
            cells.map(|(cell, all)| cell.clone() + &" ".repeat(all - width(cell))).collect();
        format!("| {} |\n", cells.join(" | "))
    });
    text.collect()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

fn head(report: &Report) -> Vec<String> {
    let mut cells = vec!["p50 / p90 / p99".to_owned(), String::new()];
    cells.extend(report.contestants.iter().cloned());
    if report.peer.is_some() {
        cells.push("ratio".into());
    }
    cells.extend(["floor".into(), "target".into()]);
    cells
}

/// A line of which only the first cell says something.
fn wide(report: &Report, text: &str) -> Vec<String> {
    let mut cells = vec![String::new(); head(report).len()];
    cells[0] = text.into();
    cells
}

fn line(report: &Report, row: &Row) -> Vec<String> {
    let others = || (0..report.contestants.len()).filter(|at| Some(*at) != report.peer);
    let joined = |each: &mut dyn FnMut(usize) -> Option<String>| -> String {
        others().filter_map(each).collect::<Vec<_>>().join(", ")
    };
    let mut cells = vec![row.what.clone(), row.unit.name().to_owned()];
    cells.extend(row.figures.iter().map(|figure| figure.map_or("–".into(), cell)));
    if let Some(peer) = report.peer {
        cells.push(joined(&mut |at| row.share(at, peer).map(number)));
    }
    cells.push(row.floor.map_or(String::new(), number));
    cells.push(joined(&mut |at| {
        let target = row.figures[at]?.wanted(row.unit)?;
        Some(match row.meets(at, report.peer) {
            Some(true) => format!("{target} ok"),
            Some(false) => format!("{target} **miss**"),
            None => target,
        })
    }));
    cells
}

fn cell(figure: Figure) -> String {
    let all = [Some(figure.value), figure.p90, figure.p99];
    all.into_iter().flatten().map(number).collect::<Vec<_>>().join(" / ")
}

/// Three digits that count, and not more.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        size if size >= 0.0995 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plot::tests::report;
    use super::super::report::{Judged, Target};
    use super::*;

    #[test]
    fn a_table_says_who_met_what() {
        let expected = "\
| p50 / p90 / p99 |      | podwright          | containerd      | ratio  | floor | target            |
| --------------- | ---- | ------------------ | --------------- | ------ | ----- | ----------------- |
| **pods**        |      |                    |                 |        |       |                   |
| up              | ms   | 50.0 / 60.0 / 70.5 | 200 / 240 / 300 | 0.250  | 20.0  | p50 ≤ 0.5 × ok    |
| **streams**     |      |                    |                 |        |       |                   |
| log & <lines>   | MB/s | 240                | 24.0            | 0.100  |       | ≥ 250 MB/s **miss** |
| metrics         | ms   | 2.00               | –               |        |       | ≤ 20 ms ok        |
";
        let strip = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let rulers = |text: String| strip(&text.replace('-', ""));
        assert_eq!(rulers(of(&report())), rulers(expected.into()));
    }

    #[test]
    fn what_is_judged_is_said() {
        let of_judged = |judged| {
            let mut report = report();
            let figure = report.rows[0].figures[0].as_mut().expect("the first");
            (figure.target, figure.judged) = (Some(Target::AtMost(60.0)), judged);
            of(&report)
        };
        for (judged, said) in [
            (Judged::P50, "p50 ≤ 60 ms ok"),
            (Judged::P90, "p90 ≤ 60 ms ok"),
            (Judged::P99, "p99 ≤ 60 ms **miss**"),
        ] {
            let table = of_judged(judged);
            assert!(table.contains(said), "{said}: {table}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        let all = [0.0, 0.00123, 0.05, 0.25, 1.0, 9.999, 12.34, 99.99, 1234.5].map(number);
        assert_eq!(all, ["0", "0.0012", "0.0500", "0.250", "1.00", "10.0", "12.3", "100", "1234"]);
    }
}
