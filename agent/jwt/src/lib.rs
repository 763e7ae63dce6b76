//! Verifies the tokens of requests (JWT, RFC 7519) by the RequestAuthentications of a workload.
//!
//! The proxy calls [`authenticate()`] for each request, to learn which valid token it carries, if any,
//! and then [`apply`], which changes the request for the application. [`KeyCache`] fetches and keeps the
//! issuers' keys. [`verify_bearer`] verifies a token of one known issuer.
//!
//! Signatures are checked with aws-lc-rs, which TLS uses too, by the small modules `key_set` and
//! `unverified`. A general JWT library would accept repeated JSON keys (of which the application may use
//! the other value), ignore `crit`, and parse a key again for each token.

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
