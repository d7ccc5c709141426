//! A FUSE file system that answers the kernel's greeting and then nothing: whoever touches it waits until this
//! process ends. Only what the greeting needs of the protocol is here (linux/fuse.h).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::Context;
use rustix::mount::{MountFlags, mount};

/// The kernel does not give a request to a smaller buffer.
const MAX_REQUEST: usize = (1 << 20) + 4096;
const FUSE_INIT: u32 = 26;
/// Version 7.22: before it the answer is shorter, and newer kernels still speak it.
const VERSION: [u32; 2] = [7, 22];
/// Length of `fuse_in_header`; the version of the kernel follows it.
const HEADER: usize = 40;

/// Mounts at `dir`, says `ready` and reads requests for ever.
pub fn serve(dir: &Path) -> anyhow::Result<()> {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options)?;
    mount("hang", dir, "fuse", MountFlags::empty(), options.as_c_str()).context("mount")?;
    let mut request = vec![0; MAX_REQUEST];
    loop {
        let length = device.read(&mut request)?;
        let header = request.get(..length.max(HEADER)).context("a request")?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        if word(4) == FUSE_INIT {
            greet(&mut device, &header[8..16])?;
            writeln!(std::io::stdout(), "ready")?;
        }
    }
}

fn greet(device: &mut File, unique: &[u8]) -> std::io::Result<()> {
    /// Of `fuse_out_header` and `fuse_init_out` in that version.
    const ANSWER: usize = 16 + 24;
    let mut answer = Vec::with_capacity(ANSWER);
    answer.extend_from_slice(&40_u32.to_ne_bytes());
    answer.extend_from_slice(&0_i32.to_ne_bytes());
    answer.extend_from_slice(unique);
    // Version, read-ahead, flags, background requests and when they count as many, the largest write.
    let rest = [VERSION[0], VERSION[1], 4096, 0, (12 << 16) | 16, 4096];
    rest.iter().for_each(|word| answer.extend_from_slice(&word.to_ne_bytes()));
    device.write_all(&answer)
}
