//! A request's body, of which some may have been read while the request was judged.

use std::cell::RefCell;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Response, StatusCode};

use super::super::expect;
use super::super::gate::{BodyError, JudgedBody};
use super::super::head::RequestHead;

/// A body on its way from a client.
pub(super) struct Body {
    pub(super) stream: RecvStream,
    /// What was read of it, and is not passed on yet. Its window was given back when it was read.
    pub(super) held: Bytes,
    length: Option<u64>,
}

/// A body that is read while its request is judged.
pub(super) struct Reading<'a, 'b> {
    pub(super) body: &'a mut Body,
    pub(super) respond: &'a RefCell<&'b mut SendResponse<Bytes>>,
}

impl Body {
    /// A body that is as long as `length` says.
    pub(super) fn new(stream: RecvStream, length: Option<&HeaderValue>) -> Self {
        let declared = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            length: match stream.is_end_stream() {
                true => Some(0),
                false => declared,
            },
            stream,
            held: Bytes::new(),
        }
    }

    /// Whether nothing is to be passed on, nor trailers.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.stream.is_end_stream()
    }
}

impl JudgedBody for Reading<'_, '_> {
    fn length(&self) -> Option<u64> {
        self.body.length
    }

    async fn next(&mut self, head: &mut RequestHead) -> Result<Option<Bytes>, BodyError> {
        let stream = &mut self.body.stream;
        if stream.is_end_stream() {
            return Ok(None);
        }
        if expect::take(head) {
            let mut interim = Response::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            let told = self.respond.borrow_mut().send_informational(interim);
            told.map_err(|_| BodyError::CutShort)?;
        }
        let Some(data) = stream.data().await else {
            return Ok(None);
        };
        let data = data.map_err(|_| BodyError::CutShort)?;
        let released = stream.flow_control().release_capacity(data.len());
        released.map_err(|_| BodyError::CutShort)?;
        Ok(Some(data))
    }

    fn put_back(&mut self, read: Bytes) {
        self.body.held = read;
    }
}
