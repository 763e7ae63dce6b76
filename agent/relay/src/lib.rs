//! Relays bytes between a connection and a tunnel, or between two connections, so that what was sent arrives.
//!
//! The end of one direction leaves the other running. If one side breaks off, the other gets all that came
//! before; dropping a relay resets both sides at once. A reader that is slow slows down the writer: little is
//! kept in between.

mod ahead;
mod departure;
mod drain;
mod ending;
mod meter;
mod socket;
mod tcp;
#[cfg(test)]
mod testing;
mod tunnel;

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

pub use ahead::Ahead;
pub use departure::{departed, left_and_unmoved};
pub use drain::{Drained, STALLED_AFTER, drain_then, stalled};
pub use ending::{Party, RelayEnd};
pub use meter::Meter;
pub use socket::Socket;
pub use tcp::relay_tcp;
pub use tunnel::relay;

/// What the peer sees when a connection is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseMode {
    /// A reset.
    Reset,
    /// The end of the stream, after all that was sent.
    Orderly,
}

/// Sets what the peer sees when the connection is dropped.
pub fn on_close(stream: &TcpStream, close: CloseMode) {
    let linger = match close {
        CloseMode::Reset => Some(Duration::ZERO),
        CloseMode::Orderly => None,
    };
    if let Err(error) = SockRef::from(stream).set_linger(linger) {
        tracing::debug!(%error, "SO_LINGER could not be set");
    }
}
