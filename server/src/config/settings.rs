//! TOML files as a flat table of settings that remembers where each was written and which were asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Mistakes;

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<String>),
    /// A kind that no setting has.
    Other,
}

#[derive(Debug, Clone)]
struct Setting {
    value: Value,
    /// `file:line`.
    place: String,
}

/// Settings by dotted key; a later file's value replaces an earlier one's.
#[derive(Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<String, Setting>,
    known: BTreeSet<String>,
    mistakes: BTreeSet<String>,
}

impl Settings {
    pub(super) fn read(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(err) => {
                self.mistakes.insert(format!("{}: {err}", path.display()));
                return;
            }
        };
        match DeTable::parse(&text) {
            Ok(table) => self.flatten("", table.get_ref(), &text, path),
            Err(err) => {
                let at = err.span().map_or(0, |span| span.start);
                let place = place(path, &text, at);
                self.mistakes.insert(format!("{place}: {}", err.message()));
            }
        }
    }

    /// Reads `*.toml` of a directory in the order of their names; a directory that is not there has none.
    pub(super) fn read_dir(&mut self, dir: &Path) {
        let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return,
            Err(err) => {
                self.mistakes.insert(format!("{}: {err}", dir.display()));
                return;
            }
        };
        files.retain(|file| file.extension().is_some_and(|ext| ext == "toml"));
        files.sort();
        for file in files {
            self.read(&file);
        }
    }

    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>, text: &str, path: &Path) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                self.flatten(&format!("{name}."), inner, text, path);
                continue;
            }
            let setting = Setting {
                value: convert(value.get_ref()),
                place: place(path, text, key.span().start),
            };
            self.given.insert(name, setting);
        }
    }

    fn take(&mut self, key: &str) -> Option<Setting> {
        self.known.insert(key.to_owned());
        self.given.remove(key)
    }

    fn wrong(&mut self, setting: &Setting, key: &str, reason: &str) {
        self.mistakes.insert(format!("{}: {key}: {reason}", setting.place));
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        match self.take(key) {
            None => default.to_owned(),
            Some(Setting { value: Value::Text(text), .. }) => text,
            Some(setting) => {
                self.wrong(&setting, key, "needs text");
                default.to_owned()
            }
        }
    }

    pub(super) fn address(&mut self, key: &str, default: std::net::IpAddr) -> std::net::IpAddr {
        let Some(setting) = self.take(key) else { return default };
        match &setting.value {
            Value::Text(text) => text.parse().unwrap_or_else(|_| {
                self.wrong(&setting, key, &format!("{text:?} is no IP address"));
                default
            }),
            _ => {
                self.wrong(&setting, key, "needs an IP address as text");
                default
            }
        }
    }

    /// Text that has a form of its own. Empty is nothing.
    pub(super) fn parsed<T: std::str::FromStr<Err = String>>(&mut self, key: &str) -> Option<T> {
        let setting = self.take(key)?;
        match &setting.value {
            Value::Text(text) if text.is_empty() => None,
            Value::Text(text) => match text.parse() {
                Ok(value) => Some(value),
                Err(reason) => {
                    self.wrong(&setting, key, &format!("{text:?} {reason}"));
                    None
                }
            },
            _ => {
                self.wrong(&setting, key, "needs text");
                None
            }
        }
    }

    /// A mistake in what several settings say together.
    pub(super) fn mistake(&mut self, what: &str) {
        self.mistakes.insert(what.to_owned());
    }

    /// The first choice is the default.
    pub(super) fn one_of(&mut self, key: &str, choices: &[&str]) -> String {
        match self.take(key) {
            None => choices[0].to_owned(),
            Some(Setting { value: Value::Text(text), .. }) if choices.contains(&text.as_str()) => {
                text
            }
            Some(setting) => {
                let choices = choices.join(", ");
                let reason = match &setting.value {
                    Value::Text(text) => format!("{text:?} is none of {choices}"),
                    _ => format!("needs one of {choices}"),
                };
                self.wrong(&setting, key, &reason);
                String::new()
            }
        }
    }

    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        match self.take(key)? {
            Setting { value: Value::Text(text), .. } if text.starts_with('/') => Some(text.into()),
            setting => {
                self.wrong(&setting, key, "needs an absolute path as text");
                None
            }
        }
    }

    pub(super) fn path(&mut self, key: &str, default: &str) -> PathBuf {
        self.optional_path(key).unwrap_or_else(|| default.into())
    }

    pub(super) fn paths(&mut self, key: &str, default: &[&str]) -> Vec<PathBuf> {
        match self.take(key) {
            Some(Setting { value: Value::List(list), .. })
                if !list.is_empty() && list.iter().all(|path| path.starts_with('/')) =>
            {
                return list.into_iter().map(PathBuf::from).collect();
            }
            Some(setting) => self.wrong(&setting, key, "needs a list of absolute paths"),
            None => {}
        }
        default.iter().map(PathBuf::from).collect()
    }

    /// A list of any texts; none by default.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        match self.take(key) {
            Some(Setting { value: Value::List(list), .. }) => return list,
            Some(setting) => self.wrong(&setting, key, "needs a list of texts"),
            None => {}
        }
        Vec::new()
    }

    /// Every `<prefix>.<name> = "/path"`.
    pub(super) fn paths_under(&mut self, prefix: &str) -> BTreeMap<String, PathBuf> {
        let lead = format!("{prefix}.");
        let keys: Vec<String> =
            self.given.keys().filter(|key| key.starts_with(&lead)).cloned().collect();
        keys.into_iter()
            .filter_map(|key| Some((key[lead.len()..].to_owned(), self.optional_path(&key)?)))
            .collect()
    }

    /// The names of the tables below `prefix`, each the part before its last dot.
    pub(super) fn tables_under(&self, prefix: &str) -> BTreeSet<String> {
        let lead = format!("{prefix}.");
        let below = self.given.keys().filter_map(|key| key.strip_prefix(&lead)?.rsplit_once('.'));
        below.map(|(name, _)| name.to_owned()).collect()
    }

    pub(super) fn integer(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(setting) = self.take(key) else { return default };
        let value = match setting.value {
            Value::Integer(value) => value,
            _ => {
                self.wrong(&setting, key, "needs a whole number");
                return default;
            }
        };
        match u64::try_from(value) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let reason = format!("{value} is not within {} to {}", range.start(), range.end());
                self.wrong(&setting, key, &reason);
                default
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Setting { value: Value::Boolean(value), .. }) => value,
            Some(setting) => {
                self.wrong(&setting, key, "needs true or false");
                default
            }
        }
    }

    /// Call when every setting was asked for: what is left over is unknown.
    pub(super) fn finish(mut self) -> Result<(), Mistakes> {
        for (key, setting) in std::mem::take(&mut self.given) {
            let hint = nearest(&key, &self.known)
                .map_or(String::new(), |near| format!("; did you mean {near}?"));
            self.mistakes.insert(format!("{}: {key}: no such setting{hint}", setting.place));
        }
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(self.mistakes.into_iter().collect()))
        }
    }
}

fn place(path: &Path, text: &str, offset: usize) -> String {
    let line = text[..offset.min(text.len())].matches('\n').count() + 1;
    format!("{}:{line}", path.display())
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other, Value::Integer),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map_or(Value::Other, Value::List),
        _ => Value::Other,
    }
}

/// The known key that differs least, if it differs by no more than a few letters.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    const MAX_DISTANCE: usize = 3;
    known
        .iter()
        .map(|candidate| (distance(key, candidate), candidate.as_str()))
        .min()
        .filter(|(distance, _)| *distance <= MAX_DISTANCE)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's, over bytes: keys are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
