//! How much memory this process may have: its control group's limit, or else the machine's memory.

use std::io;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";
const MEMBERSHIP: &str = "/proc/self/cgroup";
const MACHINE: &str = "/proc/meminfo";

/// The most memory that this process may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemoryLimit {
    /// A control group of this process, or one above it, limits it.
    Cgroup {
        /// The limit.
        bytes: u64,
        /// The file that sets it.
        file: PathBuf,
    },
    /// Only the machine's size limits it.
    Machine {
        /// The machine's memory.
        bytes: u64,
    },
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be read: {source}", file.display())]
pub struct MemoryUnknown {
    file: PathBuf,
    source: io::Error,
}

/// A directory of this process's control group, from which the limits up to the mount point apply.
#[derive(PartialEq, Eq, Debug)]
struct Hierarchy {
    mount: PathBuf,
    group: PathBuf,
    file: &'static str,
}

impl MemoryLimit {
    /// Finds the lowest limit, of cgroup2 or of cgroup1's memory controller.
    ///
    /// # Errors
    /// [`MemoryUnknown`] if the kernel does not tell.
    pub fn read() -> Result<Self, MemoryUnknown> {
        let bytes = of_machine(&read(Path::new(MACHINE))?).unwrap_or(u64::MAX);
        let machine = Self::Machine { bytes };
        let hierarchies = hierarchies(&read(Path::new(MOUNTS))?, &read(Path::new(MEMBERSHIP))?);
        let mut lowest = machine;
        for hierarchy in &hierarchies {
            if let Some(limit) = hierarchy.lowest()?
                && limit.bytes() < lowest.bytes()
            {
                lowest = limit;
            }
        }
        Ok(lowest)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Cgroup { bytes, .. } | Self::Machine { bytes } => *bytes,
        }
    }
}

impl Hierarchy {
    fn lowest(&self) -> Result<Option<MemoryLimit>, MemoryUnknown> {
        let mut lowest: Option<MemoryLimit> = None;
        for group in self.group.ancestors() {
            let file = group.join(self.file);
            // The root has none, and no limit either.
            let bytes = match std::fs::read_to_string(&file) {
                Ok(text) => text.trim().parse::<u64>().ok(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(MemoryUnknown { file, source }),
            };
            if let Some(bytes) = bytes
                && lowest.as_ref().is_none_or(|limit| bytes < limit.bytes())
            {
                lowest = Some(MemoryLimit::Cgroup { bytes, file });
            }
            if group == self.mount {
                break;
            }
        }
        Ok(lowest)
    }
}

fn read(file: &Path) -> Result<String, MemoryUnknown> {
    std::fs::read_to_string(file).map_err(|source| MemoryUnknown {
        file: file.to_owned(),
        source,
    })
}

/// Finds this process's groups in `proc_pid_mountinfo(5)` and `cgroups(7)`. A mount that does not show the
/// group says nothing about it.
fn hierarchies(mounts: &str, membership: &str) -> Vec<Hierarchy> {
    let of_mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let mut fields = file_system.split(' ');
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let (file, group) = match kind {
            "cgroup2" => ("memory.max", group(membership, "")?),
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                ("memory.limit_in_bytes", group(membership, "memory")?)
            }
            _ => return None,
        };
        let below = group.strip_prefix(root).ok()?;
        Some(Hierarchy {
            group: point.join(below),
            mount: point,
            file,
        })
    };
    mounts.lines().filter_map(of_mount).collect()
}

/// Returns the path of the group in the hierarchy with this controller. cgroup2 names none.
fn group<'a>(membership: &'a str, controller: &str) -> Option<&'a Path> {
    membership.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let is_it = controllers.split(',').any(|one| one == controller);
        is_it.then_some(Path::new(path))
    })
}

/// Decodes a path of mountinfo, in which space, tab, newline and backslash are in octal.
fn unescape(text: &str) -> PathBuf {
    let octals = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let decode = |text: String, (octal, plain): &(&str, &str)| text.replace(octal, plain);
    octals.iter().fold(text.to_owned(), decode).into()
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn hierarchy(mount: &str, group: &str, file: &'static str) -> Hierarchy {
        Hierarchy {
            mount: mount.into(),
            group: group.into(),
            file,
        }
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let unified = "30 23 0:26 / /sys/fs/cgroup ro shared:9 - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(
            hierarchies(unified, "0::/kubepods/pod1/agent\n"),
            [hierarchy(
                "/sys/fs/cgroup",
                "/sys/fs/cgroup/kubepods/pod1/agent",
                "memory.max"
            )]
        );
        let hybrid = "35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw - cgroup cgroup rw,memory\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(
            hierarchies(hybrid, "4:cpu:/x\n3:hugetlb,memory:/agent\n0::/\n"),
            [hierarchy(
                "/sys/fs/cgroup/mem ory",
                "/sys/fs/cgroup/mem ory/agent",
                "memory.limit_in_bytes"
            )]
        );
    }

    #[test]
    fn a_mount_of_the_own_group_only_is_its_root_and_another_says_nothing() {
        let own = "35 31 0:32 /docker/a /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            hierarchies(own, "4:memory:/docker/a\n"),
            [hierarchy(
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes"
            )]
        );
        assert_eq!(hierarchies(own, "4:memory:/docker/b\n"), []);
        assert_eq!(hierarchies(own, "0::/docker/a\n"), []);
        assert_eq!(hierarchies("nonsense\n", "nonsense\n"), []);
    }

    #[test]
    fn the_lowest_limit_up_to_the_mount_applies() {
        let mount = std::env::temp_dir().join(format!("ambit-memory-{}", std::process::id()));
        let group = mount.join("outer/inner");
        fs::create_dir_all(&group).expect("makes");
        let found = |inner: &str, outer: &str| {
            fs::write(group.join("memory.max"), inner).expect("writes");
            fs::write(mount.join("outer/memory.max"), outer).expect("writes");
            let hierarchy = Hierarchy {
                mount: mount.clone(),
                group: group.clone(),
                file: "memory.max",
            };
            hierarchy
                .lowest()
                .expect("readable")
                .map(|limit| limit.bytes())
        };
        let all = [
            found("max\n", "max\n"),
            found("4096\n", "max\n"),
            found("4096\n", "1024\n"),
            found("1024\n", "4096\n"),
        ];
        fs::remove_dir_all(&mount).expect("removes");
        assert_eq!(all, [None, Some(4096), Some(1024), Some(1024)]);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(
            of_machine("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 << 10)
        );
        assert_eq!(of_machine("MemFree: 1 kB\n"), None);
        assert!(MemoryLimit::read().expect("readable").bytes() < u64::MAX);
    }
}
