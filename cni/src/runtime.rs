//! The verbs, each over the whole chain of a network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::attachment::Attachment;
use crate::cache::{self, CachedAttachment};
use crate::config::{Fields, Network, Plugin, raw};
use crate::deadline::Deadline;
use crate::detour;
use crate::error::{Error, Result, Verb};
use crate::lease;
use crate::native::{self, Job, Native};
use crate::netns;
use crate::plugin::{self, Call, excerpt};
use crate::result::CniResult;
use crate::version::SpecVersion;

/// How plugins are executed.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where their executables are, in the order of search.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are kept: libcni's is `/var/lib/cni`.
    pub cache_dir: PathBuf,
    /// How long a verb may take over the whole chain, for [`Runtime::deadline`].
    pub timeout: Duration,
    /// What a plugin may print.
    pub max_output: usize,
    /// Do the work of the usual plugins in-process, where their configuration is understood exactly.
    pub native: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_dir: "/var/lib/cni".into(),
            timeout: Duration::from_secs(60),
            max_output: 1 << 20,
            native: true,
        }
    }
}

impl Runtime {
    /// A deadline as configured, beginning now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Attaches a container. If this fails, at whichever plugin, something may have been allocated: the
    /// caller has to call [`Runtime::del`], which releases what the whole chain holds.
    pub fn add(
        &self,
        network: &Network,
        attachment: &Attachment,
        deadline: &Deadline,
    ) -> Result<CniResult> {
        attachment.validate()?;
        match &attachment.netns {
            Some(path) if netns::is_netns(path) => {}
            Some(path) => {
                return Err(Error::invalid(format!(
                    "{} is not a network namespace",
                    path.display()
                )));
            }
            None => return Err(Error::invalid("an attachment needs a network namespace")),
        }
        let capabilities = attachment.capabilities.by_name();
        let mut last: Option<CniResult> = None;
        for plugin in network.plugins() {
            let previous = last.as_ref();
            let config = Config { network, plugin, previous, capabilities: &capabilities };
            let step = Step { verb: Verb::Add, config, attachment, deadline };
            let result = self.add_one(&step)?;
            // A chain that is cut short is taken down with what it had: firewall knows its rules by the addresses.
            if previous.is_none_or(|previous| previous.raw != result.raw) {
                cache::write(&self.cache_dir, network, attachment, &result)?;
            }
            last = Some(result);
        }
        last.ok_or_else(|| Error::invalid("the network has no plugins"))
    }

    /// Detaches a container and releases what its attachment holds: idempotent, and with or without a
    /// network namespace. Every plugin is called, in the reverse order; the first failure is returned, and
    /// then the attachment stays in the cache for the next try. A plugin that hangs gets at most half of
    /// the time left, so that the others have some. Arguments and capabilities that the caller no
    /// longer has are taken from the cache.
    pub fn del(
        &self,
        network: &Network,
        attachment: &Attachment,
        deadline: &Deadline,
    ) -> Result<()> {
        attachment.validate()?;
        let cached = cache::read(&self.cache_dir, network, attachment);
        let attachment = &completed(attachment, cached.as_ref());
        let previous = previous(network, cached.as_ref());
        let capabilities = attachment.capabilities.by_name();
        let mut first = None;
        for (index, plugin) in network.plugins().iter().enumerate().rev() {
            let previous = previous.as_ref();
            let config = Config { network, plugin, previous, capabilities: &capabilities };
            let share = if index == 0 { deadline.clone() } else { deadline.half() };
            let step = Step { verb: Verb::Del, config, attachment, deadline: &share };
            match self.del_one(&step) {
                Ok(()) => {}
                Err(e @ Error::Cancelled { .. }) => return Err(first.unwrap_or(e)),
                Err(e) => {
                    tracing::debug!(error = %e, container = attachment.container_id, "cni delete goes on");
                    first.get_or_insert(e);
                }
            }
        }
        if let Err(e) = lease::free_ownerless(network, deadline) {
            first.get_or_insert(e);
        }
        if let Some(e) = first {
            return Err(e);
        }
        // Durable before the caller forgets the attachment: nobody would release what came back.
        cache::remove(&self.cache_dir, network, attachment)?;
        lease::sync(network)
    }

