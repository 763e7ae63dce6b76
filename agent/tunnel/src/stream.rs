//! A stream of a tunnel, as its user holds it.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::failure::{OpenError, StreamFailure};
use crate::frame::{ErrorCode, StreamId};
use crate::session::{Delivery, Session, Sink, set_waker};

/// Shares a connection's session.
#[derive(Clone)]
pub(crate) struct StreamOwner(Rc<RefCell<Session>>);

/// A stream of a tunnel: bytes both ways. If it is dropped before both sides have ended, the peer sees a
/// reset (CANCEL, unless [`Stream::on_drop`] was told another code).
pub struct Stream {
    owner: StreamOwner,
    id: StreamId,
    on_drop: Cell<ErrorCode>,
}

/// Why nothing was read into a stream.
#[derive(Debug)]
pub enum ForwardFailure {
    /// The peer takes nothing any more.
    Stream(StreamFailure),
    /// The source failed. What it gave before was sent.
    Source(io::Error),
}

impl StreamOwner {
    pub(crate) fn new(session: Rc<RefCell<Session>>) -> Self {
        Self(session)
    }

    pub(crate) fn session(&self) -> RefMut<'_, Session> {
        self.0.borrow_mut()
    }

    pub(crate) fn open(&self, authority: &str, forwarded: &str) -> Result<Stream, OpenError> {
        let id = self.session().open(authority, forwarded)?;
        Ok(Stream::new(self.clone(), id))
    }
}

impl fmt::Debug for StreamOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOwner").finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.id.0).finish()
    }
}

impl Stream {
    pub(crate) fn new(owner: StreamOwner, id: StreamId) -> Self {
        Self {
            owner,
            id,
            on_drop: Cell::new(ErrorCode::CANCEL),
        }
    }

    /// Sets the code of the reset that the peer sees if this is dropped before both sides have ended.
    pub fn on_drop(&self, code: ErrorCode) {
        self.on_drop.set(code);
    }

    #[cfg(test)]
    pub(crate) const fn id(&self) -> u32 {
        self.id.0
    }

    pub(crate) fn answer(&self, status: u16) {
        self.owner.session().answer(self.id, status);
    }

    /// Returns the status with which the peer answers the CONNECT.
    ///
    /// # Errors
    /// [`StreamFailure`] if it does not.
    pub async fn answered(&self) -> Result<u16, StreamFailure> {
        poll_fn(|context| self.owner.session().poll_answer(self.id, context)).await
    }

    /// Reads from `source` what it has and the peer takes, at most `most` bytes, and sends it: straight into
    /// the buffer that is encrypted. Returns 0 at the source's end.
    ///
    /// # Errors
    /// [`ForwardFailure`].
    pub fn poll_forward<R: AsyncRead + Unpin>(
        &self,
        context: &mut Context<'_>,
        source: &mut R,
        most: usize,
    ) -> Poll<Result<usize, ForwardFailure>> {
        let mut session = self.owner.session();
        let room = ready!(session.poll_room(self.id, context)).map_err(ForwardFailure::Stream)?;
        let room = room.min(most);
        let put = |out: &mut BytesMut| {
            let mut out = out.limit(room);
            match poll_read_buf(Pin::new(source), context, &mut out) {
                Poll::Ready(Ok(read)) => Ok(read),
                Poll::Ready(Err(error)) => Err(Poll::Ready(Err(ForwardFailure::Source(error)))),
                Poll::Pending => Err(Poll::Pending),
            }
        };
        match session.send(self.id, room, put) {
            Ok(read) => Poll::Ready(Ok(read)),
            Err(not_read) => not_read,
        }
    }

    /// Sends as many bytes as the peer takes, and returns how many.
    ///
    /// # Errors
    /// [`StreamFailure`].
    pub fn poll_send(
        &self,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<Result<usize, StreamFailure>> {
        let mut session = self.owner.session();
        let room = ready!(session.poll_room(self.id, context))?;
        let length = parts.iter().map(|part| part.len()).sum::<usize>().min(room);
        let put = |out: &mut BytesMut| {
            let mut left = length;
            for part in parts {
                let taken = part.len().min(left);
                out.extend_from_slice(&part[..taken]);
                left -= taken;
            }
            Ok::<_, std::convert::Infallible>(length)
        };
        let Ok(sent) = session.send(self.id, length, put);
        Poll::Ready(Ok(sent))
    }

    /// Ends this side, after all that was sent.
    pub fn finish(&self) {
        self.owner.session().finish(self.id);
    }

    /// Resets the stream, after all that was sent.
    pub fn reset(&self, code: ErrorCode) {
        self.owner.session().reset(self.id, code);
    }

    /// Resolves when the peer takes nothing any more.
    pub fn poll_stopped(&self, context: &mut Context<'_>) -> Poll<StreamFailure> {
        self.owner.session().poll_stopped(self.id, context)
    }

    /// Resolves when the stream has failed, and what came before has been read or need not be.
    pub fn poll_broken(&self, context: &mut Context<'_>) -> Poll<StreamFailure> {
        self.owner.session().poll_broken(self.id, context)
    }

    /// Resolves when the stream has failed.
    pub(crate) async fn failed(&self) -> StreamFailure {
        poll_fn(|context| self.poll_stopped(context)).await
    }

    /// Writes what has been received, and what will be, to `sink`.
    pub fn attach(&self, sink: Rc<dyn Sink>) {
        let mut session = self.owner.session();
        if let Some(receiving) = session.receiving(self.id) {
            receiving.attach(sink);
            receiving.write_to_sink();
        }
        session.announce(self.id);
    }

    /// Tries again to write to the sink, which has room.
    pub fn deliver(&self) {
        let mut session = self.owner.session();
        if let Some(receiving) = session.receiving(self.id) {
            receiving.write_to_sink();
        }
        session.announce(self.id);
    }

    /// Discards what was received and what will be.
    pub fn discard(&self) {
        let mut session = self.owner.session();
        if let Some(receiving) = session.receiving(self.id) {
            receiving.discard(io::ErrorKind::BrokenPipe);
        }
        session.announce(self.id);
    }

    /// Resolves when the sink cannot go on by itself.
    pub fn poll_delivery(&self, context: &mut Context<'_>) -> Poll<Delivery> {
        let mut session = self.owner.session();
        let Some(receiving) = session.receiving(self.id) else {
            return Poll::Pending;
        };
        match receiving.delivery() {
            Some(delivery) => Poll::Ready(delivery),
            None => {
                set_waker(&mut receiving.reader, context);
                Poll::Pending
            }
        }
    }

    /// Reads what was received; nothing at the end.
    ///
    /// # Errors
    /// [`StreamFailure`], after all that came before it, unless it overtakes that.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamFailure>> {
        let mut session = self.owner.session();
        let Some(receiving) = session.receiving(self.id) else {
            return Poll::Ready(Ok(()));
        };
        match receiving.delivery() {
            Some(Delivery::Failed(failure)) => return Poll::Ready(Err(failure)),
            Some(Delivery::Ended | Delivery::SinkFailed(_)) => return Poll::Ready(Ok(())),
            Some(Delivery::Blocked) | None => {}
        }
        if !receiving.is_waiting() {
            set_waker(&mut receiving.reader, context);
            return Poll::Pending;
        }
        session.read(self.id, into);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.owner.session().forget(self.id, self.on_drop.get());
    }
}
