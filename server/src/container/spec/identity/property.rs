//! Nobody becomes root by a number that overflows or a name that looks like one (CVE-2024-40635, CVE-2026-46680), and
//! nobody keeps or loses a group by a list (CVE-2022-36109, CVE-2023-25173).

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::config::{GroupsPolicy, Security};
use super::{Accounts, MAX_ID, resolve};

/// Numbers about the edges of 31, 32, 63 and 64 bits, and any other.
fn number() -> impl Strategy<Value = u128> {
    let edges = prop::sample::select(vec![0u32, 8, 16, 31, 32, 63, 64, 65]);
    let about = (edges, 0u128..4, any::<bool>()).prop_map(|(bits, off, above)| {
        let edge = 1u128 << bits;
        if above { edge + off } else { edge.saturating_sub(off) }
    });
    prop_oneof![about, any::<u64>().prop_map(u128::from), 0u128..3000]
}

/// A number as an image may write it: signs, leading zeros.
fn written() -> impl Strategy<Value = (String, Option<u128>)> {
    (number(), prop::sample::select(vec!["", "0", "000", "+", "-", " ", "0x"])).prop_map(
        |(n, lead)| {
            let plain = matches!(lead, "" | "0" | "000");
            (format!("{lead}{n}"), plain.then_some(n))
        },
    )
}

/// Accounts in which `name` is root, as a hostile image would have it.
fn accounts(name: &str) -> Accounts {
    let passwd = format!("root:x:0:0::/:/\n{name}:x:0:0::/:/\n1:x:0:0::/:/\n");
    let group = format!("root:x:0:{name}\n{name}:x:0:\nmany:x:7:root,root,{name}\n");
    Accounts { passwd: Some(passwd.into()), group: Some(group.into()) }
}

fn in_range(n: u128) -> bool {
    n <= u128::try_from(MAX_ID).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_number_is_that_user_or_nobody((text, value) in written()) {
        let accounts = accounts(&text);
        for user in [text.clone(), format!("{text}:7"), format!("{text}:many")] {
            let found = resolve(&Security::default(), &user, &accounts);
            match value {
                Some(n) if in_range(n) => prop_assert_eq!(u128::from(found.unwrap().uid), n),
                Some(_) => prop_assert!(found.is_err(), "{}", user),
                // A sign is never a name; a blank or letters may be one, if the image has it.
                None if text.starts_with(['+', '-']) => prop_assert!(found.is_err(), "{}", user),
                None => {}
            }
        }
    }

    #[test]
    fn a_group_is_that_group_or_none((text, value) in written()) {
        let found = resolve(&Security::default(), &format!("5:{text}"), &accounts(&text));
        match value {
            Some(n) if in_range(n) => prop_assert_eq!(u128::from(found.unwrap().gid), n),
            Some(_) => prop_assert!(found.is_err(), "{}", text),
            None => {}
        }
    }

    #[test]
    fn entries_whose_numbers_overflow_are_none((text, value) in written()) {
        let passwd = format!("user:x:{text}:{text}::/:/\n");
        let accounts = Accounts { passwd: Some(passwd.into()), group: None };
        let found = resolve(&Security::default(), "user", &accounts);
        match value.filter(|n| in_range(*n)) {
            Some(n) => prop_assert_eq!(u128::from(found.unwrap().uid), n),
            // Blanks about a number are not a part of it.
            None => prop_assert!(found.is_err(), "{}", text),
        }
    }

    #[test]
    fn ids_of_a_request_are_taken_as_they_are(uid in any::<i64>(), gid in any::<i64>()) {
        let security = Security { run_as_user: Some(uid), run_as_group: Some(gid), ..Security::default() };
        let fits = |id: i64| (0..=MAX_ID).contains(&id);
        match resolve(&security, "root", &Accounts::default()) {
            Ok(found) => {
                prop_assert_eq!((i64::from(found.uid), i64::from(found.gid)), (uid, gid));
            }
            Err(_) => prop_assert!(!(fits(uid) && fits(gid))),
        }
    }

    #[test]
    fn the_primary_group_comes_first_and_none_comes_twice(
        groups in vec(0i64..20, 0..30), strict: bool, gid in 0i64..20,
    ) {
        let policy = if strict { GroupsPolicy::Strict } else { GroupsPolicy::Merge };
        let security = Security {
            run_as_user: Some(0),
            run_as_group: Some(gid),
            supplemental_groups: groups.clone(),
            supplemental_groups_policy: policy,
            ..Security::default()
        };
        let found = resolve(&security, "", &accounts("other")).unwrap();
        prop_assert_eq!(i64::from(found.groups[0]), gid);
        let mut once = found.groups.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), found.groups.len());
        let mut expected: Vec<u32> = groups.iter().chain([&gid]).map(|id| u32::try_from(*id).unwrap()).collect();
        if !strict {
            expected.push(7);
        }
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(once, expected);
    }
}
