//! What `top` knows, and how messages change it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use crate::usage::PodUsage;

/// Readings that are remembered of a pod: two minutes' worth.
const REMEMBERED: usize = 60;

/// By what pods are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Cpu,
    Memory,
    Name,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort(Sort),
    Reverse,
    Pause,
    Up,
    Down,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Told(Vec<PodUsage>),
    Failed(String),
    Key(Key),
    /// Nothing changes but what is seen.
    Resized,
}

/// What a pod used, the latest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    pub(super) nano_cores: VecDeque<u64>,
    pub(super) memory: VecDeque<u64>,
}

impl History {
    fn add(&mut self, usage: &PodUsage) {
        for (values, value) in
            [(&mut self.nano_cores, usage.nano_cores), (&mut self.memory, usage.memory)]
        {
            if values.len() == REMEMBERED {
                values.pop_front();
            }
            values.push_back(value);
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pods: Vec<PodUsage>,
    history: BTreeMap<String, History>,
    sort: Sort,
    reversed: bool,
    paused: bool,
    /// By its id, so that it stays when others move.
    selected: Option<String>,
    trouble: Option<String>,
    over: bool,
}

impl Model {
    pub(super) fn update(&mut self, message: Message) {
        match message {
            Message::Told(pods) => {
                self.trouble = None;
                if !self.paused {
                    self.told(pods);
                }
            }
            // What was told last stays to be seen.
            Message::Failed(why) => self.trouble = Some(why),
            Message::Key(key) => self.obey(key),
            Message::Resized => {}
        }
    }

    fn told(&mut self, pods: Vec<PodUsage>) {
        self.history.retain(|id, _| pods.iter().any(|pod| pod.id == *id));
        for pod in &pods {
            self.history.entry(pod.id.clone()).or_default().add(pod);
        }
        if self.selected.as_ref().is_some_and(|id| !self.history.contains_key(id)) {
            self.selected = None;
        }
        self.pods = pods;
        self.order();
    }

    fn obey(&mut self, key: Key) {
        match key {
            Key::Quit => self.over = true,
            Key::Sort(sort) => (self.sort, self.reversed) = (sort, false),
            Key::Reverse => self.reversed = !self.reversed,
            Key::Pause => self.paused = !self.paused,
            Key::Up => self.select(|at| at.saturating_sub(1)),
            Key::Down => self.select(|at| at + 1),
        }
        self.order();
    }

    fn select(&mut self, to: impl Fn(usize) -> usize) {
        let next = self.selected_at().map_or(0, to).min(self.pods.len().saturating_sub(1));
        self.selected = self.pods.get(next).map(|pod| pod.id.clone());
    }

    /// Pods that are equal keep an order that does not change from one reading to the next.
    fn order(&mut self) {
        let sort = self.sort;
        let by = |a: &PodUsage, b: &PodUsage| -> Ordering {
            let first = match sort {
                Sort::Cpu => b.nano_cores.cmp(&a.nano_cores),
                Sort::Memory => b.memory.cmp(&a.memory),
                Sort::Name => Ordering::Equal,
            };
            first.then_with(|| a.name.cmp(&b.name)).then_with(|| a.id.cmp(&b.id))
        };
        self.pods.sort_by(by);
        if self.reversed {
            self.pods.reverse();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn pods(&self) -> &[PodUsage] {
        &self.pods
    }

    pub(super) fn history(&self, pod: &PodUsage) -> Option<&History> {
        self.history.get(&pod.id)
    }

    pub(super) fn sort(&self) -> (Sort, bool) {
        (self.sort, self.reversed)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The place of the pod that is selected.
    pub(super) fn selected_at(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.pods.iter().position(|pod| pod.id == *selected)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn pod(name: &str, nano_cores: u64, memory: u64) -> PodUsage {
        PodUsage { id: format!("id-{name}"), name: name.into(), containers: 1, nano_cores, memory }
    }

    fn names(model: &Model) -> Vec<&str> {
        model.pods().iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn keys_sort_and_turn_around() {
        let mut model = Model::default();
        model.update(Message::Told(vec![pod("b", 1, 9), pod("a", 1, 5), pod("c", 3, 7)]));
        assert_eq!(names(&model), ["c", "a", "b"]);
        model.update(Message::Key(Key::Sort(Sort::Memory)));
        assert_eq!(names(&model), ["b", "c", "a"]);
        model.update(Message::Key(Key::Reverse));
        assert_eq!(names(&model), ["a", "c", "b"]);
        model.update(Message::Key(Key::Sort(Sort::Name)));
        assert_eq!(names(&model), ["a", "b", "c"]);
        assert!(!model.is_over());
        model.update(Message::Key(Key::Quit));
        assert!(model.is_over());
    }

    #[test]
    fn what_is_selected_stays_selected_while_it_is_there() {
        let mut model = Model::default();
        model.update(Message::Key(Key::Down));
        assert_eq!(model.selected_at(), None);
        model.update(Message::Told(vec![pod("a", 9, 0), pod("b", 5, 0)]));
        model.update(Message::Key(Key::Down));
        model.update(Message::Key(Key::Down));
        model.update(Message::Key(Key::Down));
        assert_eq!(model.selected_at(), Some(1));
        model.update(Message::Told(vec![pod("a", 1, 0), pod("b", 5, 0)]));
        assert_eq!(model.selected_at(), Some(0), "it moved, and the selection with it");
        model.update(Message::Told(vec![pod("a", 1, 0)]));
        assert_eq!(model.selected_at(), None);
    }

    #[test]
    fn a_history_has_an_end_and_goes_with_its_pod() {
        let mut model = Model::default();
        for at in 0..REMEMBERED as u64 + 5 {
            model.update(Message::Told(vec![pod("a", at, 2 * at)]));
        }
        let history = model.history(&pod("a", 0, 0)).unwrap();
        assert_eq!((history.nano_cores.len(), history.nano_cores[0]), (REMEMBERED, 5));
        assert_eq!(history.memory.back(), Some(&(2 * (REMEMBERED as u64 + 4))));
        model.update(Message::Told(Vec::new()));
        assert_eq!(model.history(&pod("a", 0, 0)), None);
    }

    #[test]
    fn a_pause_and_a_failure_leave_what_is_seen() {
        let mut model = Model::default();
        model.update(Message::Told(vec![pod("a", 1, 1)]));
        model.update(Message::Failed("gone".into()));
        assert_eq!((names(&model), model.trouble()), (vec!["a"], Some("gone")));
        model.update(Message::Key(Key::Pause));
        model.update(Message::Told(vec![pod("b", 1, 1)]));
        assert_eq!((names(&model), model.trouble()), (vec!["a"], None));
        model.update(Message::Key(Key::Pause));
        model.update(Message::Told(vec![pod("b", 1, 1)]));
        assert_eq!(names(&model), ["b"]);
    }
}
