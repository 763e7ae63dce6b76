//! A CA's files: reading them as one set, and writing new ones.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access, getegid, getgroups};

use crate::error::{CaFilesError, file};
use ambit_input::read_bounded;

/// The signing certificate.
pub(super) const CERTIFICATE: &str = "ca-cert.pem";
/// The signing certificate's key.
pub(super) const KEY: &str = "ca-key.pem";
/// The certificates from the signing one up towards the root.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// The trusted roots.
pub(super) const ROOTS: &str = "root-cert.pem";

/// The names of all of a CA's files.
pub const CA_FILES: [&str; 4] = [CERTIFICATE, KEY, CHAIN, ROOTS];

/// The largest file that is read, in bytes. A Secret cannot be larger.
const LONGEST: u64 = 1024 * 1024;

/// How many times the files are read before they are said to be changing.
const ATTEMPTS: usize = 4;

/// The contents of a CA's files, all from one point in time.
#[derive(PartialEq, Eq)]
pub(super) struct CaFileSet {
    pub(super) directory: PathBuf,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) chain: Option<Vec<u8>>,
    pub(super) roots: Vec<u8>,
}

/// A digest of a set of files, to notice changes without keeping the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([u8; 32]);

impl CaFileSet {
    /// Reads the files until two reads agree: the files of a Secret are all replaced together, possibly
    /// between two reads.
    pub(super) fn read(directory: &Path) -> Result<Self, CaFilesError> {
        let mut last = Self::read_once(directory)?;
        for _ in 1..ATTEMPTS {
            let again = Self::read_once(directory)?;
            if last == again {
                return Ok(again);
            }
            last = again;
        }
        Err(CaFilesError::Changing(directory.to_owned()))
    }

    fn read_once(directory: &Path) -> Result<Self, CaFilesError> {
        let read = |name: &str| read_file(&directory.join(name));
        Ok(Self {
            directory: directory.to_owned(),
            certificate: read(CERTIFICATE)?,
            key: read_key(&directory.join(KEY))?,
            chain: match read(CHAIN) {
                Err(CaFilesError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    None
                }
                chain => Some(chain?),
            },
            roots: read(ROOTS)?,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut context = Context::new(&SHA256);
        let chain = self.chain.as_deref().unwrap_or_default();
        for contents in [&self.certificate, &self.key, chain, &self.roots] {
            context.update(&contents.len().to_be_bytes());
            context.update(contents);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Fingerprint(digest)
    }
}

/// Reads a file that anybody may read.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, CaFilesError> {
    let opened = File::open(path).map_err(file(path))?;
    contents(opened, path)
}

/// Reads a key, and checks that no other user can read or replace it.
pub(super) fn read_key(path: &Path) -> Result<Vec<u8>, CaFilesError> {
    let opened = File::open(path).map_err(file(path))?;
    let metadata = opened.metadata().map_err(file(path))?;
    let groups = own_groups().map_err(file(path))?;
    if is_exposed(metadata.mode(), metadata.gid(), &groups) {
        return Err(CaFilesError::KeyExposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o777,
        });
    }
    contents(opened, path)
}

fn own_groups() -> io::Result<BTreeSet<u32>> {
    let others = getgroups()?.into_iter().chain([getegid()]);
    Ok(others.map(|group| group.as_raw()).collect())
}

/// Whether others than this process can use a key. A group may read it if this process belongs to it: a
/// Secret's volume makes files readable to processes other than root by means of their `fsGroup`.
fn is_exposed(mode: u32, group: u32, own_groups: &BTreeSet<u32>) -> bool {
    mode & 0o027 != 0 || (mode & 0o040 != 0 && !own_groups.contains(&group))
}

fn contents(opened: File, path: &Path) -> Result<Vec<u8>, CaFilesError> {
    read_bounded(opened, LONGEST).map_err(file(path))
}

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// Its owner only.
    Owner,
    /// Everybody who can reach the directory.
    All,
}

/// A CA's directory, locked against other writers.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    locked: Flock<File>,
}

impl Store {
    /// Opens or creates a directory, and waits for other writers.
    pub(super) fn lock(directory: &Path) -> Result<Self, CaFilesError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(file(directory))?;
        let opened = File::open(directory).map_err(file(directory))?;
        let locked = Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, error)| file(directory)(error.into()))?;
        Ok(Self {
            directory: directory.to_owned(),
            locked,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether there is anything of this name, even a dangling link.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Writes a file that does not exist yet. Once this returns, it survives a power loss.
    pub(super) fn write_new(
        &self,
        name: &str,
        contents: &[u8],
        readers: Readers,
    ) -> Result<(), CaFilesError> {
        let path = self.path(name);
        self.write(&path, contents, readers).map_err(file(&path))
    }

    fn write(&self, path: &Path, contents: &[u8], readers: Readers) -> io::Result<()> {
        let temporary = path.with_extension("new");
        // Left by a process that died, since this one holds the lock.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::All => 0o644,
        };
        let mut options = File::options();
        options.write(true).create_new(true).mode(mode);
        let mut written = options.open(&temporary)?;
        written.write_all(contents)?;
        written.sync_all()?;
        // Unlike a rename, a hard link never replaces an existing file.
        fs::hard_link(&temporary, path)?;
        fs::remove_file(&temporary)?;
        self.locked.sync_all()
    }
}

/// Checks that files can be created in a directory. If the directory does not exist, the nearest
/// existing one above it is checked.
///
/// # Errors
/// The error that creating a file would give, as far as it can be predicted.
pub fn ensure_creatable(directory: &Path) -> io::Result<()> {
    let mut above = directory.ancestors();
    let existing =
        above.find(|path| path.as_os_str().is_empty() || path.symlink_metadata().is_ok());
    let existing = match existing {
        Some(path) if !path.as_os_str().is_empty() => path,
        _ => Path::new("."),
    };
    if !existing.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_a_group_of_this_process_may_read_a_key() {
        let own = BTreeSet::from([0, 1337]);
        for (mode, group, exposed) in [
            (0o100_600, 0, false),
            (0o100_400, 99, false),
            (0o100_440, 1337, false),
            (0o100_640, 0, false),
            (0o100_440, 99, true),
            (0o100_660, 1337, true),
            (0o100_644, 0, true),
            (0o100_604, 0, true),
            (0o100_602, 0, true),
        ] {
            assert_eq!(is_exposed(mode, group, &own), exposed, "{mode:o} {group}");
        }
    }

    #[test]
    fn a_check_creates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        ensure_creatable(&at("a/b")).unwrap();
        ensure_creatable(Path::new("nothing-here")).unwrap();
        assert!(!at("a").exists());
        std::fs::write(at("file"), "").unwrap();
        let error = ensure_creatable(&at("file/b")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        ensure_creatable(&at("dangling")).unwrap_err();
    }
}
