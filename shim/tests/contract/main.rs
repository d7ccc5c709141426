//! podwright-shim against the kernel and a real OCI runtime.
//!
//! Needs root. `PODWRIGHT_TEST_RUNTIME` names the runtime (default: the runc of `./dev`, else of PATH), `PODWRIGHT_SHIM` the
//! shim (default: the one cargo has built). Each test has a pod of its own and ends with the
//! leak check: no process, mount, cgroup or runtime state that was not there before.

#![allow(missing_docs)]

mod bundle;
mod cleanup;
mod containerd;
mod environment;
mod exec;
mod lifecycle;
mod logs;
mod measure;
mod oom;
mod pod;
mod sandbox;
mod survive;
mod terminal;
