//! What fetching is.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;

use super::turns::FetchTurn;
use ambit_policy::HttpUrl;

/// The largest document that is fetched, in bytes.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

/// Gets small documents.
pub trait Fetch: Send + Sync + 'static {
    /// Gets a document. It follows no redirect, and waits without end: the caller has a clock. What
    /// goes on after the caller has given up keeps a clone of `turn`.
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        turn: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>>;
}

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host has no address.
    #[error("the host's name does not resolve ({0}); see whether the node can resolve it")]
    Resolve(std::io::Error),
    /// No address may be asked.
    #[error(
        "the host has no address that may be asked: those of the node itself and of its link, and \
         those that give a cloud's machines their credentials, are out of the reach of policies; \
         serve the keys elsewhere"
    )]
    Unreachable,
    /// No connection.
    #[error("the host does not accept a connection ({0}); see whether the node reaches it")]
    Connect(std::io::Error),
    /// No TLS.
    #[error(
        "TLS with the host failed ({0}); it has to speak TLS 1.3 and have a certificate that the \
         node's trusted authorities, or the configured ones, issued"
    )]
    Tls(std::io::Error),
    /// Not HTTP, or cut off.
    #[error("the answer is no complete HTTP/1.1 answer ({0})")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("the URL cannot be asked for ({0}); correct it in the policy")]
    Request(#[from] http::Error),
    /// A redirect, which is not followed.
    #[error("the answer is a redirect ({0}), which is not followed; set the URL it leads to")]
    Redirect(StatusCode),
    /// Another status than 200.
    #[error("the answer is {0}; see the host's own log")]
    Status(StatusCode),
    /// Too much came.
    #[error("the answer is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// The answer broke off.
    #[error("the answer broke off ({0})")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}
