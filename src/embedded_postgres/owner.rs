//! Whom Postgres runs as: ourselves, or, for root, an account without rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, bail};

/// The account that owns the data and runs the programs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    /// The account that xtrace runs as.
    Ourselves,
    /// Another one, for xtrace is root and Postgres refuses to be.
    Other { uid: u32, gid: u32 },
}

impl Owner {
    /// `postgres` or `nobody` for root.
    pub(super) fn choose() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("/etc/passwd can't be read")?;
        let named = |name: &str| {
            let mut fields = accounts.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(fields)
            })?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self::Other { uid, gid })
        };
        let Some(owner) = named("postgres").or_else(|| named("nobody")) else {
            bail!(
                "Postgres can't run as root, and there is no account postgres or nobody; run xtrace as another user"
            );
        };
        Ok(owner)
    }

    /// Makes a program run as the owner, apart from the terminal's signals.
    pub(super) fn command(self, program: &Path) -> tokio::process::Command {
        let mut command = std::process::Command::new(program);
        command.process_group(0).current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command.into()
    }

    /// A directory that only the owner can enter.
    pub(super) fn make_private_dir(self, dir: &Path) -> anyhow::Result<()> {
        let context = || format!("the directory {} can't be made private", dir.display());
        fs::create_dir_all(dir).with_context(context)?;
        // Somebody else's link must not make us change what it points to.
        if fs::symlink_metadata(dir)
            .with_context(context)?
            .is_symlink()
        {
            bail!(
                "{} is a link; the private Postgres needs a directory",
                dir.display()
            );
        }
        if let Self::Other { uid, gid } = self {
            chown(dir, Some(uid), Some(gid)).with_context(context)?;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(context)
    }
}
