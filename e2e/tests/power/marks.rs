//! What was answered, and when, by the disk's clock: its position.

use std::collections::{BTreeMap, BTreeSet};

/// Something that a client was told of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    Image(String),
    Pod(String),
    Container(String),
    /// The exit code of a container that somebody saw.
    Exit(String, i32),
}

/// A call that made a thing be there, or not be there.
#[derive(Debug, Clone, Copy)]
struct Mark {
    there: bool,
    /// Positions before the call and after its answer.
    began: u64,
    answered: u64,
}

/// All calls of a recording.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<Thing, Vec<Mark>>);

impl Marks {
    pub(crate) fn add(&mut self, thing: Thing, there: bool, began: u64, answered: u64) {
        self.0.entry(thing).or_default().push(Mark { there, began, answered });
    }

    /// What has to hold of a thing after a cut at a position; `None`: either, since a call was under way.
    fn wanted(marks: &[Mark], at: u64) -> Option<bool> {
        if marks.iter().any(|mark| mark.began < at && mark.answered > at) {
            return None;
        }
        let last = marks.iter().filter(|mark| mark.answered <= at).max_by_key(|mark| mark.answered);
        Some(last.is_some_and(|mark| mark.there))
    }

    /// What was answered before the cut and does not hold: too little, or too much.
    pub(crate) fn violations(&self, at: u64, found: &BTreeSet<Thing>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (thing, marks) in &self.0 {
            match (Self::wanted(marks, at), found.contains(thing)) {
                (Some(true), false) => wrong.push(format!("lost: {thing:?}")),
                (Some(false), true) => wrong.push(format!("came back: {thing:?}")),
                _ => {}
            }
        }
        let unknown = found.iter().filter(|thing| !self.0.contains_key(*thing));
        wrong.extend(unknown.map(|thing| format!("nobody was told of it: {thing:?}")));
        wrong
    }
}

#[test]
fn what_was_under_way_may_be_there_or_not() {
    let mut marks = Marks::default();
    let thing = Thing::Pod("a".into());
    marks.add(thing.clone(), true, 10, 20);
    marks.add(thing.clone(), false, 30, 40);
    let (none, some) = (BTreeSet::new(), BTreeSet::from([thing]));
    for (at, absent, present) in
        [(10, 0, 1), (15, 0, 0), (20, 1, 0), (30, 1, 0), (31, 0, 0), (40, 0, 1)]
    {
        assert_eq!(marks.violations(at, &none).len(), absent, "absent at {at}");
        assert_eq!(marks.violations(at, &some).len(), present, "present at {at}");
    }
}
