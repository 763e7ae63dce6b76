//! The admin socket in the file system.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use ambit_authority::ensure_creatable;

/// Why the admin socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another agent answers there.
    #[error("another agent answers at {0}; stop it, or give this one another --socket")]
    InUse(PathBuf),
    /// There is something else, which would have to be removed.
    #[error("{0} exists and is not a socket; move it away, or give this agent another --socket")]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("the admin socket {path} could not be made: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Whether [`bind`] would succeed, as far as that can be checked without changing anything.
///
/// # Errors
/// [`AdminError`].
pub fn check(path: &Path) -> Result<(), AdminError> {
    let failed = |source| AdminError::Socket {
        path: path.to_owned(),
        source,
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    if answers(&address).map_err(failed)? {
        return Err(AdminError::InUse(path.to_owned()));
    }
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        Ok(_) | Err(_) => {}
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    ensure_creatable(parent).map_err(failed)
}

/// Whether an agent has the socket. A stopped process still has it, even if its backlog is full.
fn answers(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok(match socket.connect(address) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    })
}

/// Opens the socket. One that a dead agent left is replaced.
///
/// # Errors
/// [`AdminError`].
pub fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    check(path)?;
    let failed = |source| AdminError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_not_removed_and_a_check_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        fs::write(&path, "mine").unwrap();
        for refused in [check(&path), bind(&path).map(drop)] {
            assert!(
                matches!(refused, Err(AdminError::NotASocket(_))),
                "{refused:?}"
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let below_a_file = check(&path.join("admin.sock")).unwrap_err();
        assert!(
            below_a_file.to_string().contains("kept/admin.sock"),
            "{below_a_file}"
        );
        check(&directory.path().join("deep/admin.sock")).unwrap();
        assert!(!directory.path().join("deep").exists());
        let long = directory.path().join("x".repeat(200));
        assert!(matches!(check(&long), Err(AdminError::Socket { .. })));
    }
}
