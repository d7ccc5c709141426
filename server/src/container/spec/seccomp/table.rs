//! Which system calls the default profile allows, by what they are for.

/// Whatever the capabilities. Looking into processes (the last list) is guarded by the kernel itself since 4.8.
pub(super) const ALWAYS: &[&str] = &[
    // Threads and processes.
    "execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp \
     getpid getppid getsid gettid kill membarrier pidfd_open pidfd_send_signal prctl \
     process_mrelease restart_syscall rseq set_robust_list set_thread_area set_tid_address \
     setpgid setsid tgkill tkill uretprobe vfork wait4 waitid waitpid",
    // Identity, and giving up rights.
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
     getresgid getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules \
     lsm_set_self_attr seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
     setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 \
     setreuid setreuid32 setuid setuid32 umask",
    // Signals.
    "alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
     rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack \
     signalfd signalfd4 sigprocmask sigreturn",
    // Memory.
    "brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
     mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
     pkey_mprotect remap_file_pages",
    // Communication between processes.
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr \
     mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 \
     shmat shmctl shmdt shmget",
    // Sockets; `socket` itself has conditions.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom \
     recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown \
     socketcall socketpair",
    // Waiting, events and asynchronous I/O.
    "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
     epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init \
     inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
     io_pgetevents_time64 io_setup io_submit poll ppoll ppoll_time64 pselect6 pselect6_time64 \
     select",
    // Time.
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
     clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep \
     setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
     timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
     timerfd_settime timerfd_settime64 times",
    // Scheduling, limits, what the system is.
    "getcpu getpriority getrandom getrlimit getrusage ioprio_get ioprio_set prlimit64 \
     sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
     sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
     sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority \
     setrlimit sysinfo ugetrlimit uname",
    // Extended attributes.
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr \
     listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr \
     setxattrat",
    // Looking at files.
    "access faccessat faccessat2 fstat fstat64 fstatat64 fstatfs fstatfs64 getcwd getdents \
     getdents64 listmount lstat lstat64 name_to_handle_at newfstatat readlink readlinkat stat \
     stat64 statfs statfs64 statmount statx",
    // Descriptors.
    "close close_range creat dup dup2 dup3 fcntl fcntl64 flock ioctl open openat openat2 pipe \
     pipe2",
    // Reading and writing.
    "_llseek cachestat copy_file_range fadvise64 fadvise64_64 fallocate fdatasync fsync \
     ftruncate ftruncate64 lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
     readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee truncate \
     truncate64 vmsplice write writev",
    // Directories, names and modes.
    "chdir chmod chown chown32 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
     futimesat lchown lchown32 link linkat mkdir mkdirat mknod mknodat rename renameat \
     renameat2 rmdir symlink symlinkat unlink unlinkat utime utimensat utimensat_time64 utimes",
    // Other processes.
    "process_vm_readv process_vm_writev ptrace",
];

/// Calls that an architecture has for itself, by its name in `std::env::consts::ARCH`.
pub(super) const BY_ARCH: &[(&[&str], &str)] = &[
    (&["x86_64"], "arch_prctl modify_ldt"),
    (&["x86"], "modify_ldt"),
    (
        &["aarch64", "arm"],
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    (&["powerpc64"], "sync_file_range2 swapcontext"),
    (&["s390x"], "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (&["riscv64"], "riscv_flush_icache riscv_hwprobe"),
];

/// Calls that a capability is for.
pub(super) const BY_CAPABILITY: &[(&str, &str)] = &[
    (
        "SYS_ADMIN",
        "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns \
         syslog umount umount2 unshare",
    ),
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    ("SYSLOG", "syslog"),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
];

/// Processes in whatever namespaces, for those who may make some anyway.
pub(super) const UNNAMESPACED: &str = "clone clone3";
