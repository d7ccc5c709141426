//! The init of a shared pid namespace: process 1 of a pod.
//!
//! It ignores SIGCHLD, so the kernel reaps every orphan by itself, and sleeps until it is
//! killed. Compiled by `build.rs`, without std or libc, into a few hundred bytes that
//! `podwright-shim` carries along and runs from a sealed memory file.

#![no_std]
#![no_main]

use core::arch::asm;

const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const PR_SET_DUMPABLE: usize = 4;
const PR_SET_NAME: usize = 15;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGACTION: usize = 13;
    pub const PPOLL: usize = 271;
    pub const PRCTL: usize = 157;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const RT_SIGACTION: usize = 134;
    pub const PPOLL: usize = 73;
    pub const PRCTL: usize = 167;
}

/// The kernel's view of a signal's disposition.
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

fn call(number: usize, arguments: [usize; 5]) -> usize {
    let [a, b, c, d, e] = arguments;
    let result: usize;
    // SAFETY: a system call with the kernel's calling convention: all registers it may change
    // are named as outputs or clobbers. The three calls made below read at most the `Action`
    // and the name that outlive them, and write no memory of ours.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above, for the other architecture.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c,
            in("x3") d, in("x4") e, options(nostack));
    }
    result
}

/// Where the kernel begins. Nothing is on the stack that we need, and we never return.
// SAFETY: `_start` is the entry point that the linker looks for; no library defines another.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let ignore = Action { handler: SIG_IGN, flags: 0, restorer: 0, mask: 0 };
    call(number::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0]);
    call(number::PRCTL, [PR_SET_NAME, c"podwright-init".as_ptr() as usize, 0, 0, 0]);
    call(number::RT_SIGACTION, [SIGCHLD, &raw const ignore as usize, 0, size_of::<u64>(), 0]);
    loop {
        // For ever: no descriptors, no time limit, and no signal that would be handled.
        call(number::PPOLL, [0, 0, 0, 0, 0]);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
