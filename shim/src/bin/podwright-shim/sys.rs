//! The few system calls that neither `std` nor `rustix` offers as safe functions.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Blocks the given signals in this thread (threads started later inherit that) and returns a
/// non-blocking descriptor that becomes readable when one of them is pending.
pub(crate) fn signal_descriptor(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is an initialised signal set that outlives both calls; a null old set is
    // allowed; the descriptor returned by signalfd is new, so we are its only owner.
    unsafe {
        let errno = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Unblocks every signal and gives each its default disposition, as a program that is about to
/// become another one should. Straight from the kernel: libc hides two signals of its own, which
/// its `posix_spawn` leaves ignored.
pub(crate) fn reset_signals() {
    let none = signal_set(&[]);
    // The kernel's form of an action is four words at most; all zeroes is SIG_DFL.
    let default = [0_u64; 4];
    // SAFETY: `none` is an initialised set and `default` outlives the calls, which read it as an
    // action and write nothing; those that the kernel refuses (SIGKILL, SIGSTOP) change nothing.
    unsafe {
        for signal in 1..=64 {
            let (action, old) = (default.as_ptr(), std::ptr::null::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, signal, action, old, size_of::<u64>());
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: all zeroes is a valid bit pattern of `sigset_t` (plain integers), and sigemptyset
    // and sigaddset only write inside the set they are given.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Closes every descriptor from `first` on. Only for a process that owns none of them in Rust
/// values it will still use: a stage before it execs, or a shim at its very start.
pub(crate) fn close_from(first: u32) {
    // SAFETY: plain integers; the callers' contract above is that no live `OwnedFd` lies in the
    // range, so nothing is closed under someone's feet.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
}

/// Moves the calling process into new namespaces (or starts them for its children).
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integer argument. The callers are single-threaded stages and pass only
    // CLONE_NEW* flags, so no memory or descriptor table that Rust relies on is unshared.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `kill(2)` with any signal number, real-time ones included; 0 only checks that it exists.
pub(crate) fn kill(pid: u32, signal: u32) -> io::Result<()> {
    let (Ok(pid @ 1..), Ok(signal)) = (i32::try_from(pid), i32::try_from(signal)) else {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    };
    // SAFETY: plain integers; the pid is positive, so no process group is meant.
    if unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Replaces this process by the program in `program`, with one argument and no environment.
/// Returns only if that did not work.
pub(crate) fn exec_descriptor(program: BorrowedFd<'_>, name: &CStr) -> io::Error {
    let arguments = [name.as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    // SAFETY: the path is an empty C string, both arrays end with a null pointer and hold valid
    // C strings that live across the call, and the descriptor is open.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Numbers that are the first bytes of a file, for whoever reads it.
pub(crate) struct Mapped<const N: usize>(NonNull<[AtomicU64; N]>);

impl<const N: usize> Mapped<N> {
    /// Maps the beginning of a file, which was written to that length and never gets shorter.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        let (len, access) = (size_of::<[AtomicU64; N]>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the kernel chooses the address, so nothing that is there is replaced; the descriptor is open.
        let at = unsafe {
            let fd = file.as_raw_fd();
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0)
        };
        match NonNull::new(at) {
            Some(at) if at.as_ptr() != libc::MAP_FAILED => Ok(Self(at.cast())),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl<const N: usize> Deref for Mapped<N> {
    type Target = [AtomicU64; N];

    fn deref(&self) -> &Self::Target {
        // SAFETY: the mapping begins at a page, is as long as the array, and is there until `self` is dropped; every
        // pattern of bits is a number, and others change them only as whole processes that map the file, atomically.
        unsafe { self.0.as_ref() }
    }
}

impl<const N: usize> Drop for Mapped<N> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this address and length, and no reference into it outlives `self`.
        unsafe {
            libc::munmap(self.0.as_ptr().cast(), size_of::<[AtomicU64; N]>());
        }
    }
}

// SAFETY: memory that is reached through atomic numbers alone, from any thread; unmapping is no thread's own either.
unsafe impl<const N: usize> Send for Mapped<N> {}
// SAFETY: as for `Send`.
unsafe impl<const N: usize> Sync for Mapped<N> {}

/// Gives free memory back to the kernel, pages in the middle of the heap included.
pub(crate) fn trim_memory() {
    // SAFETY: malloc_trim changes nothing that is allocated, and takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps the allocator to one arena and lets it give memory back early: the headline figure of
/// this program is how little it holds while nothing happens.
pub(crate) fn tune_allocator() {
    // SAFETY: mallopt only sets parameters of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 4 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * 1024);
    }
}
