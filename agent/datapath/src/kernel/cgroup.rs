//! The cgroup2 hierarchy: where it is mounted, how the kernel programs name its cgroups, and which
//! processes are below one.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::kernel::netns::NetnsError;

/// Inode, and so id, of the hierarchy's root.
const ROOT_ID: u64 = 1;

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 hierarchy.
    #[error(
        "no cgroup2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup/unified) \
         or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// Only a part of the hierarchy is mounted.
    #[error(
        "the cgroup2 mount at {} does not show the node's whole hierarchy; run the agent in the \
         node's cgroup namespace or mount the node's /sys/fs/cgroup into its container",
        path.display()
    )]
    PartialMount {
        /// The mount point.
        path: PathBuf,
    },
    /// The directory is not a cgroup.
    #[error("{} is not a directory of the cgroup2 hierarchy at {}", path.display(), mount.display())]
    NotBelow {
        /// The directory.
        path: PathBuf,
        /// The mount point.
        mount: PathBuf,
    },
    /// The agent is in another cgroup namespace than the node.
    #[error(
        "the agent runs in a cgroup namespace, where it cannot tell which processes are below {}; \
         run it in the node's cgroup namespace, or attach it to the root of the hierarchy",
        path.display()
    )]
    Namespaced {
        /// The cgroup.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("{} could not be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A pod's network namespace could not be compared.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// The mount of the cgroup2 hierarchy. It may be at `/sys/fs/cgroup`, at `/sys/fs/cgroup/unified` beside the
/// hierarchies of cgroup1, or anywhere else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CgroupMount {
    point: PathBuf,
    /// Whether this process is in the node's cgroup namespace.
    same_namespace: bool,
}

impl CgroupMount {
    /// Finds the mount.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`]; [`CgroupError::PartialMount`] if only a part of the hierarchy is mounted,
    /// so that depths below its root are unknown.
    pub fn find() -> Result<Self, CgroupError> {
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let mount = Self::of_mountinfo(&mounts).ok_or(CgroupError::NotMounted)?;
        if inode(&mount.point)? != ROOT_ID {
            return Err(CgroupError::PartialMount { path: mount.point });
        }
        Ok(mount)
    }

    /// Returns the first cgroup2 mount that shows the root, or else the first one (`proc_pid_mountinfo(5)`).
    fn of_mountinfo(mounts: &str) -> Option<Self> {
        let mut found = None;
        for line in mounts.lines() {
            let (mount, file_system) = line.split_once(" - ")?;
            if file_system.split(' ').next() != Some("cgroup2") {
                continue;
            }
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            // Seen from another cgroup namespace the hierarchy's root is /.. or farther up.
            let same_namespace = root == "/";
            let mount = Self {
                point: unescape(point),
                same_namespace,
            };
            if same_namespace {
                return Some(mount);
            }
            found = found.or(Some(mount));
        }
        found
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Returns a cgroup by its directory, which is absolute or relative to the mount point.
    ///
    /// # Errors
    /// [`CgroupError::NotBelow`] for any other path.
    pub fn cgroup(&self, path: &Path) -> Result<CgroupPath, CgroupError> {
        let not_below = || CgroupError::NotBelow {
            path: path.to_owned(),
            mount: self.point.clone(),
        };
        let absolute = self
            .point
            .join(path)
            .canonicalize()
            .map_err(|_| not_below())?;
        let mount = self.point.canonicalize().map_err(|_| not_below())?;
        let below = absolute
            .strip_prefix(&mount)
            .map_err(|_| not_below())?
            .to_owned();
        let file_system = statfs(&absolute).map_err(|_| not_below())?;
        if file_system.filesystem_type() != CGROUP2_SUPER_MAGIC || !absolute.is_dir() {
            return Err(not_below());
        }
        let id = inode(&absolute)?;
        Ok(CgroupPath {
            absolute,
            below,
            id,
            same_namespace: self.same_namespace,
        })
    }
}

/// A cgroup of the cgroup2 hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CgroupPath {
    absolute: PathBuf,
    below: PathBuf,
    id: u64,
    same_namespace: bool,
}

impl CgroupPath {
    /// Returns its directory.
    pub fn path(&self) -> &Path {
        &self.absolute
    }

    /// Returns its id, which `bpf_get_current_ancestor_cgroup_id` gives. On 64-bit systems it is the inode of
    /// the directory (`kernfs_node_id`).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns its depth. The root of the hierarchy has depth 0.
    pub fn level(&self) -> u32 {
        self.below.components().count() as u32
    }

    /// Opens the directory, to attach programs to it.
    ///
    /// # Errors
    /// [`CgroupError::Read`] if the cgroup has been removed.
    pub fn open(&self) -> Result<File, CgroupError> {
        File::open(&self.absolute).map_err(|source| CgroupError::Read {
            path: self.absolute.clone(),
            source,
        })
    }

