//! What one connection may take.

use std::time::Duration;

/// Bounds on a connection's requests. Bodies are bounded by nothing but the speed of who reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// From the first byte of a head to its end. Default 60 s.
    pub(crate) head_timeout: Duration,
    /// Bytes of a head, or of the trailers. Default 60 KiB.
    pub(crate) head_size: usize,
    /// How long a client that was told of the connection's end may take to hang up. Default 5 s.
    pub(crate) linger: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(60),
            head_size: 60 << 10,
            linger: Duration::from_secs(5),
        }
    }
}
