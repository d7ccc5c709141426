//! systemd's cgroup driver while systemd and its D-Bus are not well: what asks in that moment gets what it asked for, or
//! a word why not and then, asked again, gets it; nothing that runs takes notice, and nothing is left.
//!
//! Only where the machine is the tests' own, `./dev vm-test`.

use std::process::Command;

use e2e::cri::*;
use e2e::image::catalogue::BUSYBOX;
use e2e::pod::Pod;
use e2e::{Driver, Options, World, eventually};

use crate::resources::update;
use crate::systemd::{devices_are_ruled, limited, limits, systemctl};

/// As by a want of memory: nobody says goodbye. The socket's unit starts another for the next who asks.
fn kill_the_bus() {
    systemctl(&["kill", "--signal=KILL", "dbus.service"]);
    // However often it died: this is no fault of its own.
    systemctl(&["reset-failed", "dbus.service", "dbus.socket"]);
}

/// systemd takes requests over D-Bus.
fn settled() {
    let over_the_bus = ["call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"];
    let peer = ["org.freedesktop.DBus.Peer", "Ping"];
    eventually("systemd to answer over D-Bus", || {
        let asked =
            Command::new("busctl").arg("--timeout=5").args(over_the_bus).args(peer).output();
        asked.unwrap().status.success().then_some(())
    });
}

/// Creates and starts one while `trouble` goes on beside it.
fn run_during(pod: &Pod<'_>, name: &str, trouble: fn()) -> String {
    let attempt = |attempt: u32| {
        let mut config = limited(name);
        config.metadata.as_mut().unwrap().attempt = attempt;
        config
    };
    let started = |config: ContainerConfig| {
        let id = pod.try_create(config)?;
        pod.world.start_container(&id).map(|()| id)
    };
    let first = std::thread::scope(|scope| {
        scope.spawn(trouble);
        started(attempt(0))
    });
    settled();
    first.unwrap_or_else(|status| {
        println!("{name}: {status}");
        assert!(status.message().to_lowercase().contains("bus"), "{status}");
        started(attempt(1)).unwrap()
    })
}

fn goes_on(world: &World, id: &str) {
    assert_eq!(world.exec(id, "echo here"), "here\n");
    devices_are_ruled(world, id);
    let stats = world.client.container_stats(ContainerStatsRequest { container_id: id.into() });
    assert!(stats.unwrap().stats.unwrap().memory.is_some());
}

on_systemd! {
    fn what_starts_while_systemd_is_in_trouble_starts_or_says_why_not(world) {
        const TROUBLES: [(&str, fn()); 3] = [
            ("reload", || drop(systemctl(&["daemon-reload"]))),
            ("exec", || drop(systemctl(&["daemon-reexec"]))),
            ("bus", kill_the_bus),
        ];
        world.pull(BUSYBOX);
        let pod = world.pod("trouble");
        let stays = pod.run(limited("stays"));
        let before = limits(world, &stays);
        for (name, trouble) in TROUBLES {
            let id = run_during(&pod, name, trouble);
            assert_eq!(limits(world, &id), before, "{name}");
            goes_on(world, &id);
            // Ends while it happens again.
            std::thread::scope(|scope| {
                scope.spawn(trouble);
                world.stop_container(&id, 0).unwrap();
                world.remove_container(&id).unwrap();
            });
            settled();
            assert_eq!(world.cgroups_of(&id), Vec::<std::path::PathBuf>::new(), "{name}");
            assert_eq!(limits(world, &stays), before, "{name}");
            goes_on(world, &stays);
        }
        pod.end();
    }

    fn a_bus_that_was_killed_is_missed_by_nobody(world) {
        world.pull(BUSYBOX);
        let pod = world.pod("bus");
        let id = pod.run(limited("c"));
        kill_the_bus();
        goes_on(world, &id);
        settled();
        let more = LinuxContainerResources { memory_limit_in_bytes: 80 << 20, ..Default::default() };
        update(world, &id, more).unwrap();
        assert_eq!(limits(world, &id)["memory.max"], "83886080\n");
        kill_the_bus();
        pod.end();
        let other = world.pod("after");
        settled();
        goes_on(world, &other.run(limited("c")));
        other.end();
    }
}
