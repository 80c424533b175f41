//! Whom Postgres runs as: ourselves. A program that embeds xtrace as root (its own tests do) has the
//! account that root would have become.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat};

use crate::account::Account;

/// The account that owns the data and runs the programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    account: Account,
    is_other: bool,
}

impl Owner {
    pub(super) fn choose() -> anyhow::Result<Self> {
        let current = Account::current();
        if current.uid != 0 {
            return Ok(Self {
                account: current,
                is_other: false,
            });
        }
        Ok(Self {
            account: Account::of_root(None, None)?,
            is_other: true,
        })
    }

    /// Makes a program run as the owner, apart from the terminal's signals.
    pub(super) fn command(self, program: &Path) -> tokio::process::Command {
        let mut command = std::process::Command::new(program);
        command.process_group(0).current_dir("/");
        if self.is_other {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        command.into()
    }

    /// The same for `initdb`, which wants to know its user's name: a user id that no account has appears to
    /// it as one that has, in a namespace of its own.
    pub(super) fn command_by_name(self, program: &Path) -> tokio::process::Command {
        if self.account.is_named() {
            return self.command(program);
        }
        let mut command = self.command(Path::new("unshare"));
        let nobody = ["--user", "--map-user=65534", "--map-group=65534", "--"];
        command.args(nobody).arg(program);
        command
    }

    /// Why `initdb` may have failed, if it is the user id.
    pub(super) fn hint(self) -> &'static str {
        if self.account.is_named() {
            return "";
        }
        " (the user id has no account; `useradd --system xtrace` makes one)"
    }

    /// The mode of the directory above the owner's: another owner must be able to pass through.
    pub(super) fn mode_above(self) -> u32 {
        if self.is_other { 0o711 } else { 0o700 }
    }

    /// A directory that only the owner can enter: made, or found and made so. One that is somebody
    /// else's, or a link, is left alone.
    pub(super) fn make_private_dir(self, dir: &Path) -> anyhow::Result<()> {
        let context = || format!("the directory {} can't be made private", dir.display());
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(context);
            }
            _ => {}
        }
        if fs::symlink_metadata(dir).is_ok_and(|found| found.is_symlink()) {
            bail!(
                "{} is a link; the private Postgres needs a directory",
                dir.display()
            );
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, dir, flags, Mode::empty()).with_context(context)?;
        let found = fstat(&opened).with_context(context)?.st_uid;
        if ![self.account.uid, Account::current().uid].contains(&found) {
            bail!(
                "{} belongs to user id {found}, and is left alone; remove it",
                dir.display()
            );
        }
        if self.is_other {
            let (uid, gid) = (self.account.uid, self.account.gid);
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchown(&opened, Some(uid), Some(gid)).with_context(context)?;
        }
        fchmod(&opened, Mode::from_raw_mode(0o700)).with_context(context)
    }
}
