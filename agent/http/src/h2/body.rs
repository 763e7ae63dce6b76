//! Bodies: a request's, which may have been read in part while it was judged, and the copying of
//! bodies from one stream to another.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::{sleep, timeout};

use super::super::gate::{BodyError, JudgedBody};
use super::super::head::{RequestHead, take_expect};
use super::super::progress::{BodyProgress, PumpError};
use super::payload::Payload;
use super::unwritten::Unwritten;
use super::windows::Window;

/// How long a receiver may take nothing of what a sender sent before it broke off. As long as the kernel
/// keeps what a closed connection has sent.
const STALLED: Duration = Duration::from_secs(120);

/// A client's body.
pub(super) struct Body {
    pub(super) stream: RecvStream,
    /// Bytes that have been read and not passed on yet. Their window was released when they were read.
    pub(super) held: Bytes,
    length: Option<u64>,
}

/// A client's body, for the gate to read.
pub(super) struct ReadableBody<'a, 'b> {
    pub(super) body: &'a mut Body,
    pub(super) respond: &'a RefCell<&'b mut SendResponse<Payload>>,
}

impl Body {
    /// A body with this Content-Length.
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

    /// Whether there are neither bytes nor trailers to pass on.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.stream.is_end_stream()
    }
}

impl JudgedBody for ReadableBody<'_, '_> {
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

/// Bytes that wait for the receiver's window. They are gathered here, since h2 closes a connection on
/// which too many small frames wait. They are bounded by the sender's window, which is released only
/// for bytes that were sent.
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

/// Copies a body with its trailers to its end. `held` comes first: it was read before, and its window
/// was released then. If the sender breaks off, what it had sent is passed on before this fails.
pub(super) async fn pump<B: Buf + From<Bytes>>(
    held: Bytes,
    source: &mut RecvStream,
    sink: &mut SendStream<B>,
    window: &Window,
    progress: BodyProgress<'_>,
) -> Result<(), PumpError<h2::Error, Reason>> {
    let mut unwritten = Unwritten::default();
    let mut released = held.len();
    let mut waiting = Waiting::default();
    waiting.push(held);
    let mut reading = Reading::Open;
    while matches!(reading, Reading::Open) || waiting.len() > 0 {
        if waiting.len() > 0 {
            sink.reserve_capacity(waiting.len());
        }
        tokio::select! {
            data = source.data(), if matches!(reading, Reading::Open) => match data.transpose() {
                Ok(Some(data)) => waiting.push(data),
                Ok(None) => reading = Reading::Ended,
                Err(error) => reading = Reading::BrokenOff(error),
            },
            room = room(sink, waiting.len() > 0) => {
                let data = waiting.take(room?);
                let length = data.len();
                let is_last = waiting.len() == 0
                    && !matches!(reading, Reading::BrokenOff(_))
                    && source.is_end_stream();
                let data = unwritten.count(data);
                sink.send_data(data.into(), is_last).map_err(not_taken)?;
                progress.carried(length);
                if is_last {
                    while !unwritten.is_empty() {
                        unwritten.written().await;
                    }
                    return Ok(());
                }
            }
            written = unwritten.written() => {
                let known = released.min(written);
                released -= known;
                // A stream that has been reset in the meantime has no window.
                let _ = source.flow_control().release_capacity(written - known);
                window.passed(written - known);
            }
            () = stalled(), if matches!(reading, Reading::BrokenOff(_)) => {
                return Err(PumpError::Sink(Reason::CANCEL));
            }
        }
    }
    if let Reading::BrokenOff(error) = reading {
        return Err(PumpError::Source(error));
    }
    while !unwritten.is_empty() {
        unwritten.written().await;
    }
    match source.trailers().await.map_err(PumpError::Source)? {
        Some(mut trailers) => {
            progress.retain_trailers(&mut trailers);
            sink.send_trailers(trailers)
        }
        None => sink.send_data(Bytes::new().into(), true),
    }
    .map_err(not_taken)
}

/// Resolves when a receiver has taken nothing for too long.
async fn stalled() {
    sleep(STALLED).await;
}

/// The state of the sender's side.
enum Reading {
    Open,
    Ended,
    BrokenOff(h2::Error),
}

/// Waits until h2 has written what was sent on a stream, so that a reset does not overtake it.
pub(super) async fn written(sink: &mut SendStream<Payload>) {
    let (mark, written) = Payload::mark();
    if sink.send_data(mark, false).is_ok() {
        // The mark is dropped, too, if the stream is reset.
        let _ = timeout(STALLED, written).await;
    }
}

/// Ends a response without a body when its head has been written, or the stream is reset.
pub(super) async fn end_written(sink: &mut SendStream<Payload>) -> Result<(), Option<Reason>> {
    let (mark, written) = Payload::mark();
    let sent = sink.send_data(mark, true);
    sent.map_err(|error| error.reason())?;
    let _ = written.await;
    Ok(())
}

/// Waits for the receiver's window, if it is wanted, or for the receiver's reset.
async fn room<B: Buf>(
    sink: &mut SendStream<B>,
    is_wanted: bool,
) -> Result<usize, PumpError<h2::Error, Reason>> {
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
                None => return Poll::Ready(Err(PumpError::Sink(Reason::CANCEL))),
            }
        }
        Poll::Ready(Ok(sink.capacity()))
    })
    .await
}

fn not_taken(error: h2::Error) -> PumpError<h2::Error, Reason> {
    PumpError::Sink(error.reason().unwrap_or(Reason::INTERNAL_ERROR))
}
