//! Pinned images: names that the kubelet's garbage collection is told to spare.

use crate::config::pattern;

/// Patterns over whole names, `registry/repository:tag` or `registry/repository@digest`; `*` is any text, and what
/// stands before the first slash needs no `docker.io/library`.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins(Vec<String>);

impl Pins {
    pub(super) fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| whole(pattern)).collect())
    }

    /// Whether one of an image's names is meant.
    pub(super) fn holds<'a>(&self, mut names: impl Iterator<Item = &'a String>) -> bool {
        !self.0.is_empty()
            && names.any(|name| self.0.iter().any(|pattern| pattern::matches(pattern, name)))
    }
}

/// A pattern that is a name means what that name means.
fn whole(pattern: &str) -> String {
    if pattern.contains('*') {
        return pattern.to_owned();
    }
    super::reference::Reference::parse(pattern).map_or(pattern.to_owned(), |name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_have_stars() {
        for (pattern, name, holds) in [
            ("busybox", "docker.io/library/busybox:latest", true),
            ("busybox:1", "docker.io/library/busybox:latest", false),
            ("registry.k8s.io/*", "registry.k8s.io/pause:3.9", true),
            ("registry.k8s.io/*", "evil.example/registry.k8s.io/pause:3.9", false),
            ("*/pause:*", "registry.k8s.io/pause:3.9", true),
            ("*/pause:*", "registry.k8s.io/pause@sha256:1", false),
            ("*", "a/b:c", true),
            ("a/*b*:c", "a/xbyb:c", true),
            ("a/*b", "a/b", true),
            ("a/b*b", "a/b", false),
            ("", "a/b:c", false),
        ] {
            let name = name.to_owned();
            assert_eq!(
                Pins::new(&[pattern.into()]).holds([&name].into_iter()),
                holds,
                "{pattern} {name}"
            );
        }
    }
}
