//! Relays between an application's connection and a stream of a tunnel, so that what was sent arrives.
//!
//! The application's bytes are read straight into the tunnel's buffer, and the tunnel's are written to the
//! application as they are decrypted. Only what the application has no room for waits, within the stream's
//! window.
//!
//! | what happens | the stream | the application's connection |
//! |---|---|---|
//! | the application ends its sending | END_STREAM | goes on |
//! | it breaks off | CONNECT_ERROR, after all that it sent | is gone |
//! | it closes its socket, after its end | NO_ERROR, after all that it sent | is gone |
//! | END_STREAM from the peer | goes on | sees the end |
//! | NO_ERROR from the peer, after that | is over | closed, once it has everything |
//! | another reset, or the loss of the tunnel | is over | reset, once it has everything |
//! | CANCEL from the peer: policy or a cap | is over | reset at once |
//! | the relay is dropped | CANCEL | reset at once |

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ambit_tunnel::{Delivery, ErrorCode, ForwardFailure, Sink, Stream, StreamFailure};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::departure::departed;
use crate::drain::{Drained, STALLED_AFTER, drain_then, stalled};
use crate::meter::Count;
use crate::{CloseMode, Meter, Party, RelayEnd, on_close};

/// The application's connection.
struct Local {
    party: Party,
    socket: Rc<TcpStream>,
    /// A write has failed with an error that a read would have reported. The next read shows an end instead,
    /// which must not pass for an end in order.
    error_taken: Cell<bool>,
    sending: Cell<LocalSending>,
}

/// Whether the application still sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LocalSending {
    Open,
    /// It has ended, and the peer was told.
    Ended,
}

/// How the direction into the tunnel ended.
enum IntoEnd {
    /// The application ended its sending, and the peer was told.
    InOrder,
    /// The application broke off. All that it sent before was sent on.
    SourceFailed(io::Error),
    /// The peer takes nothing any more.
    Stopped(StreamFailure),
}

/// How the direction out of the tunnel ended.
enum OutEnd {
    /// The application has everything, and was told that nothing more comes.
    InOrder,
    /// The application takes nothing any more.
    SinkFailed(io::ErrorKind),
    /// The stream is over. The application was sent what came before.
    Failed(StreamFailure),
}

/// What ended a relay before both directions had ended in order.
enum Break {
    /// The application left.
    Local(RelayEnd),
    /// The other side left in order: it has ended its sending, and takes nothing any more.
    FarClosed,
    /// The stream is over.
    Far(StreamFailure),
}

/// Relays between the connection of `party`, and a tunnel to the other, until both directions have ended.
///
/// `has_closed` says whether the application has closed its socket; `false` if that cannot be known. It is
/// asked only after it has ended its sending.
pub async fn relay(
    socket: TcpStream,
    stream: Stream,
    party: Party,
    meter: &Meter,
    has_closed: impl Fn(&TcpStream) -> bool,
) -> RelayEnd {
    let local = Local::new(socket, party);
    let end = carry(&local, &stream, meter, has_closed).await;
    if end.is_orderly() {
        on_close(&local.socket, CloseMode::Orderly);
    }
    end
}

async fn carry(
    local: &Local,
    stream: &Stream,
    meter: &Meter,
    has_closed: impl Fn(&TcpStream) -> bool,
) -> RelayEnd {
    let sent = meter.from(local.party);
    stream.attach(local.sink(meter.from(local.party.other())));
    let mut into = pin!(into_tunnel(local, stream, sent));
    let mut out = pin!(out_of_tunnel(local, stream));
    let (mut into_open, mut out_open) = (true, true);
    let broken = {
        let mut left = pin!(departed(&local.socket, has_closed));
        let mut broke_off = pin!(broken_and_unmoved(&local.socket, sent));
        loop {
            let broken = tokio::select! {
                ended = &mut into, if into_open => {
                    into_open = false;
                    ended.break_of(local.party)
                }
                ended = &mut out, if out_open => {
                    out_open = false;
                    ended.break_of(local.party)
                }
                () = &mut left => Some(Break::Local(RelayEnd::Closed(local.party))),
                () = &mut broke_off, if into_open => {
                    into_open = false;
                    Some(Break::Local(RelayEnd::Stalled(local.party.other())))
                }
                // While the application sends, reading meets the failure after all that came before it.
                () = failed(&local.socket), if !into_open => {
                    Some(Break::Local(local.failure()))
                }
            };
            match broken {
                Some(broken) => break broken,
                None if into_open || out_open => {}
                None => return RelayEnd::Orderly,
            }
        }
    };
    match broken {
        Break::Local(end) => {
            stream.discard();
            let end = match into_open {
                false => end,
                true => tokio::select! {
                    ended = into => ended.after(end, local.party),
                    () = unmoved(sent) => RelayEnd::Stalled(local.party.other()),
                },
            };
            stream.reset(reset_code(end));
            end
        }
        Break::FarClosed => {
            let close = CloseMode::Orderly;
            finish(
                local,
                out_open.then_some(out),
                close,
                RelayEnd::Closed(local.party.other()),
            )
            .await
        }
        Break::Far(failure) => {
            let end = end_of(&failure, local.party.other());
            if failure.overtakes() {
                return end;
            }
            finish(local, out_open.then_some(out), CloseMode::Reset, end).await
        }
    }
}

