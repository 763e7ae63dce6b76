//! Who judges requests, and what is told of them.

#![expect(
    async_fn_in_trait,
    reason = "a connection's futures never leave the thread of its shard"
)]

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::head::RequestHead;
use super::progress::InjectedHeaders;
use ambit_authorizer::HeaderMutations;
use ambit_policy::RequestPermit;

/// Judges requests.
pub trait Gate {
    /// What a permitted request holds while it is carried.
    type Permitted: PermittedRequest;

    /// Judges a request, may look at its body, and may change its head to what the application is
    /// to get.
    ///
    /// # Errors
    /// [`Rejection`], which is the answer.
    async fn decide(
        &self,
        head: &mut RequestHead,
        body: &mut impl JudgedBody,
    ) -> Result<Self::Permitted, Rejection>;
}

/// The body of a request that is being judged. What is read of it is lost unless it is put back.
pub trait JudgedBody {
    /// How long it says it is, in bytes; `None` where it does not say.
    fn length(&self) -> Option<u64>;

    /// Its next bytes; `None` at its end. A client that waits to be told to send it is told, and
    /// then `head`, which is this request's, has no Expect any more. Nothing is lost when it is
    /// dropped.
    ///
    /// # Errors
    /// [`BodyError`]; what there is of the request cannot be passed on.
    async fn next(&mut self, head: &mut RequestHead) -> Result<Option<Bytes>, BodyError>;

    /// Has all that was read passed on before the rest.
    fn put_back(&mut self, read: Bytes);
}

/// Why a body cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// It is malformed.
    #[error("the body is malformed: {problem}")]
    Malformed {
        /// The answer.
        status: StatusCode,
        /// What is wrong with it.
        problem: String,
    },
    /// Its sender broke off.
    #[error("the body broke off")]
    CutShort,
}

impl BodyError {
    /// The answer, for whoever is still there to get it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { status, .. } => *status,
            Self::CutShort => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request that is permitted. Dropped without [`PermittedRequest::finish`] where the connection was taken
/// down from outside.
pub trait PermittedRequest {
    /// The evaluator's word.
    fn permit(&self) -> &RequestPermit;

    /// What is to be changed of the answer's headers; asked once.
    fn response_mutations(&mut self) -> Vec<HeaderMutations>;

    /// Which headers the client may not bring in trailers; asked once.
    fn injected_headers(&mut self) -> InjectedHeaders;

    /// Resolves when the request is not permitted any more.
    async fn revoked(&mut self);

    /// Accounts for the request.
    fn finish(self, exchange: &RequestSummary);
}

/// The answer to a request that is not permitted.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The status.
    pub status: StatusCode,
    /// The headers; those about the body's length and the connection are ours.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What became of a permitted request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestSummary {
    /// The status that the client got; `None` where it got none.
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
    /// It was answered in full.
    Finished,
    /// Policy changed under it.
    Revoked,
    /// The client broke off, or sent a body that is none.
    ClientFailed,
    /// The application broke off, or answered with what is no answer.
    ApplicationFailed,
}
