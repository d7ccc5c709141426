//! The seccomp profile that RuntimeDefault stands for.
//!
//! An allow-list; everything else fails with EPERM. What a capability is for is allowed with that capability
//! only, so that the filter never contradicts what the kernel would permit anyway. The lists are ours, equal in
//! effect to what the field's runtimes apply: images have been tested against exactly that.

mod check;
#[cfg(test)]
mod parity;
mod table;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall,
};

use super::caps;
pub(crate) use check::check;
#[cfg(test)]
use check::is_call;
use table::{ALWAYS, BY_ARCH, BY_CAPABILITY, UNNAMESPACED};

const ENOSYS: u32 = 38;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// Execution domains that only change what uname(2) says or how addresses are laid out: Linux, Linux 32-bit,
/// each with UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The profile for a process with these capabilities (bit n for capability n) on `arch`, named as
/// `std::env::consts::ARCH` does.
pub(super) fn default_profile(capabilities: u64, arch: &str) -> LinuxSeccomp {
    let mut rules = vec![allow(words(ALWAYS))];
    rules.extend(conditional());
    let of_arch = BY_ARCH.iter().filter(|(names, _)| names.contains(&arch));
    rules.extend(of_arch.map(|(_, calls)| allow(words(&[*calls]))));
    let granted = BY_CAPABILITY.iter().filter(|(cap, _)| caps::has(capabilities, cap));
    rules.extend(granted.map(|(_, calls)| allow(words(&[*calls]))));
    if caps::has(capabilities, "SYS_ADMIN") {
        rules.push(allow(words(&[UNNAMESPACED])));
    } else {
        rules.extend(without_namespaces(arch));
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_architectures(Some(architectures(arch)))
        .set_syscalls(Some(rules));
    profile
}

/// Sockets of all families but AF_ALG and AF_VSOCK, which reach beyond the network namespace. Three rules of
/// one comparison each, since runtimes take several comparisons of one argument for alternatives.
fn conditional() -> impl Iterator<Item = LinuxSyscall> {
    let socket = [(Op::ScmpCmpLt, AF_ALG), (Op::ScmpCmpEq, AF_ALG + 1), (Op::ScmpCmpGt, AF_VSOCK)]
        .map(|(op, value)| allow_if("socket", argument(0, op, value, None)));
    let personality = PERSONALITIES
        .map(|domain| allow_if("personality", argument(0, Op::ScmpCmpEq, domain, None)));
    socket.into_iter().chain(personality)
}

/// Threads and processes, but no namespaces. clone3 hides its flags behind a pointer: ENOSYS makes libc fall
/// back on clone.
fn without_namespaces(arch: &str) -> [LinuxSyscall; 2] {
    let flags = usize::from(arch == "s390x");
    let clone = argument(flags, Op::ScmpCmpMaskedEq, NEW_NAMESPACES, Some(0));
    let mut clone3 = LinuxSyscall::default();
    clone3
        .set_names(vec!["clone3".into()])
        .set_action(Action::ScmpActErrno)
        .set_errno_ret(Some(ENOSYS));
    [allow_if("clone", clone), clone3]
}

/// The native one and those whose programs the kernel runs beside it.
fn architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchArm, Arch::ScmpArchAarch64],
        "s390x" => vec![Arch::ScmpArchS390, Arch::ScmpArchS390x],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "loongarch64" => vec![Arch::ScmpArchLoongarch64],
        // None listed is the native one alone.
        _ => vec![],
    }
}

fn words(lists: &[&str]) -> Vec<String> {
    lists.iter().flat_map(|list| list.split_whitespace()).map(str::to_owned).collect()
}

fn allow(names: Vec<String>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(Action::ScmpActAllow);
    rule
}

fn allow_if(name: &str, argument: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow(vec![name.to_owned()]);
    rule.set_args(Some(vec![argument]));
    rule
}

/// `masked`: for `Op::ScmpCmpMaskedEq`, `value` is the mask and this what must be left under it.
fn argument(index: usize, op: Op, value: u64, masked: Option<u64>) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let argument = match masked {
        Some(masked) => argument.value_two(masked),
        None => argument,
    };
    argument.build().expect("every field of it has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names allowed whatever their arguments.
    fn allowed(capabilities: u64, arch: &str) -> Vec<String> {
        let profile = default_profile(capabilities, arch);
        let rules = profile.syscalls().clone().unwrap();
        rules
            .iter()
            .filter(|rule| rule.action() == Action::ScmpActAllow && rule.args().is_none())
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    fn bit(name: &str) -> u64 {
        (0..64).map(|n| 1 << n).find(|mask| caps::has(*mask, name)).unwrap()
    }

    #[test]
    fn nothing_that_reaches_out_of_a_container_without_its_capability() {
        let plain = allowed(0, "x86_64");
        for call in [
            "mount",
            "umount2",
            "pivot_root",
            "setns",
            "unshare",
            "clone",
            "clone3",
            "bpf",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "open_by_handle_at",
            "perf_event_open",
            "swapon",
            "reboot",
            "chroot",
            "socket",
            "personality",
            "fsopen",
            "move_mount",
            "quotactl",
            "nfsservctl",
            "vm86",
            "iopl",
            "settimeofday",
            "vhangup",
            "mbind",
            "syslog",
            "acct",
        ] {
            assert!(!plain.iter().any(|name| name == call), "{call}");
        }
        for call in
            ["read", "openat2", "execve", "ptrace", "clock_gettime64", "futex_waitv", "arch_prctl"]
        {
            assert!(plain.iter().any(|name| name == call), "{call}");
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        for (cap, call) in [
            ("SYS_ADMIN", "mount"),
            ("SYS_ADMIN", "clone3"),
            ("SYS_CHROOT", "chroot"),
            ("SYS_MODULE", "finit_module"),
            ("SYS_TIME", "clock_settime"),
            ("DAC_READ_SEARCH", "open_by_handle_at"),
            ("SYS_NICE", "mbind"),
            ("BPF", "bpf"),
            ("SYSLOG", "syslog"),
        ] {
            assert!(allowed(bit(cap), "x86_64").iter().any(|name| name == call), "{cap} {call}");
        }
    }

    #[test]
    fn no_call_is_listed_twice_and_all_are_names() {
        let mut all = words(ALWAYS);
        assert_eq!(all.len(), 366);
        assert!(
            all.iter().all(|n| n
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 366);
    }

    #[test]
    fn clone_is_filtered_by_its_flags_where_they_are() {
        for (arch, index) in [("x86_64", 0), ("s390x", 1)] {
            let profile = default_profile(0, arch);
            let rules = profile.syscalls().clone().unwrap();
            let clone = rules.iter().find(|rule| rule.names() == &["clone"]).unwrap();
            assert_eq!(clone.args().as_ref().unwrap()[0].index(), index);
            let clone3 = rules.iter().find(|rule| rule.names() == &["clone3"]).unwrap();
            assert_eq!((clone3.action(), clone3.errno_ret()), (Action::ScmpActErrno, Some(ENOSYS)));
        }
    }
}
