//! What is sent to a client. h2 keeps it until the client's window and connection take it, and drops it when
//! the stream is reset.

use bytes::{Buf, Bytes};
use tokio::sync::oneshot;

/// Bytes of a response.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Bytes,
    #[expect(dead_code, reason = "dropping it tells that h2 has done with this")]
    mark: Option<oneshot::Sender<()>>,
}

/// Resolves when h2 has written a mark and all before it, or has dropped them.
pub(super) type Written = oneshot::Receiver<()>;

impl Payload {
    /// Nothing, and what tells when it has been written.
    pub(super) fn mark() -> (Self, Written) {
        let (mark, written) = oneshot::channel();
        let payload = Self {
            bytes: Bytes::new(),
            mark: Some(mark),
        };
        (payload, written)
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, mark: None }
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
