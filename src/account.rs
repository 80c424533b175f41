//! Whom xtrace is when it is started as root: an account without rights, and of its own, so that what
//! parses strangers' bytes can change nothing else, and no other program's account opens its data.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::geteuid;

use crate::exit::BadSetting;

/// The account of that name, where a package or an operator made one.
const NAME: &str = "xtrace";
/// Accounts that other programs run as: on Debian `postgres` opens every other cluster, and `nobody` is
/// shared by programs that have none.
const OTHERS: [&str; 3] = ["root", "postgres", "nobody"];
/// User ids that neither distributions nor systemd give out. Source: systemd, "Users, Groups, UIDs and
/// GIDs on systemd Systems".
const OWN_IDS: std::ops::RangeInclusive<u32> = 60_578..=61_183;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// Whom this process runs as.
    pub(crate) fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// Whether the user id has an entry in `/etc/passwd`.
    pub(crate) fn is_named(self) -> bool {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        by_id(&users, self.uid).is_some()
    }

    /// The one that root becomes: the chosen one, else `xtrace`, else the one that owns the data already,
    /// else a user id that nobody has.
    pub(crate) fn of_root(chosen: Option<&str>, data_owner: Option<u32>) -> anyhow::Result<Self> {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::among(&users, &groups, chosen, data_owner)
    }

    fn among(
        users: &str,
        groups: &str,
        chosen: Option<&str>,
        data_owner: Option<u32>,
    ) -> anyhow::Result<Self> {
        if let Some(chosen) = chosen {
            return Self::chosen(users, chosen);
        }
        if let Some(account) = named(users, NAME) {
            return Ok(account);
        }
        if let Some(uid) = data_owner.filter(|uid| OWN_IDS.contains(uid)) {
            return Ok(Self { uid, gid: uid });
        }
        let taken: BTreeSet<u32> = ids(users).chain(ids(groups)).collect();
        let free = OWN_IDS.into_iter().find(|id| !taken.contains(id));
        let free = free.ok_or_else(|| anyhow::anyhow!("no user id is free; set XTRACE_USER"))?;
        Ok(Self {
            uid: free,
            gid: free,
        })
    }

    fn chosen(users: &str, chosen: &str) -> anyhow::Result<Self> {
        let account = named(users, chosen).or_else(|| {
            let uid: u32 = chosen.parse().ok()?;
            by_id(users, uid).or(Some(Self { uid, gid: uid }))
        });
        let Some(account) = account else {
            return Err(BadSetting(format!(
                "XTRACE_USER is {chosen}, and there is no such account"
            ))
            .into());
        };
        let is_other = OTHERS
            .iter()
            .filter_map(|name| named(users, name))
            .any(|other| other.uid == account.uid);
        if is_other || account.uid == 0 || account.uid == u32::MAX {
            return Err(BadSetting(format!(
                "XTRACE_USER is {chosen}; xtrace needs an account of its own, not one of {}",
                OTHERS.join(", ")
            ))
            .into());
        }
        Ok(account)
    }
}

/// The accounts of a file like `/etc/passwd`: name, user id, group id.
fn accounts(users: &str) -> impl Iterator<Item = (&str, Account)> {
    users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, Account { uid, gid }))
    })
}

fn named(users: &str, name: &str) -> Option<Account> {
    accounts(users)
        .find(|(found, _)| *found == name)
        .map(|(_, account)| account)
}

fn by_id(users: &str, uid: u32) -> Option<Account> {
    accounts(users)
        .find(|(_, account)| account.uid == uid)
        .map(|(_, account)| account)
}

/// The third field of every line: user ids of `/etc/passwd`, group ids of `/etc/group`.
fn ids(file: &str) -> impl Iterator<Item = u32> {
    file.lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104::/:/bin/sh\n\
        nobody:x:65534:65534::/:/bin/false\nother:x:60578:60578::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nsome:x:60579:\n";

    #[test]
    fn root_becomes_an_account_of_its_own() {
        let chosen = |users: &str, name: Option<&str>, owner: Option<u32>| {
            Account::among(users, GROUPS, name, owner).map(|account| (account.uid, account.gid))
        };
        assert_eq!(chosen(USERS, None, None).unwrap(), (60_580, 60_580));
        // Data of an older version belongs to root and postgres.
        assert_eq!(chosen(USERS, None, Some(101)).unwrap(), (60_580, 60_580));
        assert_eq!(chosen(USERS, None, Some(60_600)).unwrap(), (60_600, 60_600));
        let with_own = format!("{USERS}xtrace:x:300:301::/:/bin/false\n");
        assert_eq!(chosen(&with_own, None, Some(60_600)).unwrap(), (300, 301));
        assert_eq!(
            chosen(USERS, Some("other"), None).unwrap(),
            (60_578, 60_578)
        );
        assert_eq!(chosen(USERS, Some("1234"), None).unwrap(), (1234, 1234));
        for refused in ["root", "postgres", "nobody", "0", "101", "65534", "missing"] {
            assert!(chosen(USERS, Some(refused), None).is_err(), "{refused}");
        }
    }
}
