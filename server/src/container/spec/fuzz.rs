//! An image's accounts, and a container's configuration with its image, as targets of `crate::fuzz`.

use std::path::PathBuf;

use super::super::config::{ContainerConfig, GroupsPolicy, PidMode, Security};
use super::confined::{CDI, MARK, confined};
use super::fixture::{device, plain};
use super::identity::{MAX_ID, resolve};
use super::{Accounts, Edits, EditsDevice, ImageView};
use crate::config::CgroupDriver;

/// An image's USER, a NUL, its passwd, a NUL, its group.
pub(crate) fn accounts(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let user = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (passwd, group) = (parts.next().map(<[u8]>::to_vec), parts.next().map(<[u8]>::to_vec));
    let accounts = Accounts { passwd, group };
    for policy in [GroupsPolicy::Merge, GroupsPolicy::Strict] {
        let security = Security { supplemental_groups_policy: policy, ..Security::default() };
        let Ok(identity) = resolve(&security, &user, &accounts) else { continue };
        let ids = identity.groups.iter().chain([&identity.uid, &identity.gid]);
        assert!(ids.copied().all(|id| i64::from(id) <= MAX_ID), "{identity:?}");
        assert_eq!(identity.groups.first(), Some(&identity.gid));
        let strict = policy == GroupsPolicy::Strict;
        assert!(!strict || identity.groups.len() == 1, "{identity:?}");
        // What looks like a number is never looked up as a name.
        let named = user.split(':').next().unwrap_or_default();
        if !named.is_empty() && named.bytes().all(|byte| byte.is_ascii_digit()) {
            assert_eq!(named.parse().ok(), Some(identity.uid), "{user:?}");
        }
    }
}

/// What of a pod and a node matters beside the configuration, a bit each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around(pub(crate) u8);

impl Around {
    fn is(self, bit: u8) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// A container's configuration as it has passed the edge, with what its image says.
pub(crate) fn spec(config: ContainerConfig, image: ImageView, accounts: Accounts, around: Around) {
    let mut fixture = plain();
    let sources = (0..config.mounts.len()).map(|number| PathBuf::from(format!("/source/{number}")));
    fixture.facts.mount_sources = sources.collect();
    let devices =
        config.devices.iter().zip(0..).map(|(one, minor)| device(&one.container_path, minor));
    fixture.facts.devices = devices.collect();
    fixture.facts.host_devices = vec![device("/dev/mem", 1)];
    fixture.facts.accounts = accounts;
    if let PidMode::Target(_) = config.security.pid {
        fixture.facts.target_pid = Some("/proc/9/ns/pid".into());
    }
    // A pod has the users that its containers are to have, or they are refused.
    if let Some(users) = &config.security.userns {
        fixture.place.users = Some(users.clone());
        fixture.place.user = Some("/run/podwright/pods/5a/user".into());
        fixture.facts.runtime.user_namespaces = true;
    }
    fixture.facts.cdi = cdi(&config.cdi_devices);
    fixture.config = config;
    fixture.image = marked(image, around.is(0));
    fixture.node.cgroup_v2 = around.is(1);
    if around.is(2) {
        fixture.node.cgroup_driver = CgroupDriver::Systemd;
        fixture.place.cgroup_parent = "/kubepods.slice/kubepods-pod1.slice".into();
    }
    fixture.place.privileged = around.is(3);
    fixture.place.pid = around.is(4).then(|| "/proc/77/fd/7".into());
    fixture.facts.runtime.recursive_read_only = around.is(5);
    fixture.node.devices_of_container = around.is(7);
    if around.is(6) {
        (fixture.place.host_network, fixture.place.netns) = (true, None);
        (fixture.place.host_ipc, fixture.place.ipc) = (true, None);
        (fixture.place.host_pid, fixture.place.pid) = (true, None);
    }
    match fixture.build() {
        Ok(spec) => {
            if let Err(how) = confined(&fixture, &spec) {
                panic!("{how}\n{fixture:?}");
            }
        }
        Err(err) => drop(err.to_string()),
    }
}

/// What a vendor's file may say of each device that is asked for: some of everything.
fn cdi(devices: &[String]) -> Edits {
    let mut edits = Edits::default();
    for (name, minor) in devices.iter().zip(0..) {
        let node = device(&format!("/dev/cdi{minor}"), minor);
        let own = (!name.len().is_multiple_of(2)).then_some(minor);
        edits.devices.push(EditsDevice { node, uid: own, gid: None });
        edits.env.push(format!("CDI={minor}"));
        edits.gids.push(minor);
        let options = ["rbind".to_owned(), "rw".to_owned()];
        edits.add_mount("bind", &format!("{CDI}/{minor}"), &format!("/lib/cdi{minor}"), &options);
        edits.add_hook("createRuntime", "/cdi/hook", &[], &[], None);
    }
    edits
}

/// So that what comes of the image can be searched for.
fn marked(mut image: ImageView, user_too: bool) -> ImageView {
    let words = image.env.iter_mut().chain(&mut image.entrypoint).chain(&mut image.cmd);
    let words = words.chain([&mut image.working_dir, &mut image.stop_signal]);
    words.for_each(|word| word.push_str(MARK));
    if user_too && !image.user.is_empty() {
        image.user.push_str(MARK);
    }
    image
}
