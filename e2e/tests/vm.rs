//! The scripts behind `./dev vm-test`: what they say, and, where `PODWRIGHT_VM` is set, that a machine does what its
//! command's status, output and files say.
#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn they_are_scripts() {
    for name in ["vm", "vm-test", "vm-node", "vm-some"] {
        let checked = Command::new("bash").arg("-n").arg(script(name)).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", text(&checked.stderr));
    }
    let wrong = Command::new(script("vm")).arg("-z").output().unwrap();
    assert_eq!(wrong.status.code(), Some(125));
    assert!(text(&wrong.stderr).contains("vm: runs one command"), "{}", text(&wrong.stderr));
}

#[test]
fn every_skip_has_a_machine_a_name_and_a_reason() {
    let listed = std::fs::read_to_string(script("vm-skips")).unwrap();
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(
            ["all", "apparmor", "selinux", "cgroupfs", "systemd"].contains(&words[0])
                && words.len() > 3,
            "{line}"
        );
    }
}

fn table(apparmor: &str, selinux: &str, systemd: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let files = ["listed", "apparmor_cgroupfs", "selinux_cgroupfs", "apparmor_systemd"];
    let listed = "skipped apparmor_cgroupfs mounts::x there is one processor\n";
    for (name, text) in files.iter().zip([listed, apparmor, selinux, systemd]) {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let files = files.map(|name| dir.path().join(name));
    Command::new("awk").arg("-f").arg(script("vm-table.awk")).args(files).output().unwrap()
}

#[test]
fn the_table_tells_what_ran_failed_and_was_skipped() {
    let good = "== exits\ntest exits::a::crun ... ok\ntest exits::a::runc ... ok\n\
                test exits::b ... ok\ntest selinux::l_on_crun ... ok\n\nsuccesses:\n\n\
                ---- selinux::l_on_crun stdout ----\nskipped: needs a machine\n";
    let exit = "test exits::a::crun ... ok\n";
    let told = table(good, exit, exit);
    let out = text(&told.stdout);
    assert!(told.status.success(), "{out}");
    let cells = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in [
        "suite driver apparmor crun apparmor runc apparmor any selinux crun",
        "exits cgroupfs 1 ok 1 ok 1 ok 1 ok",
        "selinux cgroupfs 0 ok, 1 skipped . . .",
        "exits systemd 1 ok . . .",
    ] {
        assert!(out.lines().any(|line| cells(line) == row), "{row}\n{out}");
    }
    for line in [
        "  apparmor_cgroupfs  mounts::x: there is one processor",
        "  apparmor_cgroupfs  selinux::l_on_crun: needs a machine",
    ] {
        assert!(out.lines().any(|other| other == line), "{line}\n{out}");
    }
    let told = table(good, exit, "test exits::a::crun ... FAILED\n");
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stdout).ends_with("FAILED:\n  apparmor_systemd   exits::a::crun\n"));
    assert_eq!(table("", "", "").status.code(), Some(1), "nothing ran");
}

/// The runner with a machine that is a shell script: `$@` are what the real one gets, `$suites` those to run.
fn run_with(machine: &str, arguments: &[&str], machines: &str) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vm-test", "vm-table.awk", "vm-skips"] {
        std::fs::copy(script(name), dir.path().join(name)).unwrap();
    }
    let vm = dir.path().join("vm");
    let script = format!(
        "#!/bin/bash\ncd {}\nsuites=\"$*\"; suites=${{suites##*skips.}}\nsuites=${{suites#* }}\n\
         say() {{ echo \"== $1\"; echo \"test ${{1}}a::crun ... ok\"; echo \"== $1 ended\"; }}\n{machine}\n",
        dir.path().display()
    );
    std::fs::write(&vm, script).unwrap();
    std::fs::set_permissions(&vm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(dir.path().join("vm-test"));
    command.arg(dir.path()).arg(&vm).args(arguments);
    command.env("VM_MACHINES", machines).env("PODWRIGHT_TOOLS", dir.path());
    command.env("VM_OUTPUT", dir.path().join("output")).env("VM_AT_ONCE", "2");
    (command.output().unwrap(), dir)
}

#[test]
fn a_machine_that_dies_goes_on_in_another_with_what_it_had_not_ended() {
    let dies = "echo \"$suites\" >>asked\n\
                case $suites in a::*) say a::; echo '== b::'; echo 'test b::a::crun ... ok'; exit 125;; esac\n\
                for suite in $suites; do say $suite; done";
    let (ran, dir) = run_with(dies, &["a::", "b::", "c::"], "apparmor_systemd");
    let out = text(&ran.stdout);
    assert!(ran.status.success(), "{out}{}", text(&ran.stderr));
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert_eq!(asked, "a:: b:: c::\nb:: c::\n");
    for suite in ["a", "b", "c"] {
        let row = out.lines().find(|line| line.starts_with(&format!("{suite} "))).unwrap();
        assert!(row.ends_with(" 1 ok"), "{row}");
    }
    assert!(
        out.contains("  apparmor_systemd   in b, and went on from there in another\n"),
        "{out}"
    );

    let (ran, _dir) = run_with("say a::; exit 125", &["a::", "b::"], "apparmor_systemd");
    let out = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "dies each time: {out}");
    assert!(out.contains("ended early"), "{out}");
    let (ran, dir) = run_with("echo x >>asked; say a::; exit 124", &["a::"], "apparmor_systemd");
    assert_eq!(ran.status.code(), Some(1), "out of time: {}", text(&ran.stdout));
    assert_eq!(std::fs::read_to_string(dir.path().join("asked")).unwrap(), "x\n");
}

