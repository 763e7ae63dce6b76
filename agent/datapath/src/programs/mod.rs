//! The kernel programs: the embedded objects, loading them, and attaching them by pinned links.
//!
//! An agent that starts puts its programs into the links that its predecessor left pinned. There is no
//! moment in which no program, or two programs, are attached.

pub(crate) mod node_programs;
pub(crate) mod pod_program;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::FdLink;

use crate::kernel::link::{LinkTarget, PinnedLink};
use crate::{DatapathError, pins};

/// The object with the node's programs: connect, getpeername, getsockname and sock_ops. It is embedded, so
/// that the agent needs no toolchain.
pub(crate) static NODE_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("AMBIT_EBPF_DIR"), "/node.o"));

/// The object with a pod's program, sk_lookup. It is embedded, too.
pub(crate) static POD_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("AMBIT_EBPF_DIR"), "/pod.o"));

/// The path of the object with the classifier, which judges connections that are given as data. Tests and
/// benchmarks load it.
#[cfg(any(test, feature = "testing"))]
pub const CLASSIFIER: &str = concat!(env!("AMBIT_EBPF_DIR"), "/classify.o");

/// Whether the kernel programs log each step (aya-log). Costs a few per cent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelLog {
    /// They do not log.
    Off,
    /// They log at debug level.
    Debug,
}

impl KernelLog {
    /// Whether the programs log.
    pub fn is_on(self) -> bool {
        self == Self::Debug
    }

    /// Returns the value of the programs' `AYA_LOG_LEVEL`.
    pub(crate) fn level(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Debug => 4,
        }
    }
}

/// Puts `program` into the link that is pinned at `path` and returns `true`, if there is one and it is
/// attached to `target`. A link to another target, or to one that is gone, is removed.
pub(crate) fn replace(
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

/// Pins a new link, so that it outlives this process.
pub(crate) fn pin(
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
