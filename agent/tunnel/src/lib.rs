//! HBONE's part of HTTP/2: CONNECT streams over mutual TLS.
//!
//! Wire-compatible with every HTTP/2 peer that opens and answers CONNECT, and no more than that. It is our own
//! because three things have to be decided together: how much may wait, for whom, and how often it is copied.
//!
//! ```text
//!  application's socket --read--> Outgoing --TLS--> records --write--> network      Stream::poll_forward
//!  application's socket <--write-- Sink <-- windows <-- frames <--TLS-- network     Stream::attach
//!                                     |
//!                                     +- no room: the bytes wait in their stream, within its window
//! ```
//!
//! * **Bounded.** Each stream has a window, which its pod's account is charged for before the peer learns of
//!   it. It begins at 16 KiB and grows while its reader keeps up and memory is plentiful. The connection's
//!   own window never closes, so a stream that is not read holds up no other. Frames that carry nothing use
//!   up a budget (`flood`).
//! * **In order.** The end of a stream, or its reset, comes after the bytes that were sent before. Only a reset
//!   with CANCEL, by which policy and caps end connections, overtakes what the peer has not delivered.
//! * **Fair.** Little waits before the network: about what it takes in a few milliseconds. The rest stays in
//!   the applications' sockets, whose streams take turns; those with little to send go first.
//! * **Alive.** Anything that comes from the peer is a sign of life.
//!
//! # A stream's states
//!
//! ```text
//!              client                                server
//!   Opener::open   CONNECT ------------------> Incoming::Request
//!   (early bytes)  DATA ---------------------> wait in the stream, until it is accepted
//!   answered()     <------------------ 200 --- Responder::accept
//!                  <------ 401, 503, ... + END Responder::refuse
//!   both ways      DATA <--------------> DATA
//!   finish()       END_STREAM  --- this side sends no more; the other may go on
//!   reset(code)    RST_STREAM  --- both sides are over, after the bytes sent before
//!   drop           RST_STREAM(CANCEL), unless both sides have ended
//! ```

mod connection;
mod failure;
mod flood;
mod head;
mod hpack;
mod session;
mod spare;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use ambit_http2::frame;

pub use ambit_http2::frame::ErrorCode;
pub use connection::{Connection, Incoming, KeepAlive, Opener, Responder, accept, connect};
pub use failure::{OpenError, StreamFailure, TunnelFailure};
pub use head::RequestHead;
pub use session::{Delivery, Sink};
pub use stream::{ForwardFailure, Stream};
#[cfg(any(test, feature = "testing"))]
pub use wire::PlainWire;
pub use wire::{Received, Socket, Take, TlsWire, Wire};
