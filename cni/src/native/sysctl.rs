//! Kernel parameters of the calling thread's network namespace.

use std::fs;
use std::io;

/// The value of `net/…`.
pub(crate) fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim_end().to_owned())
}

pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

/// Writes what is not so already.
pub(crate) fn ensure(name: &str, value: &str) -> io::Result<()> {
    match read(name) {
        Ok(now) if now == value => Ok(()),
        _ => write(name, value),
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}