    /// Is the attachment as ADD made it? Without a result in the cache that cannot be told and is an
    /// error. True at once where the network has checks disabled.
    pub fn check(
        &self,
        network: &Network,
        attachment: &Attachment,
        deadline: &Deadline,
    ) -> Result<()> {
        attachment.validate()?;
        if network.version() < SpecVersion::V0_4 {
            let version = network.version();
            return Err(Error::invalid(format!("CHECK does not exist in CNI {version}")));
        }
        if network.disable_check() {
            return Ok(());
        }
        let cached = cache::read(&self.cache_dir, network, attachment);
        let previous = previous(network, cached.as_ref());
        if previous.is_none() {
            return Err(Error::invalid(format!("{} is not attached", attachment.container_id)));
        }
        let attachment = &completed(attachment, cached.as_ref());
        let capabilities = attachment.capabilities.by_name();
        for plugin in network.plugins() {
            let previous = previous.as_ref();
            let config = Config { network, plugin, previous, capabilities: &capabilities };
            let config = config.bytes()?;
            let call = self.call(Verb::Check, plugin.kind(), Some(attachment), &config)?;
            plugin::execute(&call, deadline)?;
        }
        Ok(())
    }

    /// Releases what belongs to no attachment of `valid` (container ids and interface names): attachments
    /// of this network in the cache by DEL, with the list they were made with, then by the plugins' own
    /// GC where the network's version has it. Goes on past failures and returns the first. Whoever calls
    /// this claims the network: attachments that another runtime made to it are released too.
    pub fn gc(
        &self,
        network: &Network,
        valid: &[(String, String)],
        deadline: &Deadline,
    ) -> Result<()> {
        if network.disable_gc() {
            return Ok(());
        }
        let mut first = None;
        let is_valid = |e: &CachedAttachment| {
            valid.iter().any(|(id, ifname)| *id == e.container_id && *ifname == e.if_name)
        };
        for entry in cache::list(&self.cache_dir)? {
            if entry.network_name == network.name() && !is_valid(&entry) {
                let made_with = Network::parse(&entry.config).ok();
                let network =
                    made_with.as_ref().filter(|n| n.name() == network.name()).unwrap_or(network);
                if let Err(e) = self.del(network, &entry.attachment(), deadline) {
                    first.get_or_insert(e);
                }
            }
        }
        if network.version() >= SpecVersion::V1_1 {
            // What is done in-process keeps nothing but what its DEL releases.
            for plugin in network.plugins().iter().filter(|plugin| !self.is_native(network, plugin))
            {
                if let Err(e) = self.gc_plugin(network, plugin, valid, deadline) {
                    first.get_or_insert(e);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn gc_plugin(
        &self,
        network: &Network,
        plugin: &Plugin,
        valid: &[(String, String)],
        deadline: &Deadline,
    ) -> Result<()> {
        let list: Vec<_> =
            valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        let mut fields = Config::bare(network, plugin).fields()?;
        // The second name is what early texts of the specification said.
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            fields.insert(key.to_owned(), raw(&list)?);
        }
        let config = raw(&fields)?;
        let call = self.call(Verb::Gc, plugin.kind(), None, config.get().as_bytes())?;
        plugin::execute(&call, deadline).map(drop)
    }

    /// Could an ADD succeed now? Asks the plugins where the network's version has STATUS, and stops at
    /// the first that says no ([`Error::is_not_ready`]).
    pub fn status(&self, network: &Network, deadline: &Deadline) -> Result<()> {
        if network.version() < SpecVersion::V1_1 {
            return Ok(());
        }
        // What is done in-process is ready as long as the kernel is.
        for plugin in network.plugins().iter().filter(|plugin| !self.is_native(network, plugin)) {
            let config = Config::bare(network, plugin).bytes()?;
            plugin::execute(&self.call(Verb::Status, plugin.kind(), None, &config)?, deadline)?;
        }
        Ok(())
    }

    /// The versions of the specification that a plugin says it supports.
    pub fn version(&self, plugin: &str, deadline: &Deadline) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Versions {
            #[serde(default)]
            supported_versions: Vec<String>,
        }
        let newest = SpecVersion::V1_1.to_string();
        let config = raw(&json!({ "cniVersion": newest }))?;
        let call = self.call(Verb::Version, plugin, None, config.get().as_bytes())?;
        let printed = plugin::execute(&call, deadline)?;
        let versions: Versions = serde_json::from_slice(&printed)
            .map_err(|e| call.broken(format!("{e}; stdout: \"{}\"", excerpt(&printed))))?;
        Ok(versions.supported_versions)
    }

    /// The plugins of a network that have to be executed, and whose executables are in none of the directories.
    pub fn missing<'n>(&self, network: &'n Network) -> Vec<&'n str> {
        let gone = |kind: &&str| !matches!(plugin::locate(kind, &self.bin_dirs), Ok(Some(_)));
        let executed = network.plugins().iter().filter(|plugin| !self.is_native(network, plugin));
        executed.map(Plugin::kind).filter(gone).collect()
    }

