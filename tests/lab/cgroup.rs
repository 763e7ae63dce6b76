//! Control groups of version 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run::creating;
use crate::wait::eventually;

/// The mount point of cgroup2: not `/sys/fs/cgroup` itself if version 1 is in use too.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    mount_point_in(&mounts)
        .map(PathBuf::from)
        .context("no cgroup2 file system is mounted")
}

fn mount_point_in(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    })
}

/// Makes a group and those above it.
pub(crate) fn create(path: &Path) -> Result<()> {
    let _gate = creating();
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Kills every process in a group and below (`cgroup.kill`, Linux 5.14), and removes the groups.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot kill the processes in {}", path.display()))?;
    eventually(
        Duration::from_secs(10),
        "the end of the lab's processes",
        || {
            let events = fs::read_to_string(path.join("cgroup.events")).ok()?;
            events.contains("populated 0").then_some(())
        },
    )?;
    remove_tree(path)
}

fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("cannot remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_in_a_hybrid_hierarchy() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(mount_point_in(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point_in("cgroup /x cgroup rw 0 0\n"), None);
    }
}
