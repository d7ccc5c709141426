//! The workspace's Rust files, with comments and literals blanked so that rules look at code alone.

use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the workspace's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// `text` with comments, strings and characters replaced by blanks, byte for byte.
    pub(crate) code: String,
}

impl Source {
    /// Below `tests/` or in a file named `tests.rs`.
    pub(crate) fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }

    /// `code` with modules under `#[cfg(test)]` blanked too; empty for a file of tests.
    pub(crate) fn without_tests(&self) -> String {
        if self.is_test() {
            return String::new();
        }
        let mut code = self.code.clone().into_bytes();
        let mut from = 0;
        while let Some(at) = self.code[from..].find("#[cfg(test)]").map(|at| at + from) {
            let end = match self.code[at..].find(['{', ';']).map(|open| open + at) {
                Some(open) if self.code.as_bytes()[open] == b'{' => matching(&self.code, open),
                Some(semicolon) => semicolon,
                None => self.code.len(),
            };
            blank(&mut code, at, end);
            from = end;
        }
        String::from_utf8(code).expect("only whole characters are blanked")
    }

    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }

    pub(crate) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path.display(), self.line_of(offset))
    }
}

/// The directory that holds every member.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in the workspace").into()
}

/// Every Rust file of the workspace, in the order of their paths.
pub(crate) fn sources() -> Vec<Source> {
    let root = workspace();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&root).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("Cargo.toml").exists() {
            walk(&dir, &mut files);
        }
    }
    files.sort();
    files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|ext| ext == "rs"))
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&root).unwrap().to_owned();
            Source { path, code: code_of(&text), text }
        })
        .collect()
}

/// Everything below `dir`, directories too, without build output and hidden entries.
pub(crate) fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name.starts_with("target") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        }
        found.push(path);
    }
}

/// Offsets at which `word` stands as a whole identifier.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let before = at.checked_sub(1).is_none_or(|before| !is_ident(bytes[before]));
        before && bytes.get(at + word.len()).is_none_or(|&after| !is_ident(after))
    })
}

/// The identifier that starts at `at`, which may be empty.
pub(crate) fn ident(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    &rest[..rest.bytes().position(|byte| !is_ident(byte)).unwrap_or(rest.len())]
}

pub(crate) fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The end of the bracket that opens at `open`.
pub(crate) fn matching(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn blank(code: &mut [u8], from: usize, to: usize) {
    for byte in &mut code[from..to] {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// `text` with comments and literals blanked.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(text, at);
        if end > at {
            blank(&mut code, at, end);
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(code).expect("only whole characters are blanked")
}

/// Where the comment or literal that starts at `at` ends; `at` itself where none starts.
fn literal_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    let until = |end: &str| text[at + 1..].find(end).map_or(text.len(), |to| at + 1 + to);
    let starts_word = at.checked_sub(1).is_none_or(|before| !is_ident(bytes[before]));
    match rest {
        [b'/', b'/', ..] => until("\n"),
        [b'/', b'*', ..] => (until("*/") + 2).min(text.len()),
        [b'"', ..] => quoted(bytes, at + 1, b'"'),
        [b'r', b'"' | b'#', ..] if starts_word => {
            let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at;
            }
            let close = format!("\"{}", "#".repeat(hashes));
            let open = at + 2 + hashes;
            text[open..].find(&close).map_or(text.len(), |to| open + to + close.len())
        }
        [b'\'', b'\\', ..] => quoted(bytes, at + 1, b'\''),
        [b'\'', ..] => {
            // A lifetime has no closing quote after one character.
            let character = text[at + 1..].chars().next().map_or(0, char::len_utf8);
            if bytes.get(at + 1 + character) == Some(&b'\'') { at + 2 + character } else { at }
        }
        _ => at,
    }
}

fn quoted(bytes: &[u8], mut at: usize, close: u8) -> usize {
    while at < bytes.len() && bytes[at] != close {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a /* b */ \"c{\\\"\" r#\"d\"e\"# 'f' '\\'' &'g h // i\nj";
    let code = code_of(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "&'g", "h", "j"]);
}