    /// The plugins of a network whose work is done in-process, as far as can be told before there is a pod.
    pub fn in_process<'n>(&self, network: &'n Network) -> Vec<&'n str> {
        let native = network.plugins().iter().filter(|plugin| self.is_native(network, plugin));
        native.map(Plugin::kind).collect()
    }

    fn is_native(&self, network: &Network, plugin: &Plugin) -> bool {
        let attachment = Attachment { ifname: "eth0".to_owned(), ..Attachment::default() };
        let plan =
            |fields| native::plan(plugin.kind(), &fields, network.cni_version(), &attachment);
        self.native && Config::bare(network, plugin).fields().is_ok_and(|f| plan(f).is_some())
    }

    /// The attachments in the cache, of all networks and whichever runtime made them.
    pub fn cached(&self) -> Result<Vec<CachedAttachment>> {
        cache::list(&self.cache_dir)
    }

    /// The attachments in libcni's caches at `dirs`, all of them.
    ///
    /// # Errors
    /// When one cannot be read: [`Runtime::gc`] with what could be would release it.
    pub fn cached_in(dirs: &[PathBuf]) -> Result<Vec<CachedAttachment>> {
        let lists = dirs.iter().map(|dir| cache::list_all(dir));
        Ok(lists.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn add_one(&self, step: &Step<'_>) -> Result<CniResult> {
        let fields = step.config.fields()?;
        if let Some((native, job)) = self.native.then(|| plan(step, &fields)).flatten() {
            return native.add(&job, step.config.previous);
        }
        let config = step.config.with_previous(fields)?;
        let call =
            self.call(step.verb, step.config.plugin.kind(), Some(step.attachment), &config)?;
        let printed = plugin::execute(&call, step.deadline)?;
        CniResult::parse(&printed, step.config.network.cni_version())
            .map_err(|problem| call.broken(format!("{problem}; stdout: \"{}\"", excerpt(&printed))))
    }

    fn del_one(&self, step: &Step<'_>) -> Result<()> {
        let fields = step.config.fields()?;
        let understood = plan(step, &fields);
        if let Some((native, job)) = understood.as_ref().filter(|_| self.native) {
            return native.del(job, step.config.previous);
        }
        let config = step.config.with_previous(fields)?;
        let (network, id) = (step.config.network.name(), &step.attachment.container_id);
        let engines = native::find_out(step.attachment.engines, network, id, step.deadline);
        let attachment = Attachment { engines, ..step.attachment.clone() };
        let call = self.call(step.verb, step.config.plugin.kind(), Some(&attachment), &config)?;
        plugin::execute(&call, step.deadline)?;
        // What the executable cannot see: rules of another engine than the one that it found.
        let Some((native, job)) = understood else { return Ok(()) };
        native.sweep(&Job { is_beside: true, ..job }, step.config.previous)
    }

    fn call<'a>(
        &'a self,
        verb: Verb,
        plugin: &'a str,
        attachment: Option<&'a Attachment>,
        config: &'a [u8],
    ) -> Result<Call<'a>> {
        let (bin_dirs, max_output) = (self.bin_dirs.as_slice(), self.max_output);
        let engines = attachment.map(|attachment| attachment.engines).unwrap_or_default();
        let detour = detour::directories(&self.cache_dir, engines)?;
        Ok(Call { verb, plugin, attachment, bin_dirs, config, detour, max_output })
    }
}

