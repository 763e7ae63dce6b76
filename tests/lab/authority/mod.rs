//! The lab's certificate authority: `ambit ca serve`, its files, and what may be asked of it.

mod call;
mod files;
mod server;

pub use call::{CaAnswer, CaCall, signing_request};
pub use files::CaFiles;
pub(crate) use server::CaAccess;
pub use server::{CaServer, CallerToken};
