//! The log files that the kubelet reads.

use e2e::cri::*;
use e2e::eventually;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::{container, shell};
use tonic::Code;

/// One line of a log.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    stream: &'a str,
    tag: &'a str,
    content: &'a str,
}

fn lines(log: &str) -> Vec<Line<'_>> {
    log.split_inclusive('\n')
        .map(|line| {
            let line = line.strip_suffix('\n').expect("each line ends");
            let mut parts = line.splitn(4, ' ');
            let (time, rest) = parts.next().unwrap().split_once('T').expect("RFC 3339");
            assert_eq!(time.len(), 10, "{line}");
            let fraction = rest.split_once('.').expect("nanoseconds").1;
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            assert_eq!(digits, 9, "{line}");
            Line {
                stream: parts.next().unwrap(),
                tag: parts.next().unwrap(),
                content: parts.next().unwrap_or_default(),
            }
        })
        .collect()
}

on_each_runtime! {
    fn streams_tags_and_long_lines(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("logs");
        let script = "echo out; echo err >&2; printf '\\n'; head -c 40000 /dev/zero | tr '\\0' x; echo; printf end";
        world.ended(&pod.run(container("c", BUSYBOX, &shell(script))));
        let log = pod.log("c");
        let all = lines(&log);
        let err: Vec<&Line<'_>> = all.iter().filter(|line| line.stream == "stderr").collect();
        assert_eq!(err, [&Line { stream: "stderr", tag: "F", content: "err" }]);
        let out: Vec<&Line<'_>> = all.iter().filter(|line| line.stream == "stdout").collect();
        assert_eq!((out[0].tag, out[0].content), ("F", "out"));
        assert_eq!((out[1].tag, out[1].content), ("F", ""));
        let long: Vec<(&str, usize)> =
            out[2..out.len() - 1].iter().map(|line| (line.tag, line.content.len())).collect();
        assert_eq!(long.iter().map(|part| part.1).sum::<usize>(), 40000);
        assert!(long.iter().all(|part| part.1 <= 16384), "{long:?}");
        assert!(long[..long.len() - 1].iter().all(|part| part.0 == "P"), "{long:?}");
        assert_eq!(long.last().unwrap().0, "F");
        let last = out.last().unwrap();
        assert_eq!((last.tag, last.content), ("P", "end"));
        pod.end();
    }

    fn rotation_reopens(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("rotate");
        let script = "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.02; done";
        let id = pod.run(container("c", BUSYBOX, &shell(script)));
        eventually("a first line", || pod.log("c").contains("line 0").then_some(()));
        let path = format!("{}/c.log", pod.config.log_directory);
        let rotated = format!("{path}.1");
        std::fs::rename(&path, &rotated).unwrap();
        let reopen = ReopenContainerLogRequest { container_id: id.clone() };
        world.client.reopen_container_log(reopen.clone()).unwrap();
        eventually("a line in the new file", || pod.log("c").contains("line").then_some(()));
        world.stop_container(&id, 0).unwrap();
        let all = std::fs::read_to_string(&rotated).unwrap() + &pod.log("c");
        for (number, line) in lines(&all).iter().enumerate() {
            assert_eq!(line.content, format!("line {number}"), "nothing lost, nothing twice");
        }
        std::fs::rename(&path, &rotated).unwrap();
        let answer = world.client.reopen_container_log(reopen);
        assert!(matches!(crate::code(&answer), Code::FailedPrecondition));
        assert!(!std::path::Path::new(&path).exists(), "no new file where it fails");
        pod.end();
    }

    fn much_output_is_whole(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("much");
        let id = pod.run(container("c", BUSYBOX, &shell("seq 1 200000")));
        assert_eq!(world.ended(&id).exit_code, 0);
        let log = pod.log("c");
        let all = lines(&log);
        assert_eq!(all.len(), 200_000);
        assert!(all.iter().enumerate().all(|(number, line)| line.content == (number + 1).to_string()));
        pod.end();
    }

    fn without_a_path_output_is_dropped_not_blocked(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("dropped");
        let mut config = container("c", BUSYBOX, &shell("head -c 3000000 /dev/zero; exit 4"));
        config.log_path = String::new();
        let status = world.ended(&pod.run(config));
        assert_eq!((status.exit_code, status.log_path.as_str()), (4, ""));
        pod.end();
    }

    fn a_terminal_has_one_stream(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("terminal");
        let mut config = container("c", BUSYBOX, &shell("tty; echo err >&2; echo $TERM"));
        config.tty = true;
        world.ended(&pod.run(config));
        let log = pod.log("c");
        let content: Vec<&str> = lines(&log)
            .iter()
            .map(|line| {
                assert_eq!(line.stream, "stdout");
                line.content.trim_end_matches('\r')
            })
            .collect();
        assert_eq!(content, ["/dev/pts/0", "err", "xterm"]);
        pod.end();
    }
}