/// The plugin's work, if it is understood.
fn plan<'a>(step: &Step<'a>, fields: &Fields) -> Option<(Native, Job<'a>)> {
    let Step { verb, config: Config { network, plugin, .. }, attachment, deadline } = *step;
    let (plugin, cni_version) = (plugin.kind(), network.cni_version());
    let native = native::plan(plugin, fields, cni_version, attachment)?;
    let (version, network, is_beside) = (network.version(), network.name(), false);
    let job = Job { verb, plugin, network, cni_version, version, attachment, deadline, is_beside };
    Some((native, job))
}

/// One plugin's part of a verb.
struct Step<'a> {
    verb: Verb,
    config: Config<'a>,
    attachment: &'a Attachment,
    deadline: &'a Deadline,
}

/// What a plugin reads: its part of the list, and what the runtime adds.
#[derive(Clone, Copy)]
struct Config<'a> {
    network: &'a Network,
    plugin: &'a Plugin,
    previous: Option<&'a CniResult>,
    capabilities: &'a BTreeMap<String, Value>,
}

impl<'a> Config<'a> {
    /// For verbs that are not about an attachment.
    fn bare(network: &'a Network, plugin: &'a Plugin) -> Self {
        const NONE: &BTreeMap<String, Value> = &BTreeMap::new();
        Self { network, plugin, previous: None, capabilities: NONE }
    }

    /// All but the result of the plugin before.
    fn fields(&self) -> Result<Fields> {
        let mut fields = self.plugin.fields.clone();
        fields.insert("name".to_owned(), raw(self.network.name())?);
        fields.insert("cniVersion".to_owned(), raw(self.network.cni_version())?);
        let declared = self.plugin.capabilities().iter();
        let given: BTreeMap<_, _> =
            declared.filter_map(|name| Some((name, self.capabilities.get(name)?))).collect();
        if !given.is_empty() {
            fields.insert("runtimeConfig".to_owned(), raw(&given)?);
        }
        Ok(fields)
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        self.with_previous(self.fields()?)
    }

    fn with_previous(&self, mut fields: Fields) -> Result<Vec<u8>> {
        if let Some(previous) = self.previous {
            let (text, version) = (self.network.cni_version(), self.network.version());
            fields.insert("prevResult".to_owned(), raw(&previous.in_version(text, version))?);
        }
        Ok(raw(&fields)?.get().as_bytes().to_vec())
    }
}

/// The cached result in the network's version. Plugins get it from CNI 0.4 on.
fn previous(network: &Network, cached: Option<&CachedAttachment>) -> Option<CniResult> {
    let raw = cached.filter(|_| network.version() >= SpecVersion::V0_4)?.result.clone();
    CniResult::from_value(raw, network.cni_version()).ok()
}

fn completed(attachment: &Attachment, cached: Option<&CachedAttachment>) -> Attachment {
    let mut attachment = attachment.clone();
    // Where there is no namespace (yet, or any more), plugins are told so: a path to something else makes some fail.
    attachment.netns = attachment.netns.filter(|path| netns::is_netns(path));
    let Some(before) = cached.map(CachedAttachment::attachment) else { return attachment };
    if attachment.args.is_empty() {
        attachment.args = before.args;
    }
    if attachment.capabilities == crate::Capabilities::default() {
        attachment.capabilities = before.capabilities;
    }
    attachment
}
