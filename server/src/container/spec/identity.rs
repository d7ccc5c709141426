//! Who the process is: uid, gid and supplementary groups, from the request, the image's USER and its accounts.
//!
//! Both the image's USER and its passwd and group files are hostile. A text that looks like a number is a
//! number, or refused when it is out of range; it is never looked up as a name (an image could then name a
//! user `4294967296`). A line of passwd or group without proper numbers is no entry.

#[cfg(test)]
mod property;

use std::collections::HashSet;

use super::super::config::{GroupsPolicy, Security};
use crate::error::{Error, Result};

/// The largest id: OCI runtimes hold ids in 32 signed bits.
pub(crate) const MAX_ID: i64 = i32::MAX as i64;
/// NGROUPS_MAX of the kernel.
const MAX_GROUPS: usize = 65536;
/// How an error names what is not a field of the request.
const IMAGE_USER: &str = "the image's USER";

/// The image's /etc/passwd and /etc/group; `None` where it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub passwd: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
}

/// The ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// The primary group first, so that a process cannot lose it (CVE-2022-36109); no group twice.
    pub groups: Vec<u32>,
}

/// A user or a group as named in a request or an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named<'a> {
    Id(u32),
    Name(&'a str),
}

/// The identity that the request asks for, else the image, else root.
///
/// # Errors
/// `Invalid` for numbers out of range, for names that the image does not have, and a group without a user.
pub(crate) fn resolve(
    security: &Security,
    image_user: &str,
    accounts: &Accounts,
) -> Result<Identity> {
    let (field, user, group) = chosen(security, image_user)?;
    let entry = match user {
        Named::Id(uid) => accounts.users().find(|user| user.uid == uid),
        Named::Name(name) => {
            let entry = accounts.users().find(|user| user.name == name.as_bytes());
            Some(entry.ok_or_else(|| {
                Error::invalid(field, format!("the image has no user {name:?} in /etc/passwd"))
            })?)
        }
    };
    let uid = match user {
        Named::Id(uid) => uid,
        Named::Name(_) => entry.as_ref().map_or(0, |entry| entry.uid),
    };
    let gid = match group {
        Some(Named::Id(gid)) => gid,
        Some(Named::Name(name)) => accounts
            .groups()
            .find(|group| group.name == name.as_bytes())
            .map(|group| group.gid)
            .ok_or_else(|| {
                Error::invalid(field, format!("the image has no group {name:?} in /etc/group"))
            })?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    let mut groups = Groups::starting_with(gid);
    if let (GroupsPolicy::Merge, Some(entry)) = (security.supplemental_groups_policy, &entry) {
        for group in accounts.groups().filter(|group| group.has(entry.name)) {
            groups.add(group.gid)?;
        }
    }
    for (i, gid) in security.supplemental_groups.iter().enumerate() {
        groups.add(id(&format!("linux.security_context.supplemental_groups[{i}]"), *gid)?)?;
    }
    Ok(Identity { uid, gid, groups: groups.list })
}

/// The field that named the user, the user, and the group where one is named.
fn chosen<'a>(
    security: &'a Security,
    image_user: &'a str,
) -> Result<(&'static str, Named<'a>, Option<Named<'a>>)> {
    let group = security
        .run_as_group
        .map(|gid| id("linux.security_context.run_as_group", gid).map(Named::Id))
        .transpose()?;
    if !security.run_as_username.is_empty() {
        let field = "linux.security_context.run_as_username";
        return Ok((field, named(field, &security.run_as_username)?, group));
    }
    if let Some(uid) = security.run_as_user {
        let field = "linux.security_context.run_as_user";
        return Ok((field, Named::Id(id(field, uid)?), group));
    }
    if group.is_some() {
        return Err(Error::invalid(
            "linux.security_context.run_as_group",
            "needs run_as_user or run_as_username",
        ));
    }
    let (user, group) = match image_user.split_once(':') {
        None => (image_user, ""),
        Some((user, group)) => (user, group),
    };
    if group.contains(':') {
        return Err(Error::invalid(IMAGE_USER, format!("{image_user:?} has more than one ':'")));
    }
    let user = if user.is_empty() { Named::Id(0) } else { named(IMAGE_USER, user)? };
    let group = if group.is_empty() { None } else { Some(named(IMAGE_USER, group)?) };
    Ok((IMAGE_USER, user, group))
}

/// A number where it looks like one, else a name.
fn named<'a>(field: &str, text: &'a str) -> Result<Named<'a>> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Named::Name(text));
    }
    if digits.len() != text.len() {
        return Err(Error::invalid(field, format!("{text:?} is neither a name nor an id")));
    }
    match number(digits.as_bytes()) {
        Some(id) => Ok(Named::Id(id)),
        None => Err(out_of_range(field, text)),
    }
}

/// An id of the request.
///
/// # Errors
/// `Invalid` when it is out of range.
pub(crate) fn id(field: &str, value: i64) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|_| value <= MAX_ID)
        .ok_or_else(|| out_of_range(field, &value.to_string()))
}

fn out_of_range(field: &str, text: &str) -> Error {
    Error::invalid(field, format!("{text} is not an id from 0 to {MAX_ID}"))
}

/// Decimal digits only, in range.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|id| *id <= MAX_ID).and_then(|id| u32::try_from(id).ok())
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Group<'_> {
    fn has(&self, user: &[u8]) -> bool {
        !user.is_empty() && self.members.split(|b| *b == b',').any(|member| member == user)
    }
}

