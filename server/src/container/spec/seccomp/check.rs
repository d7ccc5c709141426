//! Whether a profile that somebody wrote means what it says.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

/// OCI runtimes leave out, in silence, what their libseccomp does not know. A call that a profile allows and that
/// does not exist is no loss; one that it forbids would go through.
///
/// # Errors
/// Which rule names what that is no system call.
pub(crate) fn check(profile: &LinuxSeccomp) -> Result<(), String> {
    for (i, rule) in profile.syscalls().iter().flatten().enumerate() {
        let confines = !matches!(rule.action(), Action::ScmpActAllow | Action::ScmpActLog);
        if !confines || rule.action() == profile.default_action() {
            continue;
        }
        if let Some(name) = rule.names().iter().find(|name| !is_call(name)) {
            return Err(format!(
                "syscalls[{i}].names: {name:?} is no system call, so it would not be stopped"
            ));
        }
    }
    Ok(())
}

/// Whether Linux has a system call of that name, on any architecture.
pub(super) fn is_call(name: &str) -> bool {
    let lines = include_str!("names.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(|line| line.split(' ')).any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(profile: &serde_json::Value) -> Result<(), String> {
        check(&serde_json::from_value(profile.clone()).unwrap())
    }

    #[test]
    fn what_would_not_be_stopped_is_told() {
        let rule = |default: &str, action: &str, name: &str| serde_json::json!({"defaultAction": default, "syscalls": [{"names": ["read", name], "action": action}]});
        const ALLOW: &str = "SCMP_ACT_ALLOW";
        const ERRNO: &str = "SCMP_ACT_ERRNO";
        assert_eq!(checked(&rule(ALLOW, ERRNO, "chmod")), Ok(()));
        for action in [ERRNO, "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
            let err = checked(&rule(ALLOW, action, "chmd")).unwrap_err();
            assert!(err.starts_with("syscalls[0].names: \"chmd\" is no system call"), "{err}");
        }
        // Of a newer kernel, perhaps.
        assert_eq!(checked(&rule(ERRNO, ALLOW, "chmd")), Ok(()));
        assert_eq!(checked(&rule(ERRNO, ERRNO, "chmd")), Ok(()));
    }
}
