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
use std::pin::{Pin, pin};
use std::rc::Rc;

use ambit_tunnel::{Delivery, ErrorCode, ForwardFailure, Sink, Stream, StreamFailure};
use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::ahead::Ahead;
use crate::departure::departed;
use crate::drain::{Drained, drain_then, stalled, unmoved};
use crate::meter::Count;
use crate::socket::Socket;
use crate::{CloseMode, Meter, Party, RelayEnd, on_close};

/// The application's connection.
struct Local {
    party: Party,
    socket: Rc<Socket<TcpStream>>,
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

/// Relays between the connection of `party`, and a tunnel to the other, until both directions have ended. What
/// was read `ahead` goes first.
///
/// `has_closed` says whether the application has closed its socket; `false` if that cannot be known. It is
/// asked only after it has ended its sending.
pub async fn relay(
    socket: TcpStream,
    stream: Stream,
    party: Party,
    ahead: Ahead,
    meter: &Meter,
    has_closed: impl Fn(&TcpStream) -> bool,
) -> RelayEnd {
    let local = Local::new(socket, party);
    let end = carry(&local, &stream, ahead, meter, has_closed).await;
    if end.is_orderly() {
        on_close(local.stream(), CloseMode::Orderly);
    }
    end
}

async fn carry(
    local: &Local,
    stream: &Stream,
    ahead: Ahead,
    meter: &Meter,
    has_closed: impl Fn(&TcpStream) -> bool,
) -> RelayEnd {
    let (first_in, first_out) = ahead.split_by(local.party);
    let sent = meter.from(local.party);
    let mut into = pin!(into_tunnel(local, stream, first_in, sent));
    let received = meter.from(local.party.other());
    let mut out = pin!(out_of_tunnel(local, stream, first_out, received));
    let (mut into_open, mut out_open) = (true, true);
    let broken = {
        let mut left = pin!(departed(local.stream(), has_closed));
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
                () = local.socket.failed(), if !into_open => {
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
                    () = unmoved(|| sent.get()) => RelayEnd::Stalled(local.party.other()),
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
            () = stalled(local.stream()) => return RelayEnd::Stalled(local.party),
        }
    }
    match drain_then(local.stream(), close).await {
        Drained::Acknowledged | Drained::Gone => end,
        Drained::Stalled => RelayEnd::Stalled(local.party),
    }
}

/// Resolves when the connection has broken off, and the other side takes nothing of what is left.
async fn broken_and_unmoved(socket: &Socket<TcpStream>, count: &Cell<u64>) {
    socket.failed().await;
    unmoved(|| count.get()).await;
}

/// Relays from the application into the tunnel: `first`, and then what comes.
async fn into_tunnel(local: &Local, stream: &Stream, first: Bytes, count: &Cell<u64>) -> IntoEnd {
    if let Err(failure) = send_all(stream, first, count).await {
        return IntoEnd::Stopped(failure);
    }
    let mut source = &*local.socket;
    loop {
        let forwarded = poll_fn(|context| stream.poll_forward(context, &mut source, usize::MAX));
        match forwarded.await {
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

async fn send_all(
    stream: &Stream,
    mut bytes: Bytes,
    count: &Cell<u64>,
) -> Result<(), StreamFailure> {
    while !bytes.is_empty() {
        let sent = poll_fn(|context| stream.poll_send(context, &[IoSlice::new(&bytes)])).await?;
        count.set(count.get() + sent as u64);
        bytes.advance(sent);
    }
    Ok(())
}

/// Relays from the tunnel to the application: `first`, and then what comes, whenever the sink cannot go on by
/// itself.
async fn out_of_tunnel(local: &Local, stream: &Stream, first: Bytes, count: &Count) -> OutEnd {
    if let Err(end) = write_first(local, stream, first, count).await {
        return end;
    }
    stream.attach(local.sink(count));
    loop {
        match poll_fn(|context| stream.poll_delivery(context)).await {
            Delivery::Blocked => {
                // A failure shows when it is written to.
                let _ = local.stream().writable().await;
                stream.deliver();
            }
            Delivery::SinkFailed(error) => return OutEnd::SinkFailed(error),
            // Both directions have ended, so the socket is closed now, which says the same.
            Delivery::Ended if local.sending.get() == LocalSending::Ended => {
                return OutEnd::InOrder;
            }
            Delivery::Ended => {
                return match local.socket.shutdown() {
                    Ok(()) => OutEnd::InOrder,
                    Err(error) => OutEnd::SinkFailed(error.kind()),
                };
            }
            Delivery::Failed(failure) => return OutEnd::Failed(failure),
        }
    }
}

/// Writes what was read from the stream before it was relayed.
async fn write_first(
    local: &Local,
    stream: &Stream,
    mut first: Bytes,
    count: &Cell<u64>,
) -> Result<(), OutEnd> {
    let mut sink = &*local.socket;
    while !first.is_empty() {
        tokio::select! {
            written = sink.write(&first) => {
                let written = written.map_err(|error| OutEnd::SinkFailed(error.kind()))?;
                count.set(count.get() + written as u64);
                first.advance(written);
            }
            failure = overtaken(stream) => return Err(OutEnd::Failed(failure)),
        }
    }
    Ok(())
}

/// Resolves when the stream has failed in a way that overtakes what was received before.
async fn overtaken(stream: &Stream) -> StreamFailure {
    let failure = poll_fn(|context| stream.poll_stopped(context)).await;
    match failure.overtakes() {
        true => failure,
        false => std::future::pending().await,
    }
}

impl Local {
    fn new(socket: TcpStream, party: Party) -> Self {
        on_close(&socket, CloseMode::Reset);
        Self {
            party,
            socket: Rc::new(Socket::new(socket)),
            sending: Cell::new(LocalSending::Open),
        }
    }

    fn stream(&self) -> &TcpStream {
        self.socket.stream()
    }

    /// How the connection ended that has broken off, once nothing reads from it any more.
    fn failure(&self) -> RelayEnd {
        match self.stream().take_error() {
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
    socket: Rc<Socket<TcpStream>>,
    count: Count,
}

impl Sink for SocketSink {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.socket.try_write_vectored(parts)?;
        self.count.set(self.count.get() + written as u64);
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
