//! The lab's certificate authorities: `ambit ca serve` with its files and requests, and one that
//! answers wrongly.

mod access;
pub(crate) mod agents;
mod answer;
mod call;
mod files;
pub mod protocol;
mod server;
mod wrong;

pub(crate) use access::CaAccess;
pub use access::CaEndpoint;
pub use answer::{CaAnswer, certificate_names};
pub use call::{CaCall, signing_request};
pub use files::CaFiles;
pub use server::{CaServer, CallerLimits, CallerToken};
pub(crate) use server::{endpoint, launch};
pub use wrong::{CaFault, WrongCa};
