//! Programs into their links: a new link, pinned, or the place of an earlier agent's program.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::FdLink;

use super::link::{LinkTarget, PinnedLink};
use super::{DatapathError, pins};

/// Puts `program` into the link that is pinned at `path`, where there is one and it is attached to
/// `target`. A link to something else, or to something gone, is removed. `true`: done.
pub(super) fn replace(
    path: &Path,
    program: impl AsFd,
    target: LinkTarget,
) -> Result<bool, DatapathError> {
    let pinned = match PinnedLink::open(path) {
        Ok(pinned) => pinned,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if pinned.info()?.target != target {
        pins::remove(path)?;
        return Ok(false);
    }
    pinned.update(program.as_fd())?;
    Ok(true)
}

/// Pins a new link, which then outlives this process.
pub(super) fn pin(
    link: impl TryInto<FdLink, Error = impl std::error::Error + Send + Sync + 'static>,
    path: &Path,
) -> Result<(), DatapathError> {
    let failed = |source| DatapathError::Pin {
        path: path.to_owned(),
        action: "pinned",
        source,
    };
    let link = link
        .try_into()
        .map_err(|error| failed(io::Error::other(error)))?;
    link.pin(path)
        .map_err(|error| failed(io::Error::other(error)))?;
    Ok(())
}
