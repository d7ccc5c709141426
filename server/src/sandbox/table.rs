//! The objects of one kind: found by their id or the beginning of one, and by a label.
//!
//! A kubelet asks every second for the containers of one pod by its uid; so who carries a label is kept beside.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Labels, as objects carry and clients want them.
type Labels = BTreeMap<String, String>;

/// Objects by id.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// What an object is called in errors.
    what: &'static str,
    labels: fn(&V) -> &Labels,
    rows: BTreeMap<K, Arc<V>>,
    carriers: Carriers<V>,
}

impl<K: Borrow<str> + Ord + Clone, V> Table<K, V> {
    pub(super) fn new(what: &'static str, labels: fn(&V) -> &Labels) -> Self {
        Self { what, labels, rows: BTreeMap::new(), carriers: Carriers::default() }
    }

    /// Adds an object, in the place of one with the same id.
    pub(super) fn insert(&mut self, id: K, object: Arc<V>) {
        self.remove(&id);
        self.carriers.insert((self.labels)(&object), &object);
        self.rows.insert(id, object);
    }

    pub(super) fn remove(&mut self, id: &K) -> Option<Arc<V>> {
        let gone = self.rows.remove::<K>(id)?;
        self.carriers.remove((self.labels)(&gone), &gone);
        Some(gone)
    }

    pub(super) fn get(&self, id: &K) -> Option<&Arc<V>> {
        self.rows.get::<K>(id)
    }

    /// All of them, in the order of their ids.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<V>> {
        self.rows.values()
    }

    /// All that carry these labels and perhaps others, in no order.
    pub(super) fn carrying(&self, wanted: &Labels) -> Vec<Arc<V>> {
        let carries = |one: &&Arc<V>| {
            let labels = (self.labels)(one);
            wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        match self.carriers.candidates(wanted) {
            Some(candidates) => candidates.iter().filter(carries).cloned().collect(),
            None => self.all().cloned().collect(),
        }
    }

    /// The one whose id begins with `prefix`.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if several begin so.
    pub(super) fn by_prefix(&self, prefix: &str) -> Result<&Arc<V>> {
        let what = self.what;
        if prefix.is_empty() {
            return Err(Error::invalid(format!("{what}_id"), "is empty"));
        }
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let rows = self.rows.range::<str, _>(from);
        let mut matches = rows.take_while(|(id, _)| (*id).borrow().starts_with(prefix));
        let (_, found) = matches.next().ok_or_else(|| Error::not_found(what, prefix))?;
        match matches.next() {
            Some(_) => Err(Error::invalid(
                format!("{what}_id"),
                format!("{prefix:?} is the beginning of several ids"),
            )),
            None => Ok(found),
        }
    }
}

/// By the hash of a label's key and value, those that carry it. Others may have the same hash: what comes out are
/// candidates, and the caller compares.
#[derive(Debug)]
struct Carriers<T> {
    hasher: RandomState,
    by_hash: HashMap<u64, Vec<Arc<T>>>,
}

impl<T> Default for Carriers<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), by_hash: HashMap::new() }
    }
}

impl<T> Carriers<T> {
    /// Adds an object. One that is added twice has to be removed twice.
    fn insert(&mut self, labels: &Labels, object: &Arc<T>) {
        for label in labels {
            let hash = self.hasher.hash_one(label);
            self.by_hash.entry(hash).or_default().push(object.clone());
        }
    }

    fn remove(&mut self, labels: &Labels, object: &Arc<T>) {
        for label in labels {
            let hash = self.hasher.hash_one(label);
            let Some(carriers) = self.by_hash.get_mut(&hash) else { continue };
            if let Some(at) = carriers.iter().position(|one| Arc::ptr_eq(one, object)) {
                carriers.swap_remove(at);
            }
            if carriers.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }

    /// All that can carry every label of `wanted`, in no order: those of its rarest label. `None` if it has none.
    fn candidates(&self, wanted: &Labels) -> Option<&[Arc<T>]> {
        let of =
            |label| self.by_hash.get(&self.hasher.hash_one(label)).map_or(&[][..], Vec::as_slice);
        wanted.iter().map(of).min_by_key(|carriers| carriers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn table(rows: &[(&str, Labels)]) -> Table<String, (String, Labels)> {
        let mut table = Table::new("sandbox", |(_, labels): &(String, Labels)| labels);
        for (id, labels) in rows {
            table.insert((*id).to_owned(), Arc::new(((*id).to_owned(), labels.clone())));
        }
        table
    }

    #[test]
    fn whoever_carries_the_labels_is_found() {
        let of = |uid| labels([("app", "web"), ("uid", uid)]);
        let mut table = table(&[("a", of("1")), ("b", of("2")), ("c", of("3")), ("d", labels([]))]);
        let found = |table: &Table<_, (String, Labels)>, wanted| {
            let mut ids: Vec<_> = table.carrying(&wanted).iter().map(|one| one.0.clone()).collect();
            ids.sort();
            ids.concat()
        };
        assert_eq!(found(&table, labels([])), "abcd");
        assert_eq!(found(&table, labels([("app", "web")])), "abc");
        assert_eq!(found(&table, of("2")), "b");
        assert_eq!(found(&table, of("x")), "");
        // Key and value are not one text.
        assert_eq!(found(&table, labels([("appw", "eb")])), "");
        table.insert("b".into(), Arc::new(("b".into(), of("9"))));
        assert_eq!((found(&table, of("2")), found(&table, of("9"))), ("".into(), "b".into()));
        for id in ["a", "b", "c", "d"] {
            assert!(table.remove(&id.to_owned()).is_some());
        }
        assert!(table.carriers.by_hash.is_empty());
    }

    #[test]
    fn ids_are_found_by_their_unique_beginning() {
        let table = table(&[("aaa1", labels([])), ("aaa2", labels([])), ("b", labels([]))]);
        assert_eq!(table.by_prefix("b").unwrap().0, "b");
        assert_eq!(table.by_prefix("aaa2").unwrap().0, "aaa2");
        assert!(matches!(table.by_prefix("zz"), Err(Error::NotFound { .. })));
        for several in ["", "aaa"] {
            assert!(matches!(table.by_prefix(several), Err(Error::Invalid { .. })));
        }
    }
}
