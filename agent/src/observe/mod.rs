//! What operators and logs are told.

pub mod events;
pub mod logging;
pub mod metrics;
