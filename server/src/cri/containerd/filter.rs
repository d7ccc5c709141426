//! containerd's filters: `labels."io.cri-containerd.kind"==container,image~=busybox`.
//!
//! ```text
//! filter   := selector ("," selector)*              all have to match; of several filters, one
//! selector := path (("==" | "!=" | "~=") value)?    without an operator: there is such a field
//! path     := field ("." field)*
//! field    := quoted | [A-Za-z0-9_]+
//! value    := quoted | anything but commas and spaces
//! quoted   := in `"`; a pattern (RE2) also in `/` or `|`
//! ```

use std::str::Chars;

use regex_lite::{Regex, RegexBuilder};

/// Longest filter that is read.
const MAX_LENGTH: usize = 4096;
/// What a compiled pattern may take.
const MAX_COMPILED: usize = 256 << 10;

/// Several filters, of which one has to match; none: everything does.
#[derive(Debug, Clone)]
pub(super) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Box<Regex>),
}

impl Filters {
    /// Reads them.
    ///
    /// # Errors
    /// What cannot be read, and where.
    pub(super) fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| filter(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether to show what has these fields. A field that is not there is empty.
    pub(super) fn admit(&self, field: impl Fn(&[&str]) -> Option<String>) -> bool {
        let holds = |selector: &Selector| {
            let path: Vec<&str> = selector.path.iter().map(String::as_str).collect();
            let value = field(&path).filter(|value| !value.is_empty());
            match &selector.test {
                Test::Present => value.is_some(),
                Test::Equal(wanted) => value.as_ref() == Some(wanted),
                Test::NotEqual(other) => value.as_ref() != Some(other),
                Test::Matches(pattern) => pattern.is_match(value.as_deref().unwrap_or_default()),
            }
        };
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(holds))
    }
}

fn filter(text: &str) -> Result<Vec<Selector>, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("filter: longer than {MAX_LENGTH} bytes"));
    }
    let mut reader = Reader { text, rest: text.chars() };
    let mut selectors = Vec::new();
    if reader.is_over() {
        return Ok(selectors);
    }
    loop {
        selectors.push(reader.selector()?);
        if reader.is_over() {
            return Ok(selectors);
        }
        if !reader.take(',') {
            return Err(reader.unexpected("a comma"));
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    rest: Chars<'t>,
}

impl Reader<'_> {
    fn skip_spaces(&mut self) {
        let trimmed = self.rest.as_str().trim_start();
        self.rest = trimmed.chars();
    }

    fn is_over(&mut self) -> bool {
        self.skip_spaces();
        self.rest.as_str().is_empty()
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_spaces();
        let after = self.rest.as_str().strip_prefix(wanted);
        after.inspect(|after| self.rest = after.chars()).is_some()
    }

    fn unexpected(&self, wanted: &str) -> String {
        let at = self.text.len() - self.rest.as_str().len();
        format!("filter {:?}: {wanted} is missing at byte {at}", self.text)
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.field()?];
        while self.take('.') {
            path.push(self.field()?);
        }
        Ok(Selector { path, test: self.test()? })
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.is_over() || self.rest.as_str().starts_with(',') {
            return Ok(Test::Present);
        }
        let operator = self.rest.as_str().get(..2).unwrap_or_default().to_owned();
        if !["==", "!=", "~="].contains(&operator.as_str()) {
            return Err(self.unexpected("one of ==, != and ~="));
        }
        self.rest.nth(1);
        self.skip_spaces();
        let quotes: &[char] = if operator == "~=" { &['"', '/', '|'] } else { &['"'] };
        let value = match self.quoted(quotes)? {
            Some(value) => value,
            None => self.run("a value", |c| c != ',' && !c.is_whitespace() && !c.is_control())?,
        };
        match operator.as_str() {
            "==" => Ok(Test::Equal(value)),
            "!=" => Ok(Test::NotEqual(value)),
            _ => {
                let compiled = RegexBuilder::new(&value).size_limit(MAX_COMPILED).build();
                let pattern = compiled.map_err(|err| format!("filter {:?}: {err}", self.text))?;
                Ok(Test::Matches(Box::new(pattern)))
            }
        }
    }

    fn field(&mut self) -> Result<String, String> {
        self.skip_spaces();
        match self.quoted(&['"'])? {
            Some(field) => Ok(field),
            None => self.run("a field", |c| c.is_ascii_alphanumeric() || c == '_'),
        }
    }

    /// The longest run of such characters, which must not be empty.
    fn run(&mut self, what: &str, is_part: impl Fn(char) -> bool) -> Result<String, String> {
        let rest = self.rest.as_str();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.unexpected(what));
        }
        let (run, after) = rest.split_at(end);
        self.rest = after.chars();
        Ok(run.to_owned())
    }

    /// A backslash takes the quote's meaning away and makes control characters; before anything else it stays, since
    /// patterns are full of them.
    fn quoted(&mut self, quotes: &[char]) -> Result<Option<String>, String> {
        let Some(quote) = self.rest.as_str().chars().next().filter(|c| quotes.contains(c)) else {
            return Ok(None);
        };
        self.rest.next();
        let mut value = String::new();
        loop {
            match self.rest.next() {
                None => return Err(self.unexpected("a closing quote")),
                Some(c) if c == quote => return Ok(Some(value)),
                Some('\\') => match self.rest.next() {
                    Some(c) if c == quote => value.push(c),
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('\\') if quote == '"' => value.push('\\'),
                    Some(c) => value.extend(['\\', c]),
                    None => return Err(self.unexpected("a closing quote")),
                },
                Some(c) => value.push(c),
            }
        }
    }
}

