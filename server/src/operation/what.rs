//! What an operation does to what.

/// A kind of operation and its object. Kinds are few: they are counted apart. Objects are shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct What {
    kind: &'static str,
    object: String,
}

impl What {
    pub(crate) fn new(kind: &'static str, object: impl std::fmt::Display) -> Self {
        Self { kind, object: object.to_string() }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn object(&self) -> &str {
        &self.object
    }
}

impl From<&'static str> for What {
    fn from(kind: &'static str) -> Self {
        Self { kind, object: String::new() }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)?;
        if self.object.is_empty() { Ok(()) } else { write!(f, " {}", self.object) }
    }
}
