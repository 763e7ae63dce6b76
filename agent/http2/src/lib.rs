//! What Ambit reads of HTTP/2 itself: frames, header compression, and whether a head is malformed.
//!
//! `ambit-tunnel` builds its own HTTP/2 of it. For requests that are judged, HTTP/2 is spoken by `h2`, and
//! [`HeadFilter`] stands between `h2` and the network.

mod fields;
mod filter;
pub mod frame;
pub mod hpack;

pub use filter::{HeadFilter, HeadLimits};
