//! A request's body, of which some may have been read while the request was judged, and bodies moved
//! from one stream to another.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Response, StatusCode};

use super::super::gate::{BodyError, JudgedBody};
use super::super::h1::retain_trailers;
use super::super::head::{RequestHead, take_expect};
use super::super::progress::{MessageKind, Progress};

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
        if take_expect(head) {
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

/// Which end of a direction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    /// The sender.
    #[error("the body broke off: {0}")]
    Source(#[source] h2::Error),
    /// The receiver, with what it said.
    #[error("the body is not taken: {0}")]
    Sink(h2::Reason),
}

/// What waits for room. h2 closes a connection on which too many small frames wait, so they are
/// gathered here, bounded by the stream's window, which is given back for what is sent only.
#[derive(Default)]
struct Waiting {
    first: Bytes,
    rest: BytesMut,
}

impl Waiting {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
        } else {
            self.rest.extend_from_slice(&data);
        }
    }

    fn take(&mut self, most: usize) -> Bytes {
        if self.first.is_empty() {
            self.first = std::mem::take(&mut self.rest).freeze();
        }
        self.first.split_to(most.min(self.first.len()))
    }
}

/// Moves a body to its end, `held` first, which was read of it before and whose window was given
/// back then.
pub(super) async fn pump(
    held: Bytes,
    source: &mut RecvStream,
    sink: &mut SendStream<Bytes>,
    (progress, message): (&Progress<'_>, MessageKind),
) -> Result<(), PumpError> {
    let mut released = held.len();
    let mut waiting = Waiting::default();
    waiting.push(held);
    let mut is_read = false;
    while !is_read || waiting.len() > 0 {
        if waiting.len() > 0 {
            sink.reserve_capacity(waiting.len());
        }
        tokio::select! {
            data = source.data(), if !is_read => match data.transpose().map_err(PumpError::Source)? {
                Some(data) => waiting.push(data),
                None => is_read = true,
            },
            room = room(sink, waiting.len() > 0) => {
                let data = waiting.take(room?);
                let length = data.len();
                let is_last = waiting.len() == 0 && source.is_end_stream();
                sink.send_data(data, is_last).map_err(not_taken)?;
                progress.carried(message, length);
                let known = released.min(length);
                released -= known;
                let given = source.flow_control().release_capacity(length - known);
                given.map_err(PumpError::Source)?;
                if is_last {
                    return Ok(());
                }
            }
        }
    }
    match source.trailers().await.map_err(PumpError::Source)? {
        Some(trailers) => {
            let kept = progress.trailers(message, retain_trailers(trailers));
            sink.send_trailers(kept)
        }
        None => sink.send_data(Bytes::new(), true),
    }
    .map_err(not_taken)
}

/// Waits for room, where it is wanted, or for the receiver's reset.
async fn room(sink: &mut SendStream<Bytes>, is_wanted: bool) -> Result<usize, PumpError> {
    poll_fn(|context| {
        if let Poll::Ready(reset) = sink.poll_reset(context) {
            return Poll::Ready(Err(reset.map_or_else(not_taken, PumpError::Sink)));
        }
        if !is_wanted {
            return Poll::Pending;
        }
        while sink.capacity() == 0 {
            match ready!(sink.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(not_taken(error))),
                None => return Poll::Ready(Err(PumpError::Sink(h2::Reason::CANCEL))),
            }
        }
        Poll::Ready(Ok(sink.capacity()))
    })
    .await
}

fn not_taken(error: h2::Error) -> PumpError {
    PumpError::Sink(error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR))
}
