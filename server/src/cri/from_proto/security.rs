//! Security contexts and namespaces: what container and sandbox have in common, and the container's own.

use api::cri::v1::{self, NamespaceMode, security_profile::ProfileType};

use super::{absolute, id_mappings, known, no_nul, printable, required, under};
use crate::container::config::{
    GroupsPolicy, IdMapping, PidMode, Security, SecurityProfile, SelinuxOption, UsernsOptions,
};
use crate::container::spec::{caps, identity};
use crate::error::{Error, Result};
use crate::host::selinux::{is_level, is_part};
use crate::id::ID_LEN;

/// LinuxContainerSecurityContext.
#[expect(deprecated, reason = "older kubelets send the older fields")]
pub(super) fn container(context: v1::LinuxContainerSecurityContext) -> Result<Security> {
    let capabilities = context.capabilities.unwrap_or_default();
    for (field, list) in [
        ("add_capabilities", &capabilities.add_capabilities),
        ("drop_capabilities", &capabilities.drop_capabilities),
        ("add_ambient_capabilities", &capabilities.add_ambient_capabilities),
    ] {
        if let Some((i, name)) = list.iter().enumerate().find(|(_, name)| !caps::is_known(name)) {
            let field = format!("capabilities.{field}[{i}]");
            return Err(Error::invalid(field, format!("{name:?} is no capability")));
        }
    }
    let namespaces = context.namespace_options.unwrap_or_default();
    shared("namespace_options.network", namespaces.network)?;
    shared("namespace_options.ipc", namespaces.ipc)?;
    let ids = Ids {
        user: context.run_as_user.map(|id| id.value),
        name: &context.run_as_username,
        group: context.run_as_group.map(|id| id.value),
        groups: &context.supplemental_groups,
    };
    ids.check()?;
    for (field, paths) in
        [("masked_paths", &context.masked_paths), ("readonly_paths", &context.readonly_paths)]
    {
        for (i, path) in paths.iter().enumerate() {
            absolute(&format!("{field}[{i}]"), path)?;
        }
    }
    Ok(Security {
        privileged: context.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        pid: pid(&namespaces).map_err(under("namespace_options"))?,
        selinux: context.selinux_options.map(selinux).transpose()?,
        run_as_user: context.run_as_user.map(|id| id.value),
        run_as_group: context.run_as_group.map(|id| id.value),
        run_as_username: context.run_as_username,
        readonly_rootfs: context.readonly_rootfs,
        supplemental_groups: context.supplemental_groups,
        supplemental_groups_policy: groups_policy(context.supplemental_groups_policy)?,
        apparmor: apparmor(context.apparmor, &context.apparmor_profile)?,
        seccomp: seccomp(context.seccomp, &context.seccomp_profile_path)?,
        no_new_privs: context.no_new_privs,
        masked_paths: context.masked_paths,
        readonly_paths: context.readonly_paths,
        userns: userns(namespaces.userns_options)
            .map_err(under("namespace_options.userns_options"))?,
    })
}

/// Ids that a security context names.
pub(super) struct Ids<'a> {
    pub user: Option<i64>,
    pub name: &'a str,
    pub group: Option<i64>,
    pub groups: &'a [i64],
}

impl Ids<'_> {
    pub(super) fn check(&self) -> Result<()> {
        no_nul("run_as_username", self.name)?;
        if let Some(user) = self.user {
            identity::id("run_as_user", user)?;
        }
        if let Some(group) = self.group {
            identity::id("run_as_group", group)?;
            if self.user.is_none() && self.name.is_empty() {
                return Err(Error::invalid("run_as_group", "needs run_as_user or run_as_username"));
            }
        }
        for (i, group) in self.groups.iter().enumerate() {
            identity::id(&format!("supplemental_groups[{i}]"), *group)?;
        }
        Ok(())
    }
}

/// A namespace that is the pod's or the host's: whether it is the host's.
pub(super) fn shared(field: &str, mode: i32) -> Result<bool> {
    match known(field, mode)? {
        NamespaceMode::Pod => Ok(false),
        NamespaceMode::Node => Ok(true),
        mode @ (NamespaceMode::Container | NamespaceMode::Target) => {
            Err(Error::invalid(field, format!("must be POD or NODE, not {}", mode.as_str_name())))
        }
    }
}

fn pid(namespaces: &v1::NamespaceOption) -> Result<PidMode> {
    let target = &namespaces.target_id;
    match known("pid", namespaces.pid)? {
        NamespaceMode::Pod => Ok(PidMode::Pod),
        NamespaceMode::Container => Ok(PidMode::Container),
        NamespaceMode::Node => Ok(PidMode::Host),
        NamespaceMode::Target => {
            required("target_id", target)?;
            if target.len() > ID_LEN || !target.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Error::invalid("target_id", format!("{target:?} is no container id")));
            }
            Ok(PidMode::Target(target.clone()))
        }
    }
}

