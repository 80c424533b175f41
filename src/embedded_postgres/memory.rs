//! How much memory this process may count on: the machine's, or less where a control group says so.

use std::fs;
use std::path::Path;

/// In MiB.
pub(super) fn mib() -> u64 {
    mib_of(Path::new("/"))
}

fn mib_of(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let info = read("proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let machine = kib.unwrap_or(1 << 20) << 10;
    let limits = read("proc/self/cgroup")
        .lines()
        .filter_map(|line| smallest(root, line))
        .min();
    limits.map_or(machine, |limit| limit.min(machine)) >> 20
}

/// The smallest limit of a control group and those above it. In a container its path may be that of the
/// host, which isn't there; the root of what is mounted then is the container's own.
fn smallest(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (controllers, path) = (fields.nth(1)?, fields.next()?);
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mount = root.join(mount);
    let own = mount.join(path.trim_start_matches('/'));
    let groups = own
        .ancestors()
        .take_while(|group| group.starts_with(&mount));
    let limits = groups.filter_map(|group| {
        let limit = fs::read_to_string(group.join(file)).ok()?;
        // "max" is no limit; the first version writes a number that no machine has.
        limit.trim().parse::<u64>().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_of_both_versions_count() {
        let root = std::env::temp_dir().join(format!("xtrace-memory-{}", uuid::Uuid::new_v4()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/meminfo",
            "MemTotal:       67108864 kB\nMemFree: 1 kB\n",
        );
        assert_eq!(mib_of(&root), 65_536);
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/memory.max", "1073741824\n");
        write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(mib_of(&root), 1024);
        write("proc/self/cgroup", "5:cpu:/x\n3:blkio,memory:/docker/abc\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(mib_of(&root), 512);
        write(
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        assert_eq!(mib_of(&root), 65_536);
        fs::remove_dir_all(&root).unwrap();
    }
}
