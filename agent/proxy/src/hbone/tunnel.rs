//! One CONNECT stream.

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::occupancy::Lease;

/// A stream that the other side has accepted.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) send: SendStream<Bytes>,
    pub(crate) receive: RecvStream,
    /// Its place on a pooled connection, given up with it; `None` for a stream that a peer opened.
    pub(crate) lease: Option<Lease>,
}