    /// Whether a process is in this cgroup or below it; `None` if the process does not exist.
    ///
    /// # Errors
    /// [`CgroupError::Namespaced`] if the agent cannot see the process's cgroup.
    pub fn contains_process(&self, pid: u32) -> Result<Option<bool>, CgroupError> {
        if self.level() == 0 {
            return Ok(Some(true));
        }
        if !self.same_namespace {
            return Err(CgroupError::Namespaced {
                path: self.absolute.clone(),
            });
        }
        match read(&PathBuf::from(format!("/proc/{pid}/cgroup"))) {
            Ok(text) => Ok(Some(self.contains_membership(&text))),
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the cgroup2 line of a `/proc/PID/cgroup` (`cgroups(7)`) lies below this cgroup.
    fn contains_membership(&self, text: &str) -> bool {
        let line = text.lines().find_map(|line| line.strip_prefix("0::/"));
        line.is_some_and(|path| {
            let climbs = Path::new(path)
                .components()
                .any(|part| part == Component::ParentDir);
            !climbs && Path::new(path).starts_with(&self.below)
        })
    }
}

/// Whether an error about a file in /proc/PID means that the process does not exist.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })
}

fn inode(path: &Path) -> Result<u64, CgroupError> {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(metadata.ino())
}

/// Decodes a path of mountinfo, in which space, tab, newline and backslash are in octal.
fn unescape(text: &str) -> PathBuf {
    let mut path = text.to_owned();
    for (octal, character) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        path = path.replace(octal, character);
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestCgroup, is_root};

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw\n";
        let found = CgroupMount::of_mountinfo(hybrid).expect("found");
        assert_eq!(found.point, Path::new("/sys/fs/cgroup/uni fied"));
        assert!(found.same_namespace);

        let own = "30 23 0:26 /../.. /host/cgroup ro - cgroup2 cgroup rw\n";
        let container = format!("{own}29 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        assert!(
            !CgroupMount::of_mountinfo(own)
                .expect("found")
                .same_namespace
        );
        let found = CgroupMount::of_mountinfo(&container).expect("found");
        assert_eq!(found.point, Path::new("/sys/fs/cgroup"));

        let none = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(CgroupMount::of_mountinfo(none), None);
    }

    #[test]
    fn levels_and_ids_count_from_the_root() {
        if !is_root() {
            return;
        }
        let mount = CgroupMount::find().expect("mounted");
        let root = mount.cgroup(mount.path()).expect("a cgroup");
        assert_eq!((root.level(), root.id()), (0, ROOT_ID));
        let outer = TestCgroup::make(&mount, "levels");
        std::fs::create_dir(outer.0.path().join("inner")).expect("makes");
        let inner = TestCgroup(
            mount
                .cgroup(&outer.0.path().join("inner"))
                .expect("a cgroup"),
        );
        assert_eq!((outer.0.level(), inner.0.level()), (1, 2));
        assert_ne!(outer.0.id(), inner.0.id());
        drop((inner, outer));
    }

    #[test]
    fn paths_outside_the_hierarchy_are_refused() {
        if !is_root() {
            return;
        }
        let mount = CgroupMount::find().expect("mounted");
        for path in ["/", "/proc", "..", "no-such-cgroup", "cgroup.procs"] {
            let error = mount.cgroup(Path::new(path)).expect_err(path);
            assert!(matches!(error, CgroupError::NotBelow { .. }), "{error}");
        }
    }

    #[test]
    fn membership_is_by_whole_names_below_the_cgroup() {
        let cgroup = CgroupPath {
            absolute: "/sys/fs/cgroup/pods/a".into(),
            below: "pods/a".into(),
            id: 2,
            same_namespace: true,
        };
        for (text, inside) in [
            ("0::/pods/a\n", true),
            ("4:memory:/x\n0::/pods/a/container\n", true),
            ("0::/pods/a (deleted)\n", false),
            ("0::/pods/ab\n", false),
            ("0::/pods\n", false),
            ("0::/\n", false),
            ("0::/../pods/a\n", false),
            ("0::/pods/a/../b\n", false),
            ("4:memory:/pods/a\n", false),
            ("", false),
        ] {
            assert_eq!(cgroup.contains_membership(text), inside, "{text}");
        }
    }

    #[test]
    fn another_namespaces_view_is_an_error_except_at_the_root() {
        let root = CgroupPath {
            absolute: "/host/cgroup".into(),
            below: PathBuf::new(),
            id: ROOT_ID,
            same_namespace: false,
        };
        assert_eq!(root.contains_process(1).expect("root"), Some(true));
        let below = CgroupPath {
            below: "pods".into(),
            ..root
        };
        let error = below.contains_process(1).expect_err("namespaced");
        assert!(matches!(error, CgroupError::Namespaced { .. }), "{error}");
    }
}
