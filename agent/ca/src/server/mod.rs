//! gRPC over TLS: connections, and what they may take.

mod certificate;
mod connection;
mod health;
mod listener;
mod slots;

pub use certificate::{ServerCertificate, ServerCertificateError};
pub use health::serve_health;
pub use listener::{CaServer, ListenError};
