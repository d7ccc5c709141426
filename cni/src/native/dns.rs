//! The key `dns`: the resolver configuration that a network recommends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys;
use crate::config::Fields;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Dns {
    #[serde(skip_serializing_if = "is_none_or_empty")]
    nameservers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    domain: String,
    #[serde(skip_serializing_if = "is_none_or_empty")]
    search: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_none_or_empty")]
    options: Option<Vec<String>>,
}

fn is_none_or_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// As it is to be printed; `Some(None)` where what the addresses came with counts.
#[allow(clippy::option_option, reason = "not understood, and not there, are two things")]
pub(crate) fn parse(fields: &Fields) -> Option<Option<Value>> {
    let Some(dns) = keys::get::<Dns>(fields, "dns")? else { return Some(None) };
    let lists = [&dns.nameservers, &dns.search, &dns.options];
    let says = !dns.domain.is_empty() || lists.iter().any(|list| list.is_some());
    if !says {
        return Some(None);
    }
    serde_json::to_value(&dns).ok().map(Some)
}
