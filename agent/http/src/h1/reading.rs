//! A request's body, read while the request is judged.

use bytes::Bytes;

use super::super::client::Downstream;
use super::super::expect;
use super::super::gate::{BodyError, JudgedBody};
use super::super::head::RequestHead;
use super::body::Body;
use super::chunked::BodyPiece;
use super::client::BufferedClient;
use super::framing::Framing;
use super::malformed::Malformed;

/// The interim answer that has a client send its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A body on its way from a client.
pub(super) struct Reading<'a, D> {
    pub(super) peer: &'a mut BufferedClient<D>,
    pub(super) body: &'a mut Body,
    pub(super) framing: Framing,
}

impl From<Malformed> for BodyError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed {
            status: malformed.status(),
            problem: malformed.to_string(),
        }
    }
}

impl<D: Downstream> JudgedBody for Reading<'_, D> {
    fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    async fn next(&mut self, head: &mut RequestHead) -> Result<Option<Bytes>, BodyError> {
        let BufferedClient { source, sink } = &mut *self.peer;
        loop {
            match self.body.decode_ahead(&mut source.buffer)? {
                BodyPiece::Data(data) => return Ok(Some(data)),
                BodyPiece::End(_) => return Ok(None),
                BodyPiece::NeedsMore => {}
            }
            if expect::take(head) {
                sink.pending.extend_from_slice(CONTINUE);
            }
            sink.flush().await.map_err(|_| BodyError::CutShort)?;
            match source.fill().await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(BodyError::CutShort),
            }
        }
    }

    fn put_back(&mut self, read: Bytes) {
        self.body.put_back(read);
    }
}
