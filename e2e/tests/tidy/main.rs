//! What review should not have to look at: the rules of form that hold for the whole workspace.
//!
//! Each rule lists everything that breaks it, so that one run tells all.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod arrows;
mod source;

use std::process::Command;

use source::{Source, ident, matching, sources, walk, words, workspace};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
/// A longer file says in its header why.
const LONG_BECAUSE: &str = "//! Longer than a file should be because";

fn none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn arrows_point_down() {
    none(&sources().iter().flat_map(arrows::wrong_arrows).collect::<Vec<_>>());
}

#[test]
fn files_are_a_few_screens() {
    let sources = sources();
    let mut lengths: Vec<usize> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| source.text.lines().count())
        .collect();
    lengths.sort_unstable();
    println!("{} files, median {} lines", lengths.len(), lengths[lengths.len() / 2]);
    let long = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES && !source.text.contains(LONG_BECAUSE))
            .then(|| format!("{}: {lines} lines", source.path.display()))
    });
    none(&long.collect::<Vec<_>>());
}

/// Lines of code between a function's braces, as clippy counts them; comments and blank lines are free.
fn long_functions(source: &Source) -> Vec<String> {
    let code = source.without_tests();
    words(&code, "fn")
        .filter_map(|at| {
            let name = ident(&code, at + 3);
            let open = at + code[at..].find(['{', ';'])?;
            if name.is_empty() || code.as_bytes()[open] == b';' {
                return None;
            }
            let body = &code[open..matching(&code, open)];
            let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
            (lines > FUNCTION_LINES + 2)
                .then(|| format!("{}: fn {name} has {lines} lines", source.place(at)))
        })
        .collect()
}

#[test]
fn functions_are_a_page() {
    none(&sources().iter().flat_map(long_functions).collect::<Vec<_>>());
}

#[test]
fn unsafe_stays_in_files_named_sys() {
    let sources = sources();
    let mut found: Vec<String> = sources
        .iter()
        .filter(|source| source.path.file_name().is_some_and(|name| name != "sys.rs"))
        .flat_map(|source| words(&source.code, "unsafe").map(|at| source.place(at)))
        .collect();
    for root in crate_roots() {
        let path = workspace().join(&root);
        let dir = path.parent().unwrap();
        let mut files = Vec::new();
        walk(dir, &mut files);
        let has_sys = files.iter().any(|file| file.ends_with("sys.rs"));
        let text = std::fs::read_to_string(&path).unwrap();
        // A library may forbid what the program beside it, with a sys.rs of its own, only denies.
        let wanted = if has_sys { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        if !text.contains(wanted) && !text.contains("#![forbid(unsafe_code)]") {
            found.push(format!("{root}: {wanted} is missing"));
        }
    }
    none(&found);
}

/// The root files of the libraries and binaries, relative to the workspace.
fn crate_roots() -> Vec<String> {
    let mut roots = Vec::new();
    for package in metadata(&["--no-deps"])["packages"].as_array().unwrap() {
        for target in package["targets"].as_array().unwrap() {
            let kind = target["kind"][0].as_str().unwrap();
            if kind == "lib" || kind == "bin" {
                let path = target["src_path"].as_str().unwrap();
                let below = path.strip_prefix(workspace().to_str().unwrap()).unwrap();
                roots.push(below.trim_start_matches('/').to_owned());
            }
        }
    }
    roots
}

fn metadata(extra: &[&str]) -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(extra)
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_wire_stays_at_the_edge() {
    let mut found = Vec::new();
    for source in &sources() {
        let at_the_edge = ["server/src/cri", "server/src/export.rs"];
        if !source.path.starts_with("server/src")
            || at_the_edge.iter().any(|edge| source.path.starts_with(edge))
        {
            continue;
        }
        for name in ["tonic", "api"] {
            for at in words(&source.code, name) {
                let follows = source.code[at + name.len()..].trim_start();
                let leads = source.code[..at].trim_end();
                let inner = leads.ends_with("::") || leads.ends_with('.') || leads.ends_with("let");
                if !inner && (follows.starts_with("::") || leads.ends_with("use")) {
                    found.push(format!("{} names {name}", source.place(at)));
                }
            }
        }
    }
    none(&found);
}

#[test]
fn packages_depend_only_on_what_they_may() {
    const OURS: &[&str] = &["api", "cli", "cni", "e2e", "server", "shim", "snapshotter"];
    const MAY: &[(&str, &[&str])] = &[
        ("api", &[]),
        ("cni", &[]),
        ("snapshotter", &[]),
        ("shim", &["api", "snapshotter"]),
        ("server", &["api", "cni", "shim", "snapshotter"]),
        ("cli", &["api"]),
        // To look at layers without asking the daemon.
        ("e2e", &["api", "cni", "snapshotter"]),
    ];
    const SPEAKS_GRPC: &[&str] = &["api", "cli", "e2e", "server"];
    let mut found = Vec::new();
    for package in metadata(&["--no-deps"])["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some((_, may)) = MAY.iter().find(|(of, _)| *of == name) else {
            found.push(format!("{name}: a new package; say in tidy what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            if OURS.contains(&on) && !may.contains(&on) {
                found.push(format!("{name} depends on {on}"));
            }
            if on == "tonic" && !SPEAKS_GRPC.contains(&name) {
                found.push(format!("{name} depends on tonic"));
            }
        }
    }
    none(&found);
}

#[test]
fn nothing_is_named_after_nothing() {
    const EMPTY: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];
    const EMPTY_DIRS: &[&str] = &["core", "types"];
    let mut files = Vec::new();
    walk(&workspace(), &mut files);
    let named = files.iter().filter(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        EMPTY.contains(&&*stem) || path.is_dir() && EMPTY_DIRS.contains(&&*stem)
    });
    none(&named.map(|path| path.display().to_string()).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    const TEXTS: &[&str] = &["rs", "toml", "md", "sh", "proto", "service", ""];
    let mut files = Vec::new();
    walk(&workspace(), &mut files);
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.is_file()) {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        if TEXTS.contains(&&*extension) {
            for (number, line) in text.lines().enumerate() {
                if MARKS.iter().any(|mark| words(line, mark).next().is_some()) {
                    found.push(format!("{}:{}", path.display(), number + 1));
                }
            }
        }
    }
    none(&found);
}

/// Licences that may be linked into an Apache-2.0 program; `deny.toml` holds the same list.
#[test]
fn every_dependency_has_a_licence_that_we_may_use() {
    let allowed = std::fs::read_to_string(workspace().join("deny.toml")).unwrap();
    let allowed: Vec<&str> = allowed
        .split_once("\nallow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.split('"').skip(1).step_by(2).collect())
        .expect("deny.toml lists the licences");
    let mut found = Vec::new();
    for package in metadata(&[])["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        let fits = licence.split(" OR ").any(|choice| {
            choice
                .split(" AND ")
                .all(|each| allowed.contains(&each.trim().trim_matches(['(', ')']).trim()))
        });
        if !fits {
            found.push(format!("{}: {licence}", package["name"]));
        }
    }
    none(&found);
}
