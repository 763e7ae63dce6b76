//! What operators and logs are told.

pub mod denials;
pub mod logging;
pub mod metrics;
