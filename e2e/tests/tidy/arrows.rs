//! Arrows between the server's modules point down.

use crate::source::{Source, ident, matching, words};

/// From the top; a module may name those of a later row. The last row's may name each other.
const ROWS: &[&[&str]] = &[
    &["main", "lib"],
    &["fuzz"],
    &["daemon"],
    &["cri", "export", "recover", "scrape", "watchdog"],
    &["leftover"],
    &["stream"],
    &["sandbox"],
    &["container"],
    &["image"],
    &["resource"],
    &["host"],
    &[
        "store",
        "event",
        "error",
        "config",
        "telemetry",
        "operation",
        "id",
        "sys",
        "failpoint",
        "metric",
        "recorder",
        "systemd",
        "trace",
    ],
];

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The modules from the crate's root down to this file's.
fn module_path(source: &Source) -> Option<Vec<String>> {
    let below = source.path.strip_prefix("server/src").ok()?.with_extension("");
    let mut path: Vec<String> =
        below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    Some(path)
}

/// Every top-level module that the code names, with the offset of the naming path.
fn named(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        first_segments(code, at + "crate".len(), at, &mut found);
    }
    for at in words(code, "super") {
        if code[..at].ends_with("super::") {
            continue;
        }
        let mut end = at + "super".len();
        let mut ups = 1;
        while code[end..].starts_with("::super") {
            end += "::super".len();
            ups += 1;
        }
        if ups >= depth {
            first_segments(code, end, at, &mut found);
        }
    }
    found
}

/// The first segments after a `::` at `end`: one, or each of a group.
fn first_segments(code: &str, end: usize, at: usize, found: &mut Vec<(usize, String)>) {
    let Some(rest) = code[end..].strip_prefix("::") else { return };
    if !rest.starts_with('{') {
        found.push((at, ident(code, end + 2).to_owned()));
        return;
    }
    let group = &code[end + 3..matching(code, end + 2) - 1];
    let mut depth = 0;
    for part in group.split_inclusive([',', '{', '}']) {
        if depth == 0 {
            let name = ident(part.trim_start(), 0);
            if !name.is_empty() {
                found.push((at, name.to_owned()));
            }
        }
        depth += part.matches('{').count();
        depth -= part.matches('}').count();
    }
}

pub(crate) fn wrong_arrows(source: &Source) -> Vec<String> {
    let Some(path) = module_path(source) else { return Vec::new() };
    let from = path[0].as_str();
    let Some(from_row) = row(from) else {
        return vec![format!("{}: module {from} has no row in tidy", source.path.display())];
    };
    let depth = if from == "main" { 0 } else { path.len() };
    named(&source.without_tests(), depth)
        .into_iter()
        .filter_map(|(at, to)| {
            let to_row = row(&to)?;
            let same_bottom = from_row == to_row && from_row == ROWS.len() - 1;
            let allowed = to == from || to_row > from_row || same_bottom;
            (!allowed).then(|| format!("{}: {from} names {to}", source.place(at)))
        })
        .collect()
}

#[test]
fn paths_are_read_through_groups_and_supers() {
    let code = "use crate::{a, b::{c, d}, e::f}; crate::g::h(); super::super::i::j; super::k";
    let names: Vec<String> = named(code, 2).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b", "e", "g", "i"]);
}
