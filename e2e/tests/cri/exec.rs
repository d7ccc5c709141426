//! ExecSync: what it returns, its limits, and what it leaves in the container.

use std::time::{Duration, Instant};

use e2e::cri::NamespaceMode;
use e2e::eventually;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, namespaces, sandbox, shell};
use tonic::Code;

use crate::code;

const CAP: usize = 16 << 20;
/// What a busy machine may take for what should take a second.
const PROMPT: Duration = Duration::from_secs(25);

on_each_runtime! {
    fn returns_streams_and_code(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("exec");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let answer = world.try_exec(&id, &shell("echo out; echo err >&2; exit 9"), 10).unwrap();
        assert_eq!(answer.stdout, b"out\n");
        assert_eq!(answer.stderr, b"err\n");
        assert_eq!(answer.exit_code, 9);
        let answer = world.try_exec(&id, &shell("kill -9 $$"), 10).unwrap();
        assert_eq!(answer.exit_code, 137);
        let missing = world.try_exec(&id, &["/no/such/program"], 10);
        match missing {
            Ok(answer) => assert!([126, 127].contains(&answer.exit_code), "{answer:?}"),
            Err(status) => assert!(status.message().contains("/no/such/program"), "{status}"),
        }
        assert_eq!(code(&world.try_exec(&id, &[], 1)), Code::InvalidArgument);
        let stdin = world.try_exec(&id, &["cat"], 10).unwrap();
        assert_eq!((stdin.exit_code, stdin.stdout.len()), (0, 0), "standard input is empty");
        pod.end();
    }

    fn a_timeout_kills_the_process(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("timeout");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let start = Instant::now();
        let answer = world.try_exec(&id, &shell("sleep 4242"), 1);
        assert_eq!(code(&answer), Code::DeadlineExceeded);
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        eventually("the process to be gone", || {
            (!world.exec(&id, "ps").contains("sleep 4242")).then_some(())
        });
        pod.end();
    }

    fn output_is_capped_not_refused(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("cap");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let answer = world.try_exec(&id, &shell("head -c 20000000 /dev/zero; exit 3"), 30);
        // The kubelet takes 16 MiB a message, wrapper included.
        let answer = answer.unwrap();
        assert_eq!(answer.exit_code, 3);
        assert!(answer.stdout.len() > CAP - 4096 && answer.stdout.len() <= CAP, "{}", answer.stdout.len());
        // A flood on one stream leaves the other whole.
        let line = "head -c 20000000 /dev/zero; echo why >&2; exit 3";
        let answer = world.try_exec(&id, &shell(line), 30).unwrap();
        assert_eq!((answer.exit_code, &*answer.stderr), (3, &b"why\n"[..]));
        assert!(answer.stdout.len() > CAP - 4096, "{}", answer.stdout.len());
        pod.end();
    }

    fn a_child_that_keeps_the_pipe_does_not_hold_the_answer(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("daemonised");
        let id = pod.run(container("c", BUSYBOX, &[]));
        let start = Instant::now();
        let answer = world.try_exec(&id, &shell("sleep 500 & echo started"), 30).unwrap();
        assert_eq!((answer.exit_code, answer.stdout.as_slice()), (0, &b"started\n"[..]));
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        pod.end();
    }

    fn what_commands_leave_is_reaped(world) {
        world.pull(BUSYBOX);
        let mut config = sandbox(world, "reaped");
        let options = namespaces(NamespaceMode::Pod, NamespaceMode::Node);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = Some(options.clone());
        let pod = world.pod_of(config);
        let mut config = container("c", BUSYBOX, &[]);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = Some(options);
        let id = pod.run(config);
        let one = "sleep 0.3 >&- 2>&- &";
        for _ in 0..5 {
            assert_eq!(world.exec(&id, one), "");
        }
        // Killed with a child, which nobody waits for.
        let killed = world.try_exec(&id, &shell("sleep 4242 & sleep 4242; true"), 1);
        assert_eq!(code(&killed), Code::DeadlineExceeded);
        // The container shares the node's processes, so orphans are the shim's.
        let table = "for p in /proc/[0-9]*/stat; do cat $p; done 2>/dev/null || true";
        eventually("the dead to be reaped", || {
            let table = world.sh(table);
            let dead = table.lines().filter(|line| line.contains(") Z "));
            let ps = world.exec(&id, "ps");
            let over = !ps.contains("sleep 0.3") && !ps.contains("sleep 4242");
            (dead.count() == 0 && over).then_some(())
        });
        pod.end();
    }

    fn only_in_running_containers(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("moments");
        let created = pod.create(container("created", BUSYBOX, &[]));
        assert_eq!(code(&world.try_exec(&created, &["true"], 5)), Code::FailedPrecondition);
        let ended = pod.run(container("ended", BUSYBOX, &["true"]));
        world.ended(&ended);
        assert_eq!(code(&world.try_exec(&ended, &["true"], 5)), Code::FailedPrecondition);
        pod.end();
    }

    fn many_at_once(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("many");
        let id = pod.run(container("c", BUSYBOX, &[]));
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let id = &id;
                scope.spawn(move || {
                    for round in 0..5 {
                        let line = format!("echo {thread}.{round}");
                        assert_eq!(world.exec(id, &line), format!("{thread}.{round}\n"));
                    }
                });
            }
        });
        pod.end();
    }
}
