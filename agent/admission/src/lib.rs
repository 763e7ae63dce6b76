//! Who gets in where room is limited: places are shared among sources, so that no source shuts out
//! another one, however many connections it opens.
//!
//! A [`room::Room`] is the pure decision. [`Seats`] share one among threads, and tell a connection that
//! has lost its place.

mod origin;
mod room;
mod seats;

pub use origin::Origin;
pub use room::NoRoom;
pub use seats::{Occupied, Seat, SeatHandle, Seats};
