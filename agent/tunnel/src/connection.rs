//! Drives a tunnel's connection: reads, delivers, encrypts, writes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ambit_account::{AccountExhausted, PodAccount};
use tokio::time::{Sleep, sleep};

use crate::failure::{OpenError, TunnelFailure};
use crate::frame::ErrorCode;
use crate::head::RequestHead;
use crate::session::{Arrival, Role, Session};
use crate::stream::{Stream, StreamOwner};
use crate::wire::{Received, Wire};

/// How often one turn reads. Other tasks get their turn then.
const READS: usize = 2;

/// How long a peer may be silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// A peer from which nothing came for so long is pinged.
    pub every: Duration,
    /// If nothing at all comes for so long after that, it is given up. What comes first may be anything: an
    /// answer to a PING waits behind data on a thin link.
    pub timeout: Duration,
}

/// A request on a tunnel that a peer opened.
#[derive(Debug)]
pub enum Incoming {
    /// A stream, to be answered.
    Request(RequestHead, Responder),
    /// A stream that there was no memory for; it was answered with 503.
    NoMemory(AccountExhausted),
}

/// Answers a request. If it is dropped, the peer sees a reset.
#[derive(Debug)]
pub struct Responder(Stream);

/// A tunnel's connection. It does nothing unless [`Connection::next`] is polled.
pub struct Connection<W> {
    wire: W,
    session: Rc<RefCell<Session>>,
    alive: Alive,
    /// What the kernel was last told to take ahead.
    limit: usize,
}

/// Opens streams on a connection.
#[derive(Clone, Debug)]
pub struct Opener(StreamOwner);

/// Watches whether the peer is there.
struct Alive {
    keep: KeepAlive,
    timer: Pin<Box<Sleep>>,
    /// Whether anything came, or went, since the timer was set.
    heard: bool,
    pinged: bool,
}

/// Begins a tunnel towards a peer.
pub fn connect<W: Wire>(wire: W, memory: PodAccount, keep: KeepAlive) -> (Opener, Connection<W>) {
    let connection = Connection::new(wire, Role::Client, memory, keep);
    let owner = StreamOwner::new(Rc::clone(&connection.session));
    (Opener(owner), connection)
}

/// Begins a tunnel from a peer.
pub fn accept<W: Wire>(wire: W, memory: PodAccount, keep: KeepAlive) -> Connection<W> {
    Connection::new(wire, Role::Server, memory, keep)
}

impl Opener {
    /// Opens a stream by a CONNECT to `authority`. `forwarded` is the value of the header of that name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, authority: &str, forwarded: &str) -> Result<Stream, OpenError> {
        self.0.open(authority, forwarded)
    }

    /// Whether the connection takes new streams at all.
    pub fn takes_streams(&self) -> bool {
        self.0.session().takes_streams()
    }

    /// Whether the connection has room for one more stream.
    pub fn has_room(&self) -> bool {
        self.0.session().has_room()
    }

    /// The number of streams.
    pub fn streams(&self) -> usize {
        self.0.session().streams()
    }

    /// How long there has been no stream; zero while there is any.
    pub fn idle_for(&self) -> Duration {
        self.0.session().idle_for()
    }

    /// Lets no new stream be opened. The connection ends with its last one.
    pub fn leave(&self) {
        self.0.session().leave();
    }
}

impl Responder {
    /// Answers with 200. The bytes of the stream follow.
    pub fn accept(self) -> Stream {
        self.0.answer(200);
        self.0
    }

    /// Answers with another status, and ends the stream.
    pub fn refuse(self, status: u16) {
        self.0.answer(status);
        // What the peer still sends is not needed (RFC 9113, section 8.1).
        self.0.reset(ErrorCode::NO_ERROR);
    }

    /// Resolves when the peer no longer waits for the answer.
    pub async fn given_up(&self) {
        self.0.failed().await;
    }

    #[cfg(test)]
    pub(crate) fn stream_id(&self) -> u32 {
        self.0.id()
    }
}

impl<W: Wire> Connection<W> {
    fn new(wire: W, role: Role, memory: PodAccount, keep: KeepAlive) -> Self {
        Self {
            wire,
            session: Rc::new(RefCell::new(Session::new(role, memory))),
            alive: Alive::new(keep),
            limit: 0,
        }
    }

    /// Drives the connection until the peer opens a stream. `None` if it has ended because it is no longer
    /// needed.
    ///
    /// # Errors
    /// [`TunnelFailure`]. The connection has ended.
    pub async fn next(&mut self) -> Result<Option<Incoming>, TunnelFailure> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Lets no new stream be opened. Those that the peer is opening at this moment are still taken.
    pub fn leave(&mut self) {
        self.session.borrow_mut().leave();
    }

