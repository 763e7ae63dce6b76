//! Writes an authority's files, one process at a time, each whole or not at all, never over another.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::{CaFilesError, file};

/// Who may read a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Readers {
    /// Its owner.
    Owner,
    /// Everybody who gets as far as the directory.
    All,
}

/// A directory of an authority's files, which nobody else writes meanwhile.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    locked: Flock<File>,
}

impl Store {
    /// Opens a directory, or makes it, and waits for whoever else writes to it.
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

    /// Whether something of that name is there, be it a dangling link.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Writes a file that is not there yet; it survives a loss of power once this returns.
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
        // Of a process that died here: the lock is ours.
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
        // Unlike a rename, a link never replaces what is there.
        fs::hard_link(&temporary, path)?;
        fs::remove_file(&temporary)?;
        self.locked.sync_all()
    }
}
