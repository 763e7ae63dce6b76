//! Who judges requests, and what is told of them.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::head::RequestHead;
use crate::authorizer::HeaderMutations;
use crate::policy::RequestPermit;

/// Judges requests.
pub(crate) trait Gate {
    /// What a permitted request holds while it is carried.
    type Grant: Grant;

    /// Judges a request, and may change its head to what the application is to get.
    ///
    /// # Errors
    /// [`Rejection`], which is the answer.
    async fn decide(&self, head: &mut RequestHead) -> Result<Self::Grant, Rejection>;
}

/// A request that is permitted. Dropped without [`Grant::finish`] where the connection was taken
/// down from outside.
pub(crate) trait Grant {
    /// The evaluator's word.
    fn permit(&self) -> &RequestPermit;

    /// What is to be changed of the answer's headers; asked once.
    fn amendments(&mut self) -> Vec<HeaderMutations>;

    /// Resolves when the request is not permitted any more.
    async fn revoked(&mut self);

    /// Accounts for the request.
    fn finish(self, exchange: &Exchange);
}

/// The answer to a request that is not permitted.
#[derive(Clone, Debug)]
pub(crate) struct Rejection {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers; those about the body's length and the connection are ours.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

/// What became of a permitted request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exchange {
    /// The status that the client got; `None` where it got none.
    pub(crate) status: Option<StatusCode>,
    /// Bytes of the request's body, or of the client's side of an upgraded connection.
    pub(crate) sent: u64,
    /// Bytes of the response's body, or of the application's side of an upgraded connection.
    pub(crate) received: u64,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// How a permitted request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// It was answered in full.
    Finished,
    /// Policy changed under it.
    Revoked,
    /// The client broke off, or sent a body that is none.
    ClientFailed,
    /// The application broke off, or answered with what is no answer.
    ApplicationFailed,
}
