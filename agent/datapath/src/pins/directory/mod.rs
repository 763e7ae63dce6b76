//! The pin directory: mounting the BPF file system, making the directory, and locking it.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ambit_common::LAYOUT_VERSION;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::geteuid;

/// Where all distributions mount the bpffs.
const USUAL_MOUNT_POINT: &str = "/sys/fs/bpf";

/// The initial process namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Why the pin directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PinDirectoryError {
    /// No bpffs is mounted, and mounting one failed.
    #[error(
        "no BPF file system is mounted at {} and mounting one failed, which needs CAP_SYS_ADMIN: \
         {source}", path.display()
    )]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A bpffs that the agent mounts here would end with the agent.
    #[error(
        "no BPF file system is mounted at {}, and this agent is in a container: one that it mounts \
         would end with it, and with it the protection of its pods. Mount the node's into the \
         container (a hostPath volume of {USUAL_MOUNT_POINT})", path.display()
    )]
    Container {
        /// The mount point.
        path: PathBuf,
    },
    /// A bpffs would be mounted over existing files.
    #[error(
        "the pin directory {} is an ordinary directory with {found} in it, which a BPF file system \
         mounted there would hide; name a directory that is empty or does not exist, or one on a BPF \
         file system, such as {USUAL_MOUNT_POINT}/ambit", path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// The first thing that is in it.
        found: String,
    },
    /// A directory could not be made or opened.
    #[error("the pin directory {} could not be prepared: {source}", path.display())]
    Prepare {
        /// The directory.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Another user owns the directory and could put other programs in it.
    #[error(
        "the pin directory {} belongs to user {owner}, not to the agent's user; remove it or \
         choose another one", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The user id of the owner.
        owner: u32,
    },
    /// The directory has the programs of another layout version, which this agent cannot take over.
    #[error(
        "the pin directory {} holds {found}, the programs and maps of another version of the agent; \
         this one uses v{LAYOUT_VERSION}. Its pods stay closed. Run that version, or opt the pods \
         out, remove the directory and start again", path.display()
    )]
    OtherLayout {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// Another agent uses the directory.
    #[error(
        "another agent is using the pin directory {}; stop it, or give this one a pin directory of \
         its own", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl PinDirectoryError {
    fn prepare(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Prepare {
            path: path.to_owned(),
            source,
        }
    }
}

/// A pin directory that this process has locked, until this is dropped or the process ends.
#[derive(Debug)]
pub struct PinDirectory {
    /// A bpffs has no regular files, so the lock is on the directory itself. It is visible through every mount
    /// of that bpffs, in any container.
    _lock: Flock<File>,
    versioned: PathBuf,
    made: Vec<Made>,
}

/// Something that this start made.
#[derive(Debug)]
pub(crate) enum Made {
    /// A mount of a bpffs at this directory.
    Mount(PathBuf),
    /// A directory.
    Directory(PathBuf),
}

impl PinDirectory {
    /// Makes `base` and its directory for this [`LAYOUT_VERSION`], accessible to the agent's user only, and
    /// locks `base`. If `base` is not on a bpffs, mounts one first: at `/sys/fs/bpf` if `base` is below it, or
    /// else at `base`.
    ///
    /// In a container, it does not mount a bpffs: that would end with the container, and with it the protection
    /// of the pods.
    ///
    /// # Errors
    /// [`PinDirectoryError`]; [`PinDirectoryError::InUse`] while another agent has it.
    pub fn prepare(base: &Path) -> Result<Self, PinDirectoryError> {
        let mut made = Vec::new();
        match prepare(base, &mut made) {
            Ok((lock, versioned)) => Ok(Self {
                _lock: lock,
                versioned,
                made,
            }),
            Err(error) => {
                undo(made);
                Err(error)
            }
        }
    }

    /// Checks whether [`PinDirectory::prepare`] would succeed, as far as possible without changing anything.
    ///
    /// # Errors
    /// [`PinDirectoryError`].
    pub fn check(base: &Path) -> Result<(), PinDirectoryError> {
        missing_mount(base)?;
        if base.symlink_metadata().is_err() {
            return Ok(());
        }
        ensure_own(base, &open(base)?)?;
        ensure_no_other_layout(base)?;
        lock(base).map(drop)
    }

    /// Undoes [`PinDirectory::prepare`]: if this start made the directory for this layout, removes it with all
    /// pins, and then removes what else this start made. Nothing may depend on the pins.
    pub fn undo(self) {
        let is_own = |made: &Made| matches!(made, Made::Directory(path) if *path == self.versioned);
        if self.made.iter().any(is_own)
            && let Err(error) = remove_contents(&self.versioned)
        {
            tracing::warn!(
                path = %self.versioned.display(), %error,
                "what this start has pinned could not be removed"
            );
        }
        undo(self.made);
    }

    /// Returns the directory for pins of this [`LAYOUT_VERSION`].
    pub fn path(&self) -> &Path {
        &self.versioned
    }

    /// Returns a directory in it, which is made if it does not exist.
    ///
    /// # Errors
    /// [`PinDirectoryError`] if it cannot be made or belongs to another user.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, PinDirectoryError> {
        let path = self.versioned.join(name);
        private_directory(&path, &mut Vec::new())?;
        Ok(path)
    }
}

fn prepare(base: &Path, made: &mut Vec<Made>) -> Result<(Flock<File>, PathBuf), PinDirectoryError> {
    ensure_bpffs(base, made)?;
    private_directory(base, made)?;
    let lock = lock(base)?;
    ensure_no_other_layout(base)?;
    let versioned = base.join(format!("v{LAYOUT_VERSION}"));
    private_directory(&versioned, made)?;
    Ok((lock, versioned))
}

