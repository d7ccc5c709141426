//! What executables of 1.6 and later write for `ipMasq` where a node has nftables and no `iptables`, or where they are
//! told to: rules in a table of their own, each with a comment that begins with hashes of its attachment.
//!
//! None are written here. DEL takes those of its attachment away, as the executables' does, since the node may have
//! got `iptables` after ADD. Nothing is asked of a kernel that has no nf_tables yet: it would load them.

use std::io;

use super::kernel::{self, DEL_RULE, Outcome, RULE_CHAIN, RULE_HANDLE, TABLE};
use super::{Table, flow, name, way};
use crate::engine::Engine;
use crate::native::Job;
use crate::netlink::{Message, Socket};

const NAME: &str = "cni_plugins_masquerade";
const CHAIN: &str = "masq_checks";
/// The family of both IPv4 and IPv6, `NFPROTO_INET`.
const HEAD: [u8; flow::HEAD_LEN] = [1, 0, 0, 0];
const RULE_USERDATA: u16 = 7;
/// Of what is in there: each a kind, a length and so many bytes.
const USERDATA_COMMENT: u8 = 0;

/// Takes away what the attachment of `job` has.
pub(crate) fn remove(job: &Job<'_>) -> io::Result<()> {
    // Which table is asked about and of which family is all the same to this engine.
    if !way::may_have(Engine::NfTables, Table::Nat, super::Family::V4) {
        return Ok(());
    }
    let hashes = name::nftables_comment(job.network, job.ifname(), job.container_id());
    let once = || {
        let (socket, rules) = match read() {
            // Where they cannot be read nobody has written any.
            Err(e) if !kernel::is_passing(&e) => {
                tracing::debug!(error = %e, "no rules of nftables");
                return Ok(Outcome::Done);
            }
            other => other?,
        };
        let own = rules.iter().filter(|rule| comment(rule).is_some_and(|c| c.starts_with(&hashes)));
        let removal = own.filter_map(|rule| kernel::attribute(rule, RULE_HANDLE)).map(|handle| {
            let message = Message::new(DEL_RULE, 0, &HEAD).with_text(TABLE, NAME);
            message.with_text(RULE_CHAIN, CHAIN).with(RULE_HANDLE, handle)
        });
        kernel::commit(&socket, removal.collect())
    };
    kernel::attempt(once).map(|_: Outcome| ())
}

/// Those of all attachments.
fn read() -> io::Result<(Socket, Vec<Vec<u8>>)> {
    let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
    let rules = kernel::rules(&socket, HEAD, NAME, CHAIN)?;
    Ok((socket, rules))
}

fn comment(rule: &[u8]) -> Option<String> {
    let mut rest = kernel::attribute(rule, RULE_USERDATA)?;
    while let [kind, len, behind @ ..] = rest {
        let value = behind.get(..usize::from(*len))?;
        if *kind == USERDATA_COMMENT {
            return Some(crate::netlink::text(value));
        }
        rest = &behind[value.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::kernel::{CHAIN_NAME, NEW_CHAIN, NEW_RULE};
    use super::*;
    use crate::attachment::Attachment;
    use crate::deadline::Deadline;
    use crate::error::Verb;
    use crate::native::masquerade;
    use crate::netlink::NLM_F_CREATE;
    use crate::version::SpecVersion;

    const NEW_TABLE: u16 = DEL_RULE - 8;
    const OWN: &str = "a4861f4ae9f7d238-e65086f8a75535c6";

    /// A rule for each comment, as `nft` writes them.
    fn write(socket: &Socket, comments: &[&str]) -> io::Result<()> {
        let message = |kind| Message::new(kind, NLM_F_CREATE, &HEAD).with_text(TABLE, NAME);
        let mut all = vec![message(NEW_TABLE), message(NEW_CHAIN).with_text(CHAIN_NAME, CHAIN)];
        all.extend(comments.iter().map(|comment| {
            let text = [comment.as_bytes(), &[0]].concat();
            // Another kind comes first.
            let head = [2, 1, 9, USERDATA_COMMENT, u8::try_from(text.len()).unwrap()];
            let data = [&head[..], &text].concat();
            message(NEW_RULE).with_text(RULE_CHAIN, CHAIN).with(RULE_USERDATA, &data)
        }));
        kernel::commit(socket, all).map(drop)
    }

    fn left(socket: &Socket) -> Vec<String> {
        let rules = kernel::rules(socket, HEAD, NAME, CHAIN).unwrap();
        rules.iter().map(|rule| comment(rule).unwrap()).collect()
    }

    fn del() {
        let attachment = Attachment {
            container_id: "abc".into(),
            ifname: "eth0".into(),
            ..Attachment::default()
        };
        let job = Job {
            verb: Verb::Del,
            plugin: "bridge",
            network: "net",
            cni_version: "1.0.0",
            version: SpecVersion::V1_0,
            attachment: &attachment,
            deadline: &Deadline::after(Duration::from_secs(60)),
            is_beside: false,
        };
        masquerade::del(&job, &[]).unwrap();
    }

    #[test]
    fn only_the_attachments_own_go() {
        let look = || {
            if let Err(e) = crate::sys::unshare_network() {
                println!("not tried: a network takes root: {e}");
                return;
            }
            del();
            let socket = Socket::open(Some(rustix::net::netlink::NETFILTER)).unwrap();
            let own = format!("{OWN}, net: net, if: eth0, id: abc");
            let other = format!("{}0, net: net, if: eth1, id: abc", &OWN[..OWN.len() - 1]);
            if let Err(e) = write(&socket, &[&own, &other, &own]) {
                println!("not tried: this kernel has not such tables: {e}");
                return;
            }
            assert_eq!(left(&socket), [&*own, &*other, &*own]);
            for _ in 0..2 {
                del();
                assert_eq!(left(&socket), [&*other]);
            }
        };
        // In a network of its own.
        std::thread::spawn(look).join().unwrap();
    }
}