/// `None` is the host's user namespace, also where nothing is said: kubelets that know of user namespaces
/// always say which mode they mean.
pub(super) fn userns(options: Option<v1::UserNamespace>) -> Result<Option<UsernsOptions>> {
    let Some(options) = options else { return Ok(None) };
    let (uids, gids) = (id_mappings(&options.uids), id_mappings(&options.gids));
    match known("mode", options.mode)? {
        NamespaceMode::Node if uids.is_empty() && gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(Error::invalid("mode", "NODE cannot have mappings")),
        NamespaceMode::Pod => {
            whole("uids", &uids)?;
            whole("gids", &gids)?;
            Ok(Some(UsernsOptions { uids, gids }))
        }
        mode @ (NamespaceMode::Container | NamespaceMode::Target) => {
            Err(Error::invalid("mode", format!("must be POD or NODE, not {}", mode.as_str_name())))
        }
    }
}

/// The kubelet gives a pod one range, which begins with the container's root.
fn whole(field: &str, mappings: &[IdMapping]) -> Result<()> {
    let [mapping] = mappings else {
        let reason = format!("needs exactly one mapping, has {}", mappings.len());
        return Err(Error::invalid(field, reason));
    };
    if mapping.container_id != 0 {
        return Err(Error::invalid(format!("{field}[0].container_id"), "must be 0"));
    }
    if mapping.length == 0 || mapping.host_id.checked_add(mapping.length).is_none() {
        return Err(Error::invalid(format!("{field}[0].length"), "leaves the range of ids"));
    }
    Ok(())
}

pub(super) fn groups_policy(policy: i32) -> Result<GroupsPolicy> {
    Ok(match known("supplemental_groups_policy", policy)? {
        v1::SupplementalGroupsPolicy::Merge => GroupsPolicy::Merge,
        v1::SupplementalGroupsPolicy::Strict => GroupsPolicy::Strict,
    })
}

/// Whether the policy knows them is another question, and its node's.
pub(super) fn selinux(options: v1::SeLinuxOption) -> Result<SelinuxOption> {
    for (part, text, fits) in [
        ("user", &options.user, is_part as fn(&str) -> bool),
        ("role", &options.role, is_part),
        ("type", &options.r#type, is_part),
        ("level", &options.level, is_level),
    ] {
        if !text.is_empty() && !fits(text) {
            let field = format!("selinux_options.{part}");
            return Err(Error::invalid(field, format!("{text:?} is no {part} of SELinux")));
        }
    }
    Ok(SelinuxOption {
        user: options.user,
        role: options.role,
        r#type: options.r#type,
        level: options.level,
    })
}

/// `deprecated` is the older field, a text; it counts only where the newer is not set.
pub(super) fn seccomp(
    profile: Option<v1::SecurityProfile>,
    deprecated: &str,
) -> Result<Option<SecurityProfile>> {
    let (field, profile) = match profile {
        Some(profile) => ("seccomp", Some(of_message("seccomp", &profile)?)),
        None => ("seccomp_profile_path", of_text("seccomp_profile_path", deprecated)?),
    };
    if let Some(SecurityProfile::Localhost(path)) = &profile {
        absolute(&format!("{field}.localhost_ref"), path)?;
    }
    Ok(profile)
}

/// As [`seccomp`].
pub(super) fn apparmor(
    profile: Option<v1::SecurityProfile>,
    deprecated: &str,
) -> Result<Option<SecurityProfile>> {
    match profile {
        Some(profile) => of_message("apparmor", &profile).map(Some),
        None => of_text("apparmor_profile", deprecated),
    }
}

fn of_message(field: &str, profile: &v1::SecurityProfile) -> Result<SecurityProfile> {
    let (kind, reference) = (profile.profile_type, &profile.localhost_ref);
    let reference_field = format!("{field}.localhost_ref");
    let profile = match known(&format!("{field}.profile_type"), kind)? {
        ProfileType::RuntimeDefault => SecurityProfile::RuntimeDefault,
        ProfileType::Unconfined => SecurityProfile::Unconfined,
        ProfileType::Localhost => return local(&reference_field, reference),
    };
    if reference.is_empty() {
        Ok(profile)
    } else {
        Err(Error::invalid(reference_field, "needs the profile type Localhost"))
    }
}

fn of_text(field: &str, text: &str) -> Result<Option<SecurityProfile>> {
    Ok(Some(match text {
        "" => return Ok(None),
        "runtime/default" | "docker/default" => SecurityProfile::RuntimeDefault,
        "unconfined" => SecurityProfile::Unconfined,
        text if text.starts_with("localhost/") => local(field, text)?,
        other => return Err(Error::invalid(field, format!("{other:?} is no profile"))),
    }))
}

/// The prefix belongs to the older fields, but comes in the newer ones too.
fn local(field: &str, reference: &str) -> Result<SecurityProfile> {
    let reference = reference.strip_prefix("localhost/").unwrap_or(reference);
    required(field, reference)?;
    printable(field, reference)?;
    Ok(SecurityProfile::Localhost(reference.to_owned()))
}
