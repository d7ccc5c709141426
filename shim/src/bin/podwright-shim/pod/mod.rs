//! The pod that this shim is for: its namespaces, its containers, and its end.

mod namespaces;
mod shutdown;
mod verbs;

pub(crate) use shutdown::{shutdown, shutdown_sandbox, stop};
pub(crate) use verbs::{create, platform, start, status, wait};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use prost::Name;

use crate::log::Logger;
use crate::publish::Publisher;
use crate::reactor::Once;
use crate::rpc::Failure;
use crate::task::{Birth, Task};
use verbs::Sandbox;

/// Everything the shim knows.
pub(crate) struct Pod {
    pub(crate) id: String,
    /// The daemon's namespace, `k8s.io` for CRI.
    pub(crate) namespace: String,
    /// The shim's own bundle directory.
    pub(crate) dir: PathBuf,
    pub(crate) logger: Rc<Logger>,
    pub(crate) tasks: RefCell<HashMap<String, Rc<Task>>>,
    births: RefCell<HashMap<String, Rc<Birth>>>,
    sandbox: RefCell<Sandbox>,
    /// Set when the pod's life is over, for those who wait for that.
    ended: Once<std::time::SystemTime>,
    publisher: Publisher,
    /// The `oom_score_adj` that a container must not inherit from us, if we lowered our own.
    pub(crate) restore_score: Option<i32>,
    /// The shim exits once the answer under way has been sent.
    pub(crate) over: Cell<bool>,
}

impl Pod {
    pub(crate) fn new(
        id: String,
        namespace: String,
        dir: PathBuf,
        publisher: Publisher,
        restore_score: Option<i32>,
    ) -> Self {
        Self {
            id,
            namespace,
            dir,
            logger: Rc::default(),
            tasks: RefCell::default(),
            births: RefCell::default(),
            sandbox: RefCell::default(),
            ended: Once::default(),
            publisher,
            restore_score,
            over: Cell::new(false),
        }
    }

    /// Claims an id for a container about to be created.
    pub(crate) fn begin_birth(&self, id: &str) -> Result<Rc<Birth>, Failure> {
        let mut births = self.births.borrow_mut();
        if births.contains_key(id) || self.tasks.borrow().contains_key(id) {
            return Err(Failure::exists(format_args!("container {id:?}")));
        }
        let birth = Rc::new(Birth::default());
        births.insert(id.to_owned(), Rc::clone(&birth));
        Ok(birth)
    }

    pub(crate) fn end_birth(&self, id: &str) {
        self.births.borrow_mut().remove(id);
    }

    /// A container that is being created.
    pub(crate) fn birth(&self, id: &str) -> Option<Rc<Birth>> {
        self.births.borrow().get(id).cloned()
    }

    /// Tells the daemon, if it wants to be told.
    pub(crate) fn publish<M: Name>(&self, topic: &'static str, event: impl FnOnce() -> M) {
        self.publisher.publish(topic, event);
    }
}
