//! What operators and logs are told.

pub mod events;
pub mod logging;
