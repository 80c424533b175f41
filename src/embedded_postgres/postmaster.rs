//! The process that owns a data directory, by the file that it writes. The file is only believed if a
//! Postgres of the right user works in that very directory: a number alone could name any process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// The running server of a data directory.
pub(super) fn of(cluster: &Path) -> Option<Pid> {
    let owner = fs::symlink_metadata(cluster).ok()?.uid();
    let file = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let number: i32 = file.lines().next()?.trim().parse().ok()?;
    let pid = Pid::from_raw(Some(number).filter(|number| *number > 1)?)?;
    is_postgres(number, owner, cluster).then_some(pid)
}

fn is_postgres(number: i32, owner: u32, cluster: &Path) -> bool {
    let process = Path::new("/proc").join(number.to_string());
    let is_owners = fs::metadata(&process).is_ok_and(|found| found.uid() == owner);
    // After an upgrade of the package its program is "…/postgres (deleted)".
    let program = fs::read_link(process.join("exe")).unwrap_or_default();
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let is_named = name.trim_end_matches(" (deleted)") == "postgres";
    let works_there = fs::read_link(process.join("cwd")).ok() == fs::canonicalize(cluster).ok();
    is_owners && is_named && works_there
}

/// Asks a server to end its sessions and stop; whether it is gone.
pub(super) fn stop(cluster: &Path, pid: Pid) -> bool {
    if kill_process(pid, Signal::INT).is_err() {
        return true;
    }
    let began = Instant::now();
    while test_kill_process(pid).is_ok() && of(cluster) == Some(pid) {
        if began.elapsed() > STOP_TIMEOUT {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