/// The field of a map below `path`; its keys may have dots that nobody quoted.
pub(super) fn of_map(
    map: &std::collections::BTreeMap<String, String>,
    path: &[&str],
) -> Option<String> {
    map.get(&path.join(".")).cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn admits(filters: &[&str]) -> bool {
        let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
        let labels = BTreeMap::from([
            ("io.cri-containerd.kind".to_owned(), "container".to_owned()),
            ("empty".to_owned(), String::new()),
            ("quote".to_owned(), r#"a "b", c"#.to_owned()),
        ]);
        Filters::parse(&texts).unwrap().admit(|path| match path {
            ["id"] => Some("0123abc".to_owned()),
            ["topic"] => Some("/tasks/exit".to_owned()),
            ["labels", key @ ..] => of_map(&labels, key),
            _ => None,
        })
    }

    #[test]
    fn one_filter_has_to_match_and_all_of_its_selectors() {
        for (filters, expected) in [
            (&[][..], true),
            (&[""], true),
            (&["id==0123abc"], true),
            (&[" id == 0123abc "], true),
            (&["id==other"], false),
            (&["id==other", "id"], true),
            (&["id==0123abc,topic==/other"], false),
            (&[r#"labels."io.cri-containerd.kind"==container"#], true),
            (&["labels.io.kind!=container"], true),
            (&[r#"labels."io.cri-containerd.kind"!=container"#], false),
            (&[r#"labels.quote=="a \"b\", c""#], true),
            (&["labels.empty"], false),
            (&["labels.absent"], false),
            (&["nothing.of.this"], false),
            (&["topic~=/tasks/"], true),
            (&[r#"topic~="^/tasks/(exit|oom)$""#], true),
            (&[r"topic~=/^\/tasks\/e\w+t$/"], true),
            (&["id~=^0[0-9]+abc$"], true),
            (&["id~=^[0-9]+$"], false),
        ] {
            assert_eq!(admits(filters), expected, "{filters:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        for (text, told) in [
            ("==x", "a field is missing at byte 0"),
            ("id==", "a value is missing at byte 4"),
            ("id=x", "one of ==, != and ~= is missing at byte 2"),
            ("id==x y", "a comma is missing at byte 6"),
            (r#"id=="x"#, "a closing quote is missing at byte 6"),
            ("id==x,", "a field is missing at byte 6"),
            ("id~=(", "filter \"id~=(\""),
            ("é", "a field is missing at byte 0"),
            ("idé", "one of ==, != and ~="),
            // A slash and a bar begin a quoted pattern, and end it.
            ("topic~=/tasks/.*", "a comma is missing at byte 14"),
            ("topic~=|a|b|", "a comma is missing at byte 10"),
        ] {
            let refused = Filters::parse(&[text.to_owned()]).unwrap_err();
            assert!(refused.contains(told), "{text:?}: {refused}");
        }
        assert!(Filters::parse(&["x".repeat(MAX_LENGTH + 1)]).is_err());
        assert!(Filters::parse(&["id~=(a{999}){999}".to_owned()]).is_err());
    }
}
