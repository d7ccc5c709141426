//! What the plugins call their chains, and how they mark their rules.

use sha2::{Digest, Sha512};

/// Of the name of a chain: shorter than the tables allow.
const CHAIN_LEN: usize = 28;
/// Of each of the two hashes.
const NFTABLES_HASH_LEN: usize = 16;
/// Of a comment that portmap cuts.
const MAX_COMMENT: usize = 255;

/// The chain of an attachment: a prefix, and as much of a hash as there is room for.
pub(crate) fn chain(prefix: &str, network: &str, container_id: &str) -> String {
    let mut name = format!("CNI-{prefix}{}", hash(&format!("{network}{container_id}")));
    name.truncate(CHAIN_LEN);
    name
}

fn hash(text: &str) -> String {
    Sha512::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the comment of what masquerades begins where it is nftables' own.
pub(crate) fn nftables_comment(network: &str, ifname: &str, container_id: &str) -> String {
    let part = |text: &str| hash(text)[..NFTABLES_HASH_LEN].to_owned();
    format!("{}-{}", part(network), part(&format!("{ifname}:{container_id}")))
}

/// The comment of what masquerades.
pub(crate) fn masquerade_comment(network: &str, container_id: &str) -> String {
    format!("name: \"{network}\" id: \"{container_id}\"")
}

/// The comment of what leads to the chain of a pod's ports.
pub(crate) fn ports_comment(network: &str, container_id: &str) -> String {
    let mut comment = format!("dnat name: \"{network}\" id: \"{container_id}\"");
    if comment.len() > MAX_COMMENT {
        comment.truncate(MAX_COMMENT - 2);
        comment.push_str("...");
    }
    comment
}

/// Can a chain of the configuration's be called so? Words that `iptables` reads in another way are not names.
pub(crate) fn is_chain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let targets = ["ACCEPT", "DROP", "QUEUE", "RETURN"];
    name.len() <= CHAIN_LEN
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(plain)
        && !targets.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_plugins_gave() {
        // Read from the tables after Debian's portmap 1.1.1 had been there.
        assert_eq!(chain("DN-", "net", "abc"), "CNI-DN-3ce8a0924fdef86d56ad1");
        assert_eq!(chain("", "net", "abc"), "CNI-3ce8a0924fdef86d56ad1df1");
        assert_eq!(ports_comment("net", "abc"), r#"dnat name: "net" id: "abc""#);
        let long = ports_comment("net", &"a".repeat(300));
        assert!(long.len() == 256 && long.ends_with("a..."), "{long}");
    }
}