/// Delivers what the stream has brought, and closes the application's connection when it has everything.
async fn finish(
    local: &Local,
    out: Option<Pin<&mut impl Future<Output = OutEnd>>>,
    mut close: CloseMode,
    mut end: RelayEnd,
) -> RelayEnd {
    if let Some(out) = out {
        tokio::select! {
            ended = out => match ended {
                OutEnd::InOrder => {}
                OutEnd::SinkFailed(error) => return RelayEnd::failed(local.party, &error.into()),
                OutEnd::Failed(failure) => {
                    close = CloseMode::Reset;
                    end = end_of(&failure, local.party.other());
                }
            },
            () = stalled(&local.socket) => return RelayEnd::Stalled(local.party),
        }
    }
    match drain_then(&local.socket, close).await {
        Drained::Acknowledged | Drained::Gone => end,
        Drained::Stalled => RelayEnd::Stalled(local.party),
    }
}

/// Resolves when the connection has broken off. The error is left to whoever reads or writes.
async fn failed(socket: &TcpStream) {
    let _ = socket.ready(Interest::ERROR).await;
}

/// Resolves when the connection has broken off, and the other side takes nothing of what is left.
async fn broken_and_unmoved(socket: &TcpStream, count: &Cell<u64>) {
    failed(socket).await;
    unmoved(count).await;
}

/// Resolves when nothing has been counted for [`STALLED_AFTER`].
async fn unmoved(count: &Cell<u64>) {
    loop {
        let before = count.get();
        sleep(STALLED_AFTER).await;
        if count.get() == before {
            return;
        }
    }
}

/// Relays from the application into the tunnel.
async fn into_tunnel(local: &Local, stream: &Stream, count: &Cell<u64>) -> IntoEnd {
    let mut source = Source(&local.socket);
    loop {
        let forwarded = poll_fn(|context| stream.poll_forward(context, &mut source, usize::MAX));
        match forwarded.await {
            Ok(0) if local.error_taken.get() => {
                return IntoEnd::SourceFailed(io::ErrorKind::ConnectionReset.into());
            }
            Ok(0) => {
                stream.finish();
                local.sending.set(LocalSending::Ended);
                return IntoEnd::InOrder;
            }
            Ok(sent) => count.set(count.get() + sent as u64),
            Err(ForwardFailure::Source(error)) => return IntoEnd::SourceFailed(error),
            Err(ForwardFailure::Stream(failure)) => return IntoEnd::Stopped(failure),
        }
    }
}

/// Relays from the tunnel to the application, whenever the sink cannot go on by itself.
async fn out_of_tunnel(local: &Local, stream: &Stream) -> OutEnd {
    loop {
        match poll_fn(|context| stream.poll_delivery(context)).await {
            Delivery::Blocked => {
                // A failure shows when it is written to.
                let _ = local.socket.writable().await;
                stream.deliver();
            }
            Delivery::SinkFailed(error) => {
                // After a FIN, Linux reports a reset as EPIPE, and the end can still be read.
                local.error_taken.set(error != io::ErrorKind::BrokenPipe);
                return OutEnd::SinkFailed(error);
            }
            // Both directions have ended, so the socket is closed now, which says the same.
            Delivery::Ended if local.sending.get() == LocalSending::Ended => {
                return OutEnd::InOrder;
            }
            Delivery::Ended => {
                return match SockRef::from(&*local.socket).shutdown(Shutdown::Write) {
                    Ok(()) => OutEnd::InOrder,
                    Err(error) => OutEnd::SinkFailed(error.kind()),
                };
            }
            Delivery::Failed(failure) => return OutEnd::Failed(failure),
        }
    }
}

