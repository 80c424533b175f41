//! Root is left before anything listens: the data directory is handed to an account without rights, and
//! the process becomes that account.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, openat,
};
use rustix::process::{geteuid, umask};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use crate::account::Account;
use crate::config::Command;
use crate::embedded_postgres::EmbeddedPostgres;

/// Makes a process that was started as root an ordinary one, once and for all. Must be called before
/// there are threads, since Linux changes the user of one thread.
pub fn leave_root(command: &mut Command) -> anyhow::Result<()> {
    let Some((database, user)) = command.database_mut() else {
        return Ok(());
    };
    if !geteuid().is_root() {
        set_no_new_privs(true)?;
        return Ok(());
    }
    // Where root keeps data is no longer to be known from the user afterwards.
    let data_dir = database.pin_data_dir()?;
    let owner = match fs::symlink_metadata(&data_dir) {
        Ok(found) if found.is_dir() => Some(found.uid()),
        Ok(_) => bail!("the data directory {} is no directory", data_dir.display()),
        Err(_) => None,
    };
    let account = match owner {
        Some(uid) if EmbeddedPostgres::is_in_use(&data_dir) => running_owner(&data_dir, uid)?,
        _ => {
            let account = Account::of_root(user.as_deref(), owner)?;
            if command.keeps_files() && owner != Some(account.uid) {
                hand_over(&data_dir, account).with_context(|| {
                    format!(
                        "the data directory {} can't be handed over",
                        data_dir.display()
                    )
                })?;
            }
            account
        }
    };
    become_account(account)?;
    tracing::info!(
        uid = account.uid,
        "started as root; running as an account without rights"
    );
    if command.keeps_files() && fs::read_dir(&data_dir).is_err() {
        bail!(
            "user id {} can't reach the data directory {}; choose another one by XTRACE_DATA_DIR",
            account.uid,
            data_dir.display()
        );
    }
    Ok(())
}

/// Of an xtrace that runs: what it owns is left as it is.
fn running_owner(data_dir: &Path, uid: u32) -> anyhow::Result<Account> {
    if uid == 0 {
        bail!(
            "an older xtrace runs as root on {}; restart it with this version first",
            data_dir.display()
        );
    }
    let gid = fs::symlink_metadata(data_dir)?.gid();
    Ok(Account { uid, gid })
}

fn become_account(account: Account) -> anyhow::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        bail!("there are threads already; their user can't be changed together");
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    let changed = set_thread_groups(&[gid])
        .and_then(|()| set_thread_gid(gid))
        .and_then(|()| set_thread_uid(uid))
        .and_then(|()| set_no_new_privs(true));
    changed.context(
        "root can't become an ordinary user here (a container without those capabilities?); start xtrace \
         as one",
    )?;
    if geteuid().is_root() || set_thread_uid(Uid::ROOT).is_ok() {
        bail!("the rights of root are still there");
    }
    umask(Mode::from_raw_mode(0o077));
    Ok(())
}

/// Gives a directory and all that is in it to an account, itself last: while it belongs to somebody else,
/// the work is not done. A Postgres that still runs there as another user is stopped first.
fn hand_over(data_dir: &Path, to: Account) -> anyhow::Result<()> {
    fs::create_dir_all(data_dir)?;
    EmbeddedPostgres::stop_orphan(data_dir)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, data_dir, flags, Mode::empty())?;
    give_content(&dir, to)?;
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o700))?;
    fchown(&dir, Some(uid), Some(gid))?;
    Ok(())
}

/// By descriptors alone: who owned the directory may exchange names while this looks at them. A file of
/// several names could be one of root's that was linked here.
fn give_content(dir: &OwnedFd, to: Account) -> anyhow::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid)));
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let shown = name.to_string_lossy();
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(dir, name, look, Mode::empty())?;
        let stat = fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let inner = openat(&found, c".", read, Mode::empty())?;
                give_content(&inner, to)?;
                fchown(&inner, uid, gid)?;
            }
            FileType::RegularFile | FileType::Symlink | FileType::Socket if stat.st_nlink == 1 => {
                chownat(found.as_fd(), c"", uid, gid, AtFlags::EMPTY_PATH)?;
            }
            FileType::RegularFile | FileType::Symlink | FileType::Socket => {
                bail!(
                    "{shown} has several names, one of which may be elsewhere; look at it and remove it"
                );
            }
            _ => bail!("{shown} is neither file nor directory; look at it and remove it"),
        }
    }
    Ok(())
}
