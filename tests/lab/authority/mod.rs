//! The lab's certificate authorities: `ambit ca serve` with its files and what may be asked of it,
//! and one that does not do as it should.

mod access;
mod call;
mod files;
pub mod protocol;
mod server;
mod wrong;

pub(crate) use access::CaAccess;
pub use call::{CaAnswer, CaCall, signing_request};
pub use files::CaFiles;
pub use server::{CaServer, CallerLimits, CallerToken};
pub use wrong::{CaFault, WrongCa};
