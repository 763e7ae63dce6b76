//! gRPC authorizers: one HTTP/2 connection for each provider.

mod answer;
mod connection;
mod request;

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, Version};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::answer::{Answer, Denial};
use super::check::Check;
use super::envoy::{CHECK_PATH, CheckRequest, CheckResponse};
use super::error::{CheckError, describe};
use super::network::{Endpoint, Network};
use super::resolve::in_turn;
use crate::model::{ExtensionProvider, ProviderService};
use answer::NoAnswer;
use connection::{Age, Broken, Caller, Kept};
use request::check_request;

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// The connections of one pod on one shard.
#[derive(Default)]
pub(super) struct GrpcClient {
    kept: RefCell<HashMap<ProviderService, Rc<Kept>>>,
}

impl GrpcClient {
    /// Puts a check to one of the endpoints; to the others where that one cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        network: &Rc<dyn Network>,
        provider: &ExtensionProvider,
        endpoints: &[Endpoint],
        check: &Check<'_>,
    ) -> Result<Answer, CheckError> {
        let message = check_request(provider, check);
        let service = &provider.service;
        let kept = self.kept(service);
        in_turn(service, endpoints, kept.endpoint(), async |endpoint| {
            let address = endpoint.address();
            let (caller, age) = kept.caller(network, endpoint).await?;
            let called = call(service, caller, message.clone()).await;
            if called.as_ref().is_err_and(is_of_transport) {
                kept.forget(endpoint).await;
            }
            match (called, age) {
                // It may have ended of old age before this check came to it.
                (Err(status), Age::Kept) if is_of_transport(&status) => {
                    let (caller, _) = kept.caller(network, endpoint).await?;
                    read(call(service, caller, message.clone()).await, address)
                }
                (called, _) => read(called, address),
            }
        })
        .await
    }

    /// The connection to a provider. Those to providers that are not asked any more are forgotten.
    fn kept(&self, service: &ProviderService) -> Rc<Kept> {
        let mut all = self.kept.borrow_mut();
        if let Some(known) = all.get(service) {
            return Rc::clone(known);
        }
        all.retain(|_, kept| Rc::strong_count(kept) > 1 || kept.is_open());
        Rc::clone(all.entry(service.clone()).or_default())
    }
}

/// The head of every check.
pub(super) fn check_head(service: &ProviderService) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = Uri::from_static(CHECK_PATH);
    *head.version_mut() = Version::HTTP_2;
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert(CONTENT_TYPE, grpc);
    if let Ok(host) = format!("{}:{}", service.host, service.port).try_into() {
        head.headers_mut().insert(HOST, host);
    }
    head
}

async fn call(
    service: &ProviderService,
    caller: Caller,
    message: CheckRequest,
) -> Result<CheckResponse, Status> {
    let origin: Uri = format!("http://{}:{}", service.host, service.port)
        .parse()
        .map_err(|error: http::uri::InvalidUri| Status::invalid_argument(error.to_string()))?;
    let mut client =
        tonic::client::Grpc::with_origin(caller, origin).max_decoding_message_size(LARGEST_ANSWER);
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
    let path = PathAndQuery::from_static(CHECK_PATH);
    let response = client
        .unary(tonic::Request::new(message), path, codec)
        .await?;
    Ok(response.into_inner())
}

fn read(called: Result<CheckResponse, Status>, address: SocketAddr) -> Result<Answer, CheckError> {
    let response = match called {
        Ok(response) => response,
        Err(status) => return failed(&status, address),
    };
    answer::answer(response).map_err(|error| match error {
        NoAnswer::Failed(problem) => CheckError::Failed { address, problem },
        NoAnswer::Malformed(problem) => CheckError::Malformed { address, problem },
    })
}

/// What a failed call means. One that is refused for want of permission is a denial: nobody who
/// answers so means that the request may pass.
fn failed(status: &Status, address: SocketAddr) -> Result<Answer, CheckError> {
    let problem = format!("{:?}: {}", status.code(), describe(status));
    if is_of_transport(status) {
        return Err(CheckError::Unreachable { address, problem });
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Ok(Answer::Deny(Denial {
            status: http::StatusCode::FORBIDDEN,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
        })),
        // The last one is also what an answer beyond the largest is to this client.
        Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange => {
            Err(CheckError::NotTaken { address, problem })
        }
        Code::Unavailable => Err(CheckError::Unreachable { address, problem }),
        _ => Err(CheckError::Failed { address, problem }),
    }
}

/// Whether a call failed on this side, for want of a connection: the authorizer said nothing.
fn is_of_transport(status: &Status) -> bool {
    status.source().is_some_and(|cause| cause.is::<Broken>())
}