    #[cfg(test)]
    pub(crate) fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Adds frames that this side does not send by itself.
    #[cfg(test)]
    pub(crate) fn with_outgoing(&self, put: impl FnOnce(&mut bytes::BytesMut)) {
        put(&mut self.session.borrow_mut().outgoing().urgent);
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, TunnelFailure>> {
        let polled = self.drive(context);
        if let Err(failure) = &polled {
            self.session.borrow_mut().end(failure);
            // The peer is told why if there is room; what follows is not our concern.
            let _ = self.flush(context);
        }
        match polled {
            // A peer that hangs up while nothing is open ends the connection in order.
            Err(TunnelFailure::Closed) if self.session.borrow().streams() == 0 => {
                Poll::Ready(Ok(None))
            }
            Err(failure) => Poll::Ready(Err(failure)),
            Ok(()) => self.poll_arrival(context),
        }
    }

    fn poll_arrival(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Incoming>, TunnelFailure>> {
        let arrival = self.session.borrow_mut().next_arrival();
        match arrival {
            Some(Arrival::Request(id, head)) => {
                let owner = StreamOwner::new(Rc::clone(&self.session));
                let responder = Responder(Stream::new(owner, id));
                Poll::Ready(Ok(Some(Incoming::Request(head, responder))))
            }
            Some(Arrival::NoMemory(exhausted)) => {
                Poll::Ready(Ok(Some(Incoming::NoMemory(exhausted))))
            }
            None => {
                let is_done = self.session.borrow().is_done();
                if is_done && !self.is_sending() {
                    self.wire.close(context);
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending
            }
        }
    }

    fn is_sending(&self) -> bool {
        let mut session = self.session.borrow_mut();
        let outgoing = session.outgoing();
        !outgoing.is_empty() || outgoing.is_blocked()
    }

    fn drive(&mut self, context: &mut Context<'_>) -> Result<(), TunnelFailure> {
        self.session.borrow_mut().register_driver(context);
        if let Some(failure) = self.session.borrow().failure() {
            return Err(failure.clone());
        }
        self.receive(context)?;
        self.flush(context)?;
        self.alive.poll(&self.session, context)?;
        // A PING may have been added.
        self.flush(context)
    }

    fn receive(&mut self, context: &mut Context<'_>) -> Result<(), TunnelFailure> {
        for _ in 0..READS {
            let session = &self.session;
            let mut take = |pieces: &[&[u8]]| session.borrow_mut().receive(pieces);
            match self.wire.poll_receive(context, &mut take) {
                Poll::Pending => return Ok(()),
                Poll::Ready(received) => {
                    // What came before a failure is delivered.
                    session.borrow_mut().deliver();
                    match received? {
                        Received::Bytes => self.alive.heard = true,
                        Received::End => return Err(TunnelFailure::Closed),
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Result<(), TunnelFailure> {
        loop {
            let mut session = self.session.borrow_mut();
            if !session.outgoing().is_blocked() {
                if session.outgoing().is_empty() {
                    if session.call_up() {
                        // Those that were called up may have nothing to send; others are next then.
                        context.waker().wake_by_ref();
                    }
                    return Ok(());
                }
                let outgoing = session.outgoing();
                for part in outgoing.take() {
                    self.wire.send(part)?;
                }
            }
            match self.wire.poll_flush(context) {
                Poll::Ready(flushed) => {
                    flushed?;
                    let outgoing = session.outgoing();
                    self.alive.heard |= outgoing.is_blocked();
                    outgoing.flushed(Instant::now());
                    let room = outgoing.room();
                    drop(session);
                    self.set_limit(room);
                }
                Poll::Pending => {
                    session.outgoing().blocked(Instant::now());
                    return Ok(());
                }
            }
        }
    }

    /// Keeps what the kernel takes ahead in proportion to what it takes at once.
    fn set_limit(&mut self, room: usize) {
        if self.limit != room {
            self.limit = room;
            self.wire.limit_unsent(room);
        }
    }
}

impl<W> Drop for Connection<W> {
    fn drop(&mut self) {
        self.session.borrow_mut().end(&TunnelFailure::GivenUp);
    }
}

impl Alive {
    fn new(keep: KeepAlive) -> Self {
        Self {
            keep,
            timer: Box::pin(sleep(keep.every)),
            heard: false,
            pinged: false,
        }
    }

    fn poll(
        &mut self,
        session: &RefCell<Session>,
        context: &mut Context<'_>,
    ) -> Result<(), TunnelFailure> {
        while self.timer.as_mut().poll(context).is_ready() {
            let heard = std::mem::take(&mut self.heard);
            let next = match (heard, self.pinged) {
                (true, _) => {
                    self.pinged = false;
                    self.keep.every
                }
                (false, true) => return Err(TunnelFailure::Silent),
                (false, false) => {
                    self.pinged = true;
                    session.borrow_mut().ping();
                    self.keep.timeout
                }
            };
            let deadline = tokio::time::Instant::now() + next;
            self.timer.as_mut().reset(deadline);
        }
        Ok(())
    }
}
