//! Writes rules over netlink, where `iptables` of the node is of the kind that is built on nf_tables: no process is
//! started.
//!
//! Only what is beyond doubt is done here, and only what belongs to one pod. Where a chain or a rule that all pods
//! share is not there, or not recognised, nothing is done and [`Outcome::Doubtful`] says so.

use std::collections::{HashMap, HashSet};
use std::io;

use super::expression::{self, Expression};
use super::flow::{HEAD_LEN, head};
use super::{Addition, Family, Protocol, Removal, Rule, Step, Table};
use crate::netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Socket, attributes};

/// `NFNL_SUBSYS_NFTABLES`, as the upper half of a message's kind.
const NFTABLES: u16 = 10 << 8;
pub(super) const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const DEL_CHAIN: u16 = NFTABLES | 5;
pub(super) const NEW_RULE: u16 = NFTABLES | 6;
pub(super) const GET_RULE: u16 = NFTABLES | 7;
pub(super) const DEL_RULE: u16 = NFTABLES | 8;
const BEGIN: u16 = 16;
const END: u16 = 17;
/// At the end of the chain, not at its beginning.
const NLM_F_APPEND: u16 = 0x800;

pub(super) const TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_COMPAT: u16 = 5;
const COMPAT_PROTOCOL: u16 = 1;
const COMPAT_FLAGS: u16 = 2;
/// How often it is tried anew when others have changed the table meanwhile.
const TRIES: u32 = 3;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Another way has to find out.
    Doubtful,
}

pub(crate) fn add(addition: &Addition) -> io::Result<Outcome> {
    attempt(|| {
        let tables = Tables::open(addition.table, addition.family)?;
        let Some(messages) = tables.missing(addition)? else { return Ok(Outcome::Doubtful) };
        commit(&tables.socket, messages)
    })
}

/// Where nobody else can find out, `may_doubt` is not so, and what is not recognised stays.
pub(crate) fn remove(removal: &Removal, may_doubt: bool) -> io::Result<Outcome> {
    attempt(|| {
        let tables = Tables::open(removal.table, removal.family)?;
        let Some(messages) = tables.present(removal, may_doubt)? else {
            return Ok(Outcome::Doubtful);
        };
        commit(&tables.socket, messages)
    })
}

/// Are any of these chains there?
pub(crate) fn has_any(table: Table, family: Family, chains: &[String]) -> io::Result<bool> {
    let tables = Tables::open(table, family)?;
    chains.iter().try_fold(false, |found, chain| Ok(found || tables.has_chain(chain)?))
}

/// What was there when it was read may be gone, and the other way round.
pub(super) fn attempt(once: impl Fn() -> io::Result<Outcome>) -> io::Result<Outcome> {
    let mut tries = 0;
    loop {
        tries += 1;
        match once() {
            Err(e) if tries < TRIES && is_passing(&e) => {}
            other => return other,
        }
    }
}

/// Worth another try.
pub(super) fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::ENOENT | libc::EEXIST | libc::EBUSY | libc::EINTR | libc::EAGAIN)
    )
}

/// A rule of the kernel's.
struct Found {
    handle: Vec<u8>,
    expressions: Vec<Expression>,
}

/// One table of one family.
struct Tables {
    socket: Socket,
    table: Table,
    family: Family,
}

impl Tables {
    fn open(table: Table, family: Family) -> io::Result<Self> {
        let socket = Socket::open(Some(rustix::net::netlink::NETFILTER))?;
        Ok(Self { socket, table, family })
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        Message::new(kind, flags, &head(self.family)).with_text(TABLE, self.table.name())
    }

