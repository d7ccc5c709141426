//! For which image a signature is good: the reference that was signed against the one that is pulled.

use super::super::reference::Reference;

/// What a policy wants of the reference in a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The reference that is pulled; a pull by digest only needs the repository.
    MatchRepoDigestOrExact,
    /// The reference that is pulled, to the letter.
    MatchExact,
    /// The repository that is pulled.
    MatchRepository,
    /// This reference, whatever is pulled.
    ExactReference(Signed),
    /// This repository, whatever is pulled.
    ExactRepository(String),
    /// The reference that is pulled with another beginning: for mirrors under names of their own.
    Remap { prefix: String, signed_prefix: String },
}

/// A reference as a signer wrote it: it may name a repository alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    /// `registry/repository`.
    pub(super) name: String,
    /// With its tag or digest, where it has one.
    whole: Option<String>,
}

impl Signed {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let reference = Reference::parse(text).map_err(|err| err.to_string())?;
        let last = text.rsplit('/').next().unwrap_or_default();
        // `host:port` alone is no reference, so a colon in the last part begins a tag.
        let whole = last.contains([':', '@']).then(|| reference.to_string());
        Ok(Self { name: name(&reference), whole })
    }

    /// Whether it has a tag or a digest.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }
}

/// `registry/repository`.
pub(super) fn name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

impl Identity {
    /// Whether a signature over `signed` is good for `pulled`.
    pub(super) fn admits(&self, signed: &str, pulled: &Reference) -> Result<(), String> {
        let of = Signed::parse(signed)?;
        let good = match self {
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(&of, pulled),
            Self::MatchExact => of.whole == Some(pulled.to_string()),
            Self::MatchRepository => of.name == name(pulled),
            Self::ExactReference(wanted) => of.is_whole() && of.whole == wanted.whole,
            Self::ExactRepository(wanted) => of.name == *wanted,
            Self::Remap { prefix, signed_prefix } => {
                repo_digest_or_exact(&of, &remapped(pulled, prefix, signed_prefix)?)
            }
        };
        if good { Ok(()) } else { Err(format!("it is for {signed:?}")) }
    }
}

fn repo_digest_or_exact(signed: &Signed, pulled: &Reference) -> bool {
    match pulled.target() {
        super::super::reference::Target::Tag(_) => signed.whole == Some(pulled.to_string()),
        // That the digest is the image's is checked beside this.
        super::super::reference::Target::Digest(_) => {
            signed.is_whole() && signed.name == name(pulled)
        }
    }
}

/// The reference with `prefix`, at a boundary of its name, replaced.
fn remapped(pulled: &Reference, prefix: &str, by: &str) -> Result<Reference, String> {
    let of = name(pulled);
    let below = of.strip_prefix(prefix);
    if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Ok(pulled.clone());
    }
    let text = format!("{by}{}", &pulled.to_string()[prefix.len()..]);
    Reference::parse(&text).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn each_rule_admits_what_it_says() {
        let by_digest = format!("r.io/a/b@{D}");
        let exact = |text: &str| Identity::ExactReference(Signed::parse(text).unwrap());
        let remap = |prefix: &str, signed: &str| Identity::Remap {
            prefix: prefix.into(),
            signed_prefix: signed.into(),
        };
        use Identity::*;
        for (rule, signed, pulled, good) in [
            (MatchExact, "r.io/a/b:1", "r.io/a/b:1", true),
            (MatchExact, "r.io/a/b:2", "r.io/a/b:1", false),
            (MatchExact, "r.io/a/b", "r.io/a/b", false),
            (MatchExact, "r.io/a/b:latest", "r.io/a/b", true),
            (MatchExact, "busybox:1", "docker.io/library/busybox:1", true),
            (MatchExact, "r.io/a/b:1", &by_digest, false),
            (MatchExact, &by_digest, &by_digest, true),
            (MatchRepoDigestOrExact, "r.io/a/b:1", "r.io/a/b:1", true),
            (MatchRepoDigestOrExact, "r.io/a/b:1", "r.io/a/b:2", false),
            (MatchRepoDigestOrExact, "r.io/a/b", "r.io/a/b:1", false),
            (MatchRepoDigestOrExact, "r.io/a/b:1", &by_digest, true),
            (MatchRepoDigestOrExact, "r.io/a/b", &by_digest, false),
            (MatchRepoDigestOrExact, "r.io/a/c:1", &by_digest, false),
            (MatchRepository, "r.io/a/b", "r.io/a/b:1", true),
            (MatchRepository, "r.io/a/b:9", "r.io/a/b:1", true),
            (MatchRepository, "r.io/a", "r.io/a/b:1", false),
            (MatchRepository, "r.io:5000/a/b", "r.io/a/b:1", false),
            (exact("r.io/a/b:1"), "r.io/a/b:1", "x.io/y:2", true),
            (exact("r.io/a/b:1"), "r.io/a/b", "r.io/a/b:1", false),
            (ExactRepository("r.io/a/b".into()), "r.io/a/b:7", "x.io/y:2", true),
            (ExactRepository("r.io/a/b".into()), "r.io/a/b2:7", "r.io/a/b:7", false),
            (remap("m.io/copy", "r.io"), "r.io/a/b:1", "m.io/copy/a/b:1", true),
            (remap("m.io/copy", "r.io"), "m.io/copy/a/b:1", "m.io/copy/a/b:1", false),
            (remap("m.io/co", "r.io"), "m.io/copy/a/b:1", "m.io/copy/a/b:1", true),
            (remap("m.io/a/b", "r.io/x"), "r.io/x:1", "m.io/a/b:1", true),
            (MatchRepository, "not a reference", "r.io/a/b:1", false),
        ] {
            let pulled = Reference::parse(pulled).unwrap();
            let told = rule.admits(signed, &pulled);
            assert_eq!(told.is_ok(), good, "{rule:?} {signed} {pulled}: {told:?}");
        }
    }
}