impl Accounts {
    fn users(&self) -> impl Iterator<Item = User<'_>> {
        lines(self.passwd.as_deref()).filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, _) = (fields.next()?, fields.next()?);
            Some(User { name, uid: number(fields.next()?)?, gid: number(fields.next()?)? })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        lines(self.group.as_deref()).filter_map(|line| {
            let mut fields = line.split(|b| *b == b':');
            let (name, _) = (fields.next()?, fields.next()?);
            let gid = number(fields.next()?)?;
            Some(Group { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

fn lines(file: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
    file.unwrap_or_default()
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
}

struct Groups {
    list: Vec<u32>,
    seen: HashSet<u32>,
}

impl Groups {
    fn starting_with(gid: u32) -> Self {
        Self { list: vec![gid], seen: HashSet::from([gid]) }
    }

    fn add(&mut self, gid: u32) -> Result<()> {
        if self.seen.insert(gid) {
            if self.list.len() == MAX_GROUPS {
                return Err(Error::invalid(
                    "linux.security_context.supplemental_groups",
                    format!("with those of the image these are more than {MAX_GROUPS} groups"),
                ));
            }
            self.list.push(gid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
            # a comment:x:9:9::/:/\n\
            app:x:1000:1001::/home/app:/bin/sh\n\
            4294967296:x:0:0::/:/\n\
            wrapped:x:4294967296:4294967296::/:/\n\
            minus:x:-1:0::/:/\n\
            short:x\n";
        let group = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\ndocker:x:998:app,app\n\
            again:x:10:app\nwrapped:x:4294967306:app\n";
        Accounts { passwd: Some(passwd.into()), group: Some(group.into()) }
    }

    fn image(user: &str) -> Result<Identity, String> {
        resolve(&Security::default(), user, &accounts()).map_err(|err| err.to_string())
    }

    #[test]
    fn every_form_of_the_images_user() {
        for (user, uid, gid, groups) in [
            ("", 0, 0, &[0, 10][..]),
            ("root", 0, 0, &[0, 10]),
            ("app", 1000, 1001, &[1001, 10, 998]),
            ("1000", 1000, 1001, &[1001, 10, 998]),
            ("01000", 1000, 1001, &[1001, 10, 998]),
            ("1000:wheel", 1000, 10, &[10, 998]),
            ("app:5", 1000, 5, &[5, 10, 998]),
            ("app:", 1000, 1001, &[1001, 10, 998]),
            (":5", 0, 5, &[5, 10]),
            ("4242", 4242, 0, &[0]),
            ("4242:4343", 4242, 4343, &[4343]),
            ("2147483647", 2147483647, 0, &[0]),
        ] {
            let expected = Identity { uid, gid, groups: groups.to_vec() };
            assert_eq!(image(user), Ok(expected), "{user}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_never_names_and_never_wrap() {
        for user in [
            "2147483648",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "99999999999999999999999999",
            "-1",
            "+1",
            "0:4294967296",
            "app:-5",
        ] {
            assert!(image(user).is_err(), "{user}");
        }
    }

    #[test]
    fn unknown_and_malformed_names_are_refused() {
        for user in [
            "nobody",
            "wrapped",
            "minus",
            "short",
            "a:b:c",
            "app:nogroup",
            "app:wrapped",
            "::",
            " app",
            "x\ny",
            "0x0",
            "-",
        ] {
            assert!(image(user).is_err(), "{user:?}");
        }
        assert_eq!(
            image("nobody").unwrap_err(),
            "the image's USER: the image has no user \"nobody\" in /etc/passwd"
        );
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let by = |security: Security| resolve(&security, "app:wheel", &accounts());
        let uid = by(Security { run_as_user: Some(0), ..Security::default() }).unwrap();
        assert_eq!(uid, Identity { uid: 0, gid: 0, groups: vec![0, 10] });
        let name = by(Security {
            run_as_username: "app".into(),
            run_as_group: Some(7),
            ..Security::default()
        });
        assert_eq!(name.unwrap(), Identity { uid: 1000, gid: 7, groups: vec![7, 10, 998] });
        let alone = by(Security { run_as_group: Some(7), ..Security::default() });
        assert_eq!(
            alone.unwrap_err().to_string(),
            "linux.security_context.run_as_group: needs run_as_user or run_as_username"
        );
        for uid in [-1, MAX_ID + 1, i64::MAX, i64::MIN] {
            assert!(by(Security { run_as_user: Some(uid), ..Security::default() }).is_err());
        }
    }

    #[test]
    fn strict_takes_only_what_the_request_names() {
        let mut security = Security {
            supplemental_groups: vec![10, 20, 20],
            supplemental_groups_policy: GroupsPolicy::Strict,
            ..Security::default()
        };
        assert_eq!(resolve(&security, "app", &accounts()).unwrap().groups, [1001, 10, 20]);
        security.supplemental_groups_policy = GroupsPolicy::Merge;
        assert_eq!(resolve(&security, "app", &accounts()).unwrap().groups, [1001, 10, 998, 20]);
        security.supplemental_groups = vec![-1];
        assert!(resolve(&security, "app", &accounts()).is_err());
    }

    #[test]
    fn an_image_without_accounts_runs_by_number_only() {
        let none = Accounts::default();
        assert_eq!(resolve(&Security::default(), "5", &none).unwrap().uid, 5);
        assert!(resolve(&Security::default(), "root", &none).is_err());
    }
}