impl Local {
    fn new(socket: TcpStream, party: Party) -> Self {
        on_close(&socket, CloseMode::Reset);
        Self {
            party,
            socket: Rc::new(socket),
            error_taken: Cell::new(false),
            sending: Cell::new(LocalSending::Open),
        }
    }

    /// How the connection ended that has broken off, once nothing reads from it any more.
    fn failure(&self) -> RelayEnd {
        match self.socket.take_error() {
            Ok(Some(error)) => RelayEnd::failed(self.party, &error),
            Ok(None) | Err(_) => RelayEnd::Reset(self.party),
        }
    }

    fn sink(&self, count: &Count) -> Rc<dyn Sink> {
        Rc::new(SocketSink {
            socket: Rc::clone(&self.socket),
            count: Rc::clone(count),
        })
    }
}

impl IntoEnd {
    fn break_of(self, party: Party) -> Option<Break> {
        match self {
            Self::InOrder => None,
            Self::SourceFailed(error) => Some(Break::Local(RelayEnd::failed(party, &error))),
            Self::Stopped(StreamFailure::Reset(ErrorCode::NO_ERROR)) => Some(Break::FarClosed),
            Self::Stopped(failure) => Some(Break::Far(failure)),
        }
    }

    /// How the relay ended if the application had left with `end`, and then its direction ended like this.
    fn after(self, end: RelayEnd, party: Party) -> RelayEnd {
        match self {
            Self::InOrder => end,
            Self::SourceFailed(error) => RelayEnd::failed(party, &error),
            // Both are gone. The first to break off ended it.
            Self::Stopped(_) if !end.is_orderly() => end,
            Self::Stopped(failure) => end_of(&failure, party.other()),
        }
    }
}

impl OutEnd {
    fn break_of(self, party: Party) -> Option<Break> {
        match self {
            Self::InOrder => None,
            Self::SinkFailed(error) => Some(Break::Local(RelayEnd::failed(party, &error.into()))),
            Self::Failed(failure) => Some(Break::Far(failure)),
        }
    }
}

/// How a connection ended whose stream failed. `far` is the party beyond the tunnel.
fn end_of(failure: &StreamFailure, far: Party) -> RelayEnd {
    match failure {
        StreamFailure::Reset(ErrorCode::CONNECT_ERROR) => RelayEnd::Reset(far),
        StreamFailure::Reset(code) => RelayEnd::StreamReset(code.0),
        StreamFailure::Tunnel(_) => RelayEnd::TunnelLost,
    }
}

/// What the peer is told about an application that has left.
fn reset_code(end: RelayEnd) -> ErrorCode {
    if end.is_orderly() {
        ErrorCode::NO_ERROR
    } else {
        ErrorCode::CONNECT_ERROR
    }
}

/// Writes to the application while it has room.
struct SocketSink {
    socket: Rc<TcpStream>,
    count: Count,
}

impl Sink for SocketSink {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match parts {
            [part] => self.socket.try_write(part)?,
            parts => self.socket.try_write_vectored(parts)?,
        };
        self.count.set(self.count.get() + written as u64);
        Ok(written)
    }
}

/// Reads from the application.
struct Source<'a>(&'a TcpStream);

impl AsyncRead for Source<'_> {
    /// Reads once. After a short read it is known that nothing is left, and no second one is tried.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            let mut length = 0;
            // SAFETY: nothing is de-initialized: `recv` only writes.
            let unfilled = unsafe { buffer.unfilled_mut() };
            let room = unfilled.len();
            let read = self.0.try_io(Interest::READABLE, || {
                length = SockRef::from(self.0).recv(unfilled)?;
                match length {
                    0 => Ok(()),
                    short if short < room => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if length > 0 {
                // SAFETY: the kernel has written so many bytes to the beginning.
                unsafe { buffer.assume_init(length) };
                buffer.advance(length);
                return Poll::Ready(Ok(()));
            }
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                ended => return Poll::Ready(ended),
            }
        }
    }
}

#[cfg(test)]
mod tests;
