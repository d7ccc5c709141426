//! The harness: a real daemon, a real registry and real runtimes in private namespaces.
#![forbid(unsafe_code)]
