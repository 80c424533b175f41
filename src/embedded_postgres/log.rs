//! The log of the private Postgres: a file of bounded size, opened without following links.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The file and the one before it together take twice this.
const BYTES_MAX: u64 = 16 << 20;

/// Opens the log to append to it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)?;
    if !log.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(log)
}

/// Moves what was written aside once it is long. Postgres goes on to write to the end of the same file,
/// which is empty then.
pub(super) fn keep_short(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.len() < BYTES_MAX {
        return Ok(());
    }
    let aside = path.with_extension("log.1");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let mut log = File::options()
        .read(true)
        .write(true)
        .custom_flags(no_follow)
        .open(path)?;
    io::copy(&mut log, &mut copy)?;
    log.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn it_follows_no_link_and_stays_short() {
        let dir = std::env::temp_dir().join(format!("xtrace-log-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("postgres.log");
        let mut log = open(&path).unwrap();
        log.write_all(&vec![b'x'; 17 << 20]).unwrap();
        keep_short(&path).unwrap();
        log.write_all(b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(
            fs::metadata(dir.join("postgres.log.1")).unwrap().len(),
            17 << 20
        );
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.join("elsewhere"), &path).unwrap();
        assert!(open(&path).is_err());
        assert!(!dir.join("elsewhere").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
