//! Tokens of requests (JWT, RFC 7519), verified for the RequestAuthentication of a workload.
//!
//! [`authenticate()`] is what the proxy asks of each request: which token it carries, if any.
//! [`apply`] is what then happens to the request. [`KeyCache`] has the issuers' keys.
//! [`verify_bearer`] is for a token of one known issuer.
//!
//! Signatures are checked with aws-lc-rs, which TLS uses too, by the little code of `key_set` and
//! `unverified`. A general JWT library would take repeated JSON keys (the application may see the
//! other value), pass over `crit`, and parse a key again for each token.

mod authenticate;
mod budget;
mod cache;
mod effects;
mod extract;
mod key_set;
mod strict_json;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod unauthenticated;
mod unverified;
mod verify;

pub use authenticate::{RequestToAuthenticate, authenticate};
pub use cache::{
    DiscoveryError, Fetch, FetchError, FetchTurn, FetchableAddresses, HttpFetcher, IsLocal,
    KeyCache, KeyError, KeyProblem, TrustError,
};
pub use effects::{VerifiedTokens, apply};
pub use key_set::KeySet;
pub use unauthenticated::Unauthenticated;
pub use verify::{ExpectedToken, VerifiedClaims, verify_bearer};