#[test]
fn machines_run_beside_each_other_and_one_that_fails_fails_all() {
    // Neither ends before both have begun.
    let meets = "touch begun.$$; for n in {1..600}; do [ $(ls begun.* | wc -l) = 2 ] && break; sleep 0.1; done\n\
                 [ $n -lt 600 ] && say a::\ncase $* in *CGROUP_DRIVER=systemd*) ;; *) exit 1 ;; esac";
    let both = "apparmor_cgroupfs apparmor_systemd";
    let (ran, dir) = run_with(meets, &["a::"], both);
    let out = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{out}");
    assert!(out.contains("\napparmor_systemd  test a::a::crun ... ok\n"), "{out}");
    assert!(
        out.contains("\napparmor_cgroupfs the machine with apparmor and cgroupfs ended early\n"),
        "{out}"
    );
    assert!(dir.path().join("output/listed").exists());
    let (ran, _dir) = run_with("for suite in $suites; do say $suite; done", &[], both);
    let out = text(&ran.stdout);
    assert!(ran.status.success(), "{out}");
    assert!(out.lines().any(|line| line.starts_with("unsettled     systemd   1 ok")), "{out}");
}

/// Two tests in a machine that is a shell script, with limits that only what is looked at reaches.
fn some(machine: &str, limits: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vm-some", "vm-test", "vm-table.awk", "vm-skips"] {
        std::fs::copy(script(name), dir.path().join(name)).unwrap();
    }
    let says = "say() { echo \"test s::$1 ... $2\"; }\n\
                sum() { echo; echo \"test result: ok. $1 passed; 0 failed; $2 ignored; 0 measured\"; }\n";
    for (name, text) in
        [("vm", format!("{says}{machine}")), ("tests", "printf 's::%s: test\n' a b".to_owned())]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }
    let mut command = Command::new(dir.path().join("vm-some"));
    command.arg(dir.path()).arg(dir.path().join("tests")).arg("s::");
    command.env("VM_OUTPUT", dir.path().join("output")).env("PODWRIGHT_TOOLS", dir.path());
    for name in ["VM_BEGIN", "VM_BOX", "VM_STILL"] {
        command.env(name, "1000");
    }
    let ran = command.envs(limits.iter().copied()).output().unwrap();
    (ran.status.code(), text(&ran.stdout) + &text(&ran.stderr))
}

#[test]
fn some_tests_in_a_machine_pass_when_all_have() {
    for passes in ["say a ok; say b ok; sum 2 0", "say a ok; say b ignored; sum 1 1"] {
        let (status, out) = some(passes, &[]);
        assert!(status == Some(0) && !out.contains("NOT TESTED"), "{out}");
    }
    for fails in [
        "say a ok; say b FAILED; echo 'test result: FAILED. 1 passed; 1 failed'",
        "say a ok; sum 1 0",
        "sum 0 0",
        "say a ok; printf 'test s::b ... '; echo '== s:: ended'",
        "say a ok; exit 124",
        "say a ok; printf 'test s::b ... '; exit 125",
    ] {
        let (status, out) = some(fails, &[]);
        assert!(status == Some(1) && !out.contains("NOT TESTED"), "{fails}: {out}");
    }
}

#[test]
fn a_machine_that_cannot_or_is_slow_fails_nothing_and_a_test_that_hangs_does() {
    let (status, out) = some("exit 125", &[]);
    assert!(status == Some(0) && out.contains("NOT TESTED"), "{out}");
    let (status, out) = some("exec sleep 1000", &[("VM_BEGIN", "1")]);
    assert!(status == Some(0) && out.contains("no test began"), "{out}");
    let goes_on = "while sleep 0.1; do say a ok; done";
    let (status, out) = some(goes_on, &[("VM_BOX", "1")]);
    assert!(status == Some(0) && out.contains("NOT TESTED") && out.contains("the rest"), "{out}");
    let (status, out) = some(&format!("say b FAILED; {goes_on}"), &[("VM_BOX", "1")]);
    assert!(status == Some(1) && out.contains("1 failed"), "{out}");
    let (status, out) = some("printf 'test s::a ... '; exec sleep 1000", &[("VM_STILL", "2")]);
    assert!(status == Some(1) && out.contains("nothing was heard"), "{out}");
}

#[test]
fn a_machine_does_as_it_is_told() {
    if std::env::var_os("PODWRIGHT_VM").is_none() {
        println!("skipped: boots a machine: PODWRIGHT_VM=1");
        return;
    }
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |flags: &[&str], line: &str| {
        let mut command = Command::new(script("vm"));
        command.arg("-s").arg(first.path()).arg("-s").arg(second.path()).args(flags);
        command.args(["--", "sh", "-c", line]).output().unwrap()
    };
    let line = format!(
        "stat -fc %T /sys/fs/cgroup; cat /proc/1/comm /sys/module/apparmor/parameters/enabled; pwd; \
         echo made >{}/file; echo wrong >&2; exit 7",
        second.path().display()
    );
    let ran = run(&[], &line);
    let first_path = first.path().display();
    assert_eq!(
        text(&ran.stdout),
        format!("cgroup2fs\nsystemd\nY\n{first_path}\nwrong\n"),
        "{}",
        text(&ran.stderr)
    );
    assert_eq!(ran.status.code(), Some(7));
    assert_eq!(std::fs::read_to_string(second.path().join("file")).unwrap(), "made\n");
    let ran = run(&["-l", "selinux"], "cat /sys/fs/selinux/enforce");
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(0), "0"));
    let ran = run(&["-t", "20"], "echo begun; sleep 1000");
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(124), "begun\n"));
    let ran = run(&[], "echo o >/proc/sysrq-trigger; sleep 1000");
    assert_eq!(ran.status.code(), Some(125), "{}", text(&ran.stderr));
}
