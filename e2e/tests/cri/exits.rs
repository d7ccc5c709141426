//! How containers end: codes, reasons, signals, memory.

use e2e::cri::*;
use e2e::eventually;
use e2e::image::Image;
use e2e::image::catalogue::{BUSYBOX, base, storage};
use e2e::pod::{container, shell};
use e2e::registry::HOST;
use serde_json::json;

on_each_runtime! {
    fn codes_and_reasons(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("exits");
        for (name, line, code, reason) in [
            ("completed", "exit 0", 0, "Completed"),
            ("error", "exit 3", 3, "Error"),
            ("segv", "kill -SEGV $$", 139, "Error"),
            ("killed", "kill -KILL $$", 137, "Error"),
        ] {
            // A signal from inside does not reach pid 1, so a child's fate is passed on.
            let line = format!("sh -c '{line}'; exit $?");
            let status = world.ended(&pod.run(container(name, BUSYBOX, &shell(&line))));
            assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
            assert!(status.finished_at >= status.started_at && status.started_at > 0);
        }
        pod.end();
    }

    fn a_start_that_fails_is_told_in_the_status(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("start-error");
        let id = pod.create(container("c", BUSYBOX, &["/no/such/program"]));
        let answer = world.start_container(&id);
        assert!(answer.unwrap_err().message().contains("/no/such/program"));
        let status = world.container_status(&id).unwrap();
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains("/no/such/program"), "{}", status.message);
        assert!(status.finished_at > 0);
        world.remove_container(&id).unwrap();
        pod.end();
    }

    fn stop_signals_then_kills(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("signals");
        let trap = |signal: &str| {
            format!("trap 'echo got {signal}; exit 7' {signal}; echo up; while :; do sleep 0.05; done")
        };
        let up = |name: &str| eventually("the trap", || pod.log(name).contains("up").then_some(()));

        let term = pod.run(container("term", BUSYBOX, &shell(&trap("TERM"))));
        up("term");
        world.stop_container(&term, 20).unwrap();
        let status = world.container_status(&term).unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
        assert!(pod.log("term").contains("got TERM"));

        let line = trap("USR1");
        let mut config = container("usr1", BUSYBOX, &shell(&line));
        config.stop_signal = Signal::Sigusr1.into();
        let usr1 = pod.run(config);
        up("usr1");
        assert_eq!(world.container_status(&usr1).unwrap().stop_signal(), Signal::Sigusr1);
        world.stop_container(&usr1, 20).unwrap();
        assert_eq!(world.container_status(&usr1).unwrap().exit_code, 7);

        let deaf = pod.run(container("deaf", BUSYBOX, &shell("trap '' TERM; echo up; while :; do sleep 1; done")));
        up("deaf");
        let start = std::time::Instant::now();
        world.stop_container(&deaf, 1).unwrap();
        assert!(start.elapsed().as_secs() >= 1);
        assert_eq!(world.container_status(&deaf).unwrap().exit_code, 137);
        pod.end();
    }

    fn a_shorter_stop_overtakes_a_longer_one(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("overtake");
        let line = "trap 'echo term' TERM; echo up; while :; do sleep 0.05; done";
        let id = pod.run(container("c", BUSYBOX, &shell(line)));
        eventually("the trap", || pod.log("c").contains("up").then_some(()));
        std::thread::scope(|scope| {
            let long = scope.spawn(|| world.stop_container(&id, 60));
            eventually("the signal", || pod.log("c").contains("term").then_some(()));
            world.stop_container(&id, 1).unwrap();
            long.join().unwrap().unwrap();
        });
        assert_eq!(pod.log("c").matches("term").count(), 1, "the signal is sent once");
        pod.end();
    }

    fn out_of_memory(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("memory");
        let line = "dd if=/dev/zero of=/dev/null bs=64M count=1; exit $?";
        let mut config = container("c", BUSYBOX, &["/bin/sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M"]);
        let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
        resources.memory_limit_in_bytes = 16 << 20;
        resources.memory_swap_limit_in_bytes = 16 << 20;
        let status = world.ended(&pod.run(config.clone()));
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        config.metadata.as_mut().unwrap().name = "child".into();
        config.log_path = "child.log".into();
        config.command = shell(&format!("sh -c '{line}'; exit 0")).map(str::to_owned).into();
        let status = world.ended(&pod.run(config));
        assert_eq!(status.exit_code, 0, "its init survived");
        pod.end();
    }

    /// As the kubelet has it on cgroup v2.
    fn one_that_is_a_group_dies_whole_for_want_of_memory(world) {
        if world.sh("stat -fc %T /sys/fs/cgroup") != "cgroup2fs\n" {
            println!("skipped: groups are cgroup v2's");
            return;
        }
        world.pull(BUSYBOX);
        let pod = world.pod("group");
        let run = |name: &str, group: &str| {
            // Without a group the shell goes on after its child.
            let line = "dd if=/dev/zero of=/dev/null bs=64M; exit 5";
            let mut config = container(name, BUSYBOX, &shell(line));
            let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
            resources.memory_limit_in_bytes = 16 << 20;
            resources.memory_swap_limit_in_bytes = 16 << 20;
            resources.unified.insert("memory.oom.group".into(), group.into());
            let status = world.ended(&pod.run(config));
            (status.exit_code, status.reason)
        };
        assert_eq!(run("whole", "1"), (137, "OOMKilled".to_owned()));
        assert_eq!(run("each", "0").0, 5);
        pod.end();
    }

    /// The kernel's counter and the exit come at the same moment, and the one must not be read before the other.
    fn each_of_many_that_run_out_of_memory_says_so(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("crowd");
        let run = |number: u32| {
            let command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M"];
            let mut config = container(&format!("c-{number}"), BUSYBOX, &command);
            let resources = config.linux.as_mut().unwrap().resources.as_mut().unwrap();
            resources.memory_limit_in_bytes = 16 << 20;
            resources.memory_swap_limit_in_bytes = 16 << 20;
            let status = world.ended(&pod.run(config));
            assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "{number}");
        };
        std::thread::scope(|scope| (0..6).for_each(|number| drop(scope.spawn(move || run(number)))));
        pod.end();
    }

    fn the_images_stop_signal_unless_the_request_has_one(world) {
        let config = json!({
            "StopSignal": "SIGUSR2", "Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["trap 'exit 9' USR2; trap 'exit 8' USR1; echo up; while :; do sleep 0.05; done"],
        });
        storage().put("stop-signal", "1", &Image::new(&[base()], &config));
        let image = format!("{HOST}/stop-signal:1");
        world.pull(&image);
        let pod = world.pod("image-signal");
        for (name, asked, told, code) in [
            ("image", Signal::RuntimeDefault, Signal::Sigusr2, 9),
            ("request", Signal::Sigusr1, Signal::Sigusr1, 8),
        ] {
            let mut config = container(name, &image, &[]);
            config.stop_signal = asked.into();
            let id = pod.run(config);
            eventually("the trap", || pod.log(name).contains("up").then_some(()));
            assert_eq!(world.container_status(&id).unwrap().stop_signal(), told);
            world.stop_container(&id, 20).unwrap();
            let status = world.container_status(&id).unwrap();
            assert_eq!((status.exit_code, status.stop_signal()), (code, told), "{name}");
        }
        pod.end();
    }

    fn a_process_that_leaves_children_ends_whole(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("children");
        let id = pod.run(container("c", BUSYBOX, &shell("sleep 1000 & sleep 1000 & exit 5")));
        let status = eventually("the end", || {
            let status = world.container_status(&id).unwrap();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        });
        assert_eq!(status.exit_code, 5);
        pod.end();
    }
}
