//! What CDI devices change in a spec. Pure: everything was looked up before.

use std::path::PathBuf;

use oci_spec::runtime::{Hook, Hooks, LinuxIntelRdt, Mount, Spec};

use super::devices::DeviceNode;
use super::mounts;
use super::process::Environment;

/// Changes, in the order in which they were asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Edits {
    pub env: Vec<String>,
    pub devices: Vec<EditsDevice>,
    pub gids: Vec<u32>,
    mounts: Vec<Mount>,
    hooks: Vec<(String, Hook)>,
    rdt: Option<LinuxIntelRdt>,
}

/// A device node; whose it is may be said apart from whose the host's is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EditsDevice {
    pub node: DeviceNode,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Edits {
    pub(crate) fn add_mount(&mut self, kind: &str, host: &str, target: &str, options: &[String]) {
        let mut mount = Mount::default();
        mount
            .set_typ(Some(kind.to_owned()))
            .set_source(Some(PathBuf::from(host)))
            .set_destination(target.into())
            .set_options(Some(options.to_vec()));
        self.mounts.push(mount);
    }

    pub(crate) fn add_hook(
        &mut self,
        name: &str,
        path: &str,
        args: &[String],
        env: &[String],
        timeout: Option<i64>,
    ) {
        let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let mut hook = Hook::default();
        hook.set_path(path.into()).set_args(list(args)).set_env(list(env)).set_timeout(timeout);
        self.hooks.push((name.to_owned(), hook));
    }

    pub(crate) fn set_rdt(&mut self, class: &str, l3: &str, bandwidth: &str, schemata: &[String]) {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_clos_id(text(class))
            .set_l3_cache_schema(text(l3))
            .set_mem_bw_schema(text(bandwidth))
            .set_schemata((!schemata.is_empty()).then(|| schemata.to_vec()));
        self.rdt = Some(rdt);
    }

    /// The nodes as this process gets them: where nobody says whose one is, it is the process's own.
    pub(super) fn nodes(&self, uid: u32, gid: u32) -> impl Iterator<Item = DeviceNode> + '_ {
        self.devices.iter().map(move |device| {
            let own = |said: Option<u32>, own: u32, host: u32| match said {
                Some(said) => said,
                None if own != 0 => own,
                None => host,
            };
            let mut node = device.node.clone();
            node.uid = own(device.uid, uid, node.uid);
            node.gid = own(device.gid, gid, node.gid);
            node
        })
    }

    /// Makes all changes but the devices, which the spec has already.
    pub(super) fn apply(&self, spec: &mut Spec) {
        if let Some(process) = spec.process_mut() {
            let mut env = Environment::default();
            let before = process.env().clone().unwrap_or_default();
            before.into_iter().chain(self.env.iter().cloned()).for_each(|one| env.set(one));
            process.set_env(Some(env.into_list()));
            let user = process.user_mut();
            let mut gids = user.additional_gids().clone().unwrap_or_default();
            for gid in &self.gids {
                if !gids.contains(gid) {
                    gids.push(*gid);
                }
            }
            user.set_additional_gids(Some(gids));
        }
        if !self.mounts.is_empty() {
            let all = spec.mounts().clone().unwrap_or_default();
            spec.set_mounts(Some(mounts::with(all, &self.mounts)));
        }
        if !self.hooks.is_empty() {
            spec.set_hooks(Some(self.hooks()));
        }
        if let (Some(rdt), Some(linux)) = (&self.rdt, spec.linux_mut()) {
            linux.set_intel_rdt(Some(rdt.clone()));
        }
    }

    fn hooks(&self) -> Hooks {
        let named = |name: &str| {
            let hooks = self.hooks.iter().filter(|(of, _)| of == name);
            let hooks: Vec<Hook> = hooks.map(|(_, hook)| hook.clone()).collect();
            (!hooks.is_empty()).then_some(hooks)
        };
        let mut hooks = Hooks::default();
        hooks
            .set_prestart(named("prestart"))
            .set_create_runtime(named("createRuntime"))
            .set_create_container(named("createContainer"))
            .set_start_container(named("startContainer"))
            .set_poststart(named("poststart"))
            .set_poststop(named("poststop"));
        hooks
    }
}
