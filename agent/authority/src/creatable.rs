//! Whether a file could be made, before anything is.

use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

/// Whether files can be made in a directory, which need not be there: the nearest one above it is
/// looked at then.
///
/// # Errors
/// What the system would answer, as far as it says so before.
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
    fn what_could_be_made_is_not() {
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