    fn has_chain(&self, name: &str) -> io::Result<bool> {
        match self.socket.ask(self.message(GET_CHAIN, 0).with_text(CHAIN_NAME, name)) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// None if there is no such chain, or nothing in it.
    fn rules(&self, chain: &str) -> io::Result<Vec<Found>> {
        let head = head(self.family);
        let bodies = rules(&self.socket, head, self.table.name(), chain)?;
        let found = |body: &Vec<u8>| {
            let expressions = attribute(body, RULE_EXPRESSIONS).unwrap_or_default();
            let handle = attribute(body, RULE_HANDLE)?.to_vec();
            Some(Found { handle, expressions: expression::parse(expressions) })
        };
        Ok(bodies.iter().filter_map(found).collect())
    }

    /// The requests that do what is missing; none if there is a doubt about it.
    fn missing(&self, addition: &Addition) -> io::Result<Option<Vec<Message>>> {
        let mut messages = Vec::new();
        let mut fresh: HashSet<&str> = HashSet::new();
        let mut known: HashMap<&str, Vec<Found>> = HashMap::new();
        let mut added: Vec<&Step> = Vec::new();
        for step in &addition.steps {
            let (chain, rule, place) = match step {
                // Two that find it missing would both lead to it, so it is made where one waits for the other.
                Step::Chain(name) if !self.has_chain(name)? => return Ok(None),
                Step::Chain(_) => continue,
                Step::Own(name) => {
                    if !fresh.contains(name.as_str()) && !self.has_chain(name)? {
                        fresh.insert(name);
                        let flags = NLM_F_CREATE | NLM_F_EXCL;
                        messages.push(self.message(NEW_CHAIN, flags).with_text(CHAIN_NAME, name));
                    }
                    continue;
                }
                Step::First(chain, rule) => (chain.as_str(), rule, 0),
                Step::Last(chain, rule) => (chain.as_str(), rule, NLM_F_APPEND),
            };
            if added.contains(&step) {
                continue;
            }
            // In a chain that is being made there is nothing, and nothing leads to one.
            let is_new =
                fresh.contains(chain) || rule.leads_to().is_some_and(|to| fresh.contains(to));
            if !is_new {
                if !known.contains_key(chain) {
                    known.insert(chain, self.rules(chain)?);
                }
                let same = |found: &Found| expression::same(&found.expressions, rule, self.family);
                if known[chain].iter().any(same) {
                    continue;
                }
                if rule.is_variable() {
                    return Ok(None);
                }
            }
            let Some(message) = self.new_rule(chain, rule, place) else { return Ok(None) };
            added.push(step);
            messages.push(message);
        }
        Ok(Some(messages))
    }

    fn new_rule(&self, chain: &str, rule: &Rule, place: u16) -> Option<Message> {
        let expressions = expression::of(rule, self.family)?;
        let message = self.message(NEW_RULE, NLM_F_CREATE | place).with_text(RULE_CHAIN, chain);
        let message =
            message.with_nested(RULE_EXPRESSIONS, |list| expression::put(&expressions, list));
        let protocol = u32::from(rule.protocol.map_or(0, Protocol::number));
        Some(message.with_nested(RULE_COMPAT, |compat| {
            compat
                .with(COMPAT_PROTOCOL, &protocol.to_be_bytes())
                .with(COMPAT_FLAGS, &0u32.to_be_bytes())
        }))
    }

    /// The requests that take away what is there; none if there is a doubt about it.
    fn present(&self, removal: &Removal, may_doubt: bool) -> io::Result<Option<Vec<Message>>> {
        let mut messages = Vec::new();
        for (chain, entry) in &removal.chains {
            if !self.has_chain(chain)? {
                continue;
            }
            let leads =
                |found: &&Found| expression::leads_to(&found.expressions).as_deref() == Some(chain);
            for found in self.rules(entry)?.iter().filter(leads) {
                messages.push(self.del_rule(entry, &found.handle));
            }
            messages.push(self.message(DEL_RULE, 0).with_text(RULE_CHAIN, chain));
            messages.push(self.message(DEL_CHAIN, 0).with_text(CHAIN_NAME, chain));
        }
        let mut known: HashMap<&str, Vec<Found>> = HashMap::new();
        for (chain, rule) in &removal.rules {
            if !known.contains_key(chain) {
                known.insert(chain, self.rules(chain)?);
            }
            let same = |found: &Found| expression::same(&found.expressions, rule, self.family);
            match known[chain].iter().find(|found| same(found)) {
                Some(found) => messages.push(self.del_rule(chain, &found.handle)),
                // It may be there in a form that is not known here.
                None if may_doubt && !known[chain].is_empty() => return Ok(None),
                None => {}
            }
        }
        Ok(Some(messages))
    }

    fn del_rule(&self, chain: &str, handle: &[u8]) -> Message {
        self.message(DEL_RULE, 0).with_text(RULE_CHAIN, chain).with(RULE_HANDLE, handle)
    }
}

pub(super) fn attribute(body: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(body, HEAD_LEN).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A chain's rules, as the kernel tells them; none if there is no such chain.
pub(super) fn rules(
    socket: &Socket,
    head: [u8; HEAD_LEN],
    table: &str,
    chain: &str,
) -> io::Result<Vec<Vec<u8>>> {
    let message = Message::new(GET_RULE, NLM_F_DUMP, &head).with_text(TABLE, table);
    let mut bodies = match socket.ask(message.with_text(RULE_CHAIN, chain)) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
        other => other?,
    };
    // Older kernels give the rules of every chain.
    let is = |body: &[u8], kind, name| {
        attribute(body, kind).is_some_and(|value| crate::netlink::text(value) == name)
    };
    bodies.retain(|body| is(body, RULE_CHAIN, chain) && is(body, TABLE, table));
    Ok(bodies)
}

/// All of it, or nothing.
pub(super) fn commit(socket: &Socket, messages: Vec<Message>) -> io::Result<Outcome> {
    if messages.is_empty() {
        return Ok(Outcome::Done);
    }
    // Of no family, and the subsystem where others have nothing.
    let mut edge = [0; HEAD_LEN];
    edge[2..].copy_from_slice(&(NFTABLES >> 8).to_be_bytes());
    let last = messages.len() - 1;
    let mut all = vec![Message::new(BEGIN, 0, &edge).quiet()];
    let quiet = |(at, message): (usize, Message)| {
        if at == last { message } else { message.quiet() }
    };
    all.extend(messages.into_iter().enumerate().map(quiet));
    all.push(Message::new(END, 0, &edge).quiet());
    socket.transact(&all)?;
    Ok(Outcome::Done)
}
