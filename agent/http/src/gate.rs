//! The interface to the code that judges requests and accounts for them.

#![expect(
    async_fn_in_trait,
    reason = "a connection's futures never leave the thread of its shard"
)]

use ambit_account::{AccountExhausted, PodAccount};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpStream;

use super::head::RequestHead;
use super::progress::InjectedHeaders;
use ambit_authorizer::HeaderMutations;
use ambit_datapath::RequestStream;
use ambit_policy::RequestPermit;
use ambit_relay::Party;

/// Judges requests.
pub trait Gate {
    /// A permitted request, while it is carried.
    type Permitted: PermittedRequest;

    /// Judges a request. It may read the body, and change the head into the one that the
    /// application gets.
    ///
    /// # Errors
    /// [`Rejection`], which is the response.
    async fn decide(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<Self::Permitted, Rejection>;

    /// Opens another connection to the application for the same client: the one before takes no more
    /// requests. `None` if there is none, which has been reported.
    async fn reconnect(&self) -> Option<RequestStream>;

    /// Returns the account from which what waits is drawn.
    fn memory(&self) -> PodAccount;

    /// Whether the client or the application, which has ended its sending, has closed its socket. `false` if this
    /// cannot be known.
    fn has_closed(&self, party: Party, socket: &TcpStream) -> bool;

    /// Reports a request that is refused before it is judged, because memory is short.
    fn out_of_memory(&self, exhausted: AccountExhausted);
}

/// The body of a request that is being judged. Bytes that are read are lost unless they are put
/// back.
pub trait JudgedBody {
    /// The declared length in bytes; `None` if there is none.
    fn length(&self) -> Option<u64>;

    /// The next bytes; `None` at the end. If the client waits for 100 Continue, it is sent, and
    /// Expect is removed from `head`, which is this request's. Cancelling loses no bytes.
    ///
    /// # Errors
    /// [`BodyError`]; the request cannot be passed on then.
    async fn next(&mut self, head: &mut RequestHead) -> Result<Option<Bytes>, BodyError>;

    /// Puts back all bytes that were read: they are passed on before the rest.
    fn put_back(&mut self, read: Bytes);
}

/// Why a body cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is malformed.
    #[error("the body is malformed: {problem}")]
    Malformed {
        /// The response's status.
        status: StatusCode,
        /// What is wrong, as a sentence.
        problem: String,
    },
    /// The connection or stream ended within the body.
    #[error("the body ended early")]
    CutShort,
}

impl BodyError {
    /// The response's status, if the client is still there to get it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { status, .. } => *status,
            Self::CutShort => StatusCode::BAD_REQUEST,
        }
    }
}

/// A permitted request. It is dropped without [`PermittedRequest::finish`] if the whole connection
/// is dropped.
pub trait PermittedRequest {
    /// The evaluator's permit.
    fn permit(&self) -> &RequestPermit;

    /// The changes to the response's headers. Called once.
    fn response_mutations(&mut self) -> Vec<HeaderMutations>;

    /// The headers that the client's trailers must not contain. Called once.
    fn injected_headers(&mut self) -> InjectedHeaders;

    /// Resolves when the request is no longer permitted.
    async fn revoked(&mut self);

    /// Accounts for the request.
    fn finish(self, exchange: &RequestSummary);
}

/// The response to a request that is not permitted.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The status.
    pub status: StatusCode,
    /// The headers; this crate adds those about the body's length and the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The account of a permitted request, after it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestSummary {
    /// The status that was sent to the client; `None` if none was.
    pub status: Option<StatusCode>,
    /// Bytes of the request's body, or of the client's side of an upgraded connection.
    pub sent: u64,
    /// Bytes of the response's body, or of the application's side of an upgraded connection.
    pub received: u64,
    /// How it ended.
    pub outcome: RequestOutcome,
}

/// How a permitted request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// The response was sent in full.
    Finished,
    /// Policy changed, and no longer permits the request.
    Revoked,
    /// The client broke off, or its body is malformed.
    ClientFailed,
    /// The application broke off, or its response is malformed.
    ApplicationFailed,
}
