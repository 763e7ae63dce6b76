//! TLS 1.3 for tunnels. rustls shakes hands, verifies and derives keys; the records that follow are sealed and
//! opened in place, without the copies into and out of rustls' buffers.
//!
//! * [`connect`] and [`accept`] drive a handshake record by record, so that nothing that comes after it has
//!   been decrypted when the keys are handed over.
//! * [`Records`] is the record protocol (RFC 8446, section 5) with the messages that may follow a handshake:
//!   KeyUpdate, NewSessionTicket and alerts. Whatever else comes ends the connection with an alert, as it does
//!   with rustls. The traffic secrets stay in rustls, which derives each next key from them.
//! * [`Outbox`] holds sealed records until the network has taken them.

mod handshake;
mod key;
mod outbox;
mod record;
#[cfg(test)]
mod tests;

pub use handshake::{Shaken, Side, accept, connect};
pub use outbox::Outbox;
pub use record::{LARGEST_RECORD, Opened, RecordFailure, Records, Split, split};
