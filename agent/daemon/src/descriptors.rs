//! The limit of file descriptors: every connection takes one or more.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limits of this process on open files (RLIMIT_NOFILE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorLimit {
    /// The soft limit, which is in force.
    pub soft: u64,
    /// The hard limit, up to which any process may raise the soft one.
    pub hard: u64,
}

impl DescriptorLimit {
    /// Reads the limits.
    ///
    /// # Errors
    /// If the kernel does not return them.
    pub fn read() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self { soft, hard })
    }

    /// Raises both limits to `limit`, and returns it. More than the hard limit takes CAP_SYS_RESOURCE.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn raise_to(limit: u64) -> io::Result<u64> {
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        Ok(limit)
    }
}
