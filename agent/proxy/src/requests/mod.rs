//! Requests, each judged by itself: who is asked about one first, what its client is told if it is
//! refused, and the line that it leaves in the access log.

mod body;
mod checks;
mod gate;
mod refusal;
mod report;

pub(crate) use gate::RequestGate;
