//! Observability: the log, recent events, metrics.

pub mod event;
pub mod events;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod tally;
pub mod text;