/// Removes what was made, in reverse order. Directories that are not empty stay.
fn undo(made: Vec<Made>) {
    for made in made.into_iter().rev() {
        let (path, removed) = match &made {
            Made::Directory(path) => (path, std::fs::remove_dir(path)),
            Made::Mount(path) => {
                let unmounted = umount2(path, MntFlags::MNT_DETACH);
                (path, unmounted.map_err(io::Error::from))
            }
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "what this start has made stays");
        }
    }
}

/// Removes everything in a directory of a bpffs.
fn remove_contents(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Refuses a directory with another layout: its programs are attached to the same hooks.
fn ensure_no_other_layout(base: &Path) -> Result<(), PinDirectoryError> {
    let prepare = PinDirectoryError::prepare(base);
    for entry in std::fs::read_dir(base).map_err(&prepare)? {
        let name = entry.map_err(&prepare)?.file_name();
        let name = name.to_string_lossy();
        let version = name.strip_prefix('v').and_then(|own| own.parse().ok());
        if version.is_some_and(|version: u32| version != LAYOUT_VERSION) {
            return Err(PinDirectoryError::OtherLayout {
                path: base.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

/// Mounts a bpffs, if `base` is not on one.
fn ensure_bpffs(base: &Path, made: &mut Vec<Made>) -> Result<(), PinDirectoryError> {
    match missing_mount(base)? {
        Some(point) => mount_bpffs(point, made),
        None => Ok(()),
    }
}

/// Returns where a bpffs has to be mounted for `base`; `None` if `base` is already on one.
fn missing_mount(base: &Path) -> Result<Option<&Path>, PinDirectoryError> {
    let prepare = PinDirectoryError::prepare(base);
    let existing = base.ancestors().find(|path| path.exists()).unwrap_or(base);
    let file_system = statfs(existing).map_err(|error| prepare(error.into()))?;
    if file_system.filesystem_type() == BPF_FS_MAGIC {
        return Ok(None);
    }
    let usual = Path::new(USUAL_MOUNT_POINT);
    let point = if base.starts_with(usual) { usual } else { base };
    if !outlives_agent() {
        return Err(PinDirectoryError::Container {
            path: point.to_owned(),
        });
    }
    ensure_hides_nothing(point)?;
    Ok(Some(point))
}

/// Refuses a mount point that is not empty, or is a symbolic link.
fn ensure_hides_nothing(point: &Path) -> Result<(), PinDirectoryError> {
    if point.symlink_metadata().is_err() {
        return Ok(());
    }
    open(point)?;
    let entries = std::fs::read_dir(point).map_err(PinDirectoryError::prepare(point));
    match entries?.next() {
        None => Ok(()),
        Some(Err(error)) => Err(PinDirectoryError::prepare(point)(error)),
        Some(Ok(entry)) => Err(PinDirectoryError::Occupied {
            path: point.to_owned(),
            found: entry.file_name().display().to_string(),
        }),
    }
}

/// Mounts a bpffs.
pub(crate) fn mount_bpffs(point: &Path, made: &mut Vec<Made>) -> Result<(), PinDirectoryError> {
    make_directory(point, made).map_err(PinDirectoryError::prepare(point))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), point, Some("bpf"), flags, Some("mode=0700")).map_err(|error| {
        PinDirectoryError::Mount {
            path: point.to_owned(),
            source: error.into(),
        }
    })?;
    made.push(Made::Mount(point.to_owned()));
    tracing::info!(path = %point.display(), "mounted a BPF file system");
    Ok(())
}

/// Whether a file system that this process mounts outlives it: the process is in the initial process namespace
/// and, as far as it may look, in the mount namespace of process 1.
fn outlives_agent() -> bool {
    let namespace = |of: &str| std::fs::read_link(Path::new("/proc").join(of)).ok();
    let is_nodes =
        namespace("self/ns/pid").is_some_and(|own| own == Path::new(INITIAL_PID_NAMESPACE));
    let init = namespace("1/ns/mnt");
    is_nodes && (init.is_none() || init == namespace("self/ns/mnt"))
}

/// Makes a directory and its missing parents, and notes which ones it made.
fn make_directory(path: &Path, made: &mut Vec<Made>) -> io::Result<()> {
    let missing = path.ancestors().take_while(|path| !path.exists());
    let missing: Vec<_> = missing
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => made.push(Made::Directory(directory.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a directory that only the agent's user can access.
fn private_directory(path: &Path, made: &mut Vec<Made>) -> Result<(), PinDirectoryError> {
    make_directory(path, made).map_err(PinDirectoryError::prepare(path))?;
    let directory = open(path)?;
    ensure_own(path, &directory)?;
    directory
        .set_permissions(Permissions::from_mode(0o700))
        .map_err(PinDirectoryError::prepare(path))
}

fn ensure_own(path: &Path, directory: &File) -> Result<(), PinDirectoryError> {
    let metadata = directory.metadata();
    let owner = metadata.map_err(PinDirectoryError::prepare(path))?.uid();
    if owner != geteuid().as_raw() {
        return Err(PinDirectoryError::Foreign {
            path: path.to_owned(),
            owner,
        });
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, PinDirectoryError> {
    open_directory(path).map_err(PinDirectoryError::prepare(path))
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    File::options().read(true).custom_flags(flags).open(path)
}

fn lock(base: &Path) -> Result<Flock<File>, PinDirectoryError> {
    let path = base.to_owned();
    Flock::lock(open(base)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => PinDirectoryError::InUse { path },
        other => PinDirectoryError::Prepare {
            path,
            source: other.into(),
        },
    })
}

#[cfg(test)]
mod tests;
