//! Who gets in when room is limited: seats are shared among sources, so that no source shuts out another,
//! however many connections it opens.
//!
//! `allocator` is the pure decision. [`Seats`] shares it among threads, and tells a connection that it has
//! lost its seat.

mod allocator;
mod seats;
mod source;

pub use allocator::NoSeat;
pub use seats::{Occupied, Seat, SeatHandle, Seats};
pub use source::UnverifiedSource;
