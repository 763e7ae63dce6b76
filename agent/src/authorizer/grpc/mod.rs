//! gRPC authorizers: one HTTP/2 connection for each provider.

mod answer;
mod request;

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::CONNECT_TIMEOUT;
use super::answer::{Answer, Denial};
use super::check::Check;
use super::envoy::{CHECK_PATH, CheckRequest, CheckResponse};
use super::error::CheckError;
use super::resolve::in_turn;
use crate::model::{ExtensionProvider, ProviderService};
use answer::NoAnswer;
use request::check_request;

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// How often an authorizer that owes an answer is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long an unused connection is kept once another provider needs one.
const IDLE: Duration = Duration::from_secs(600);

/// The connections of one shard.
#[derive(Default)]
pub(super) struct GrpcClient {
    connections: RefCell<HashMap<ProviderService, Connection>>,
}

/// Whether a connection has been used before.
enum Age {
    New,
    Kept,
}

struct Connection {
    address: SocketAddr,
    channel: Channel,
    used: Instant,
}

impl GrpcClient {
    /// Puts a check to one of the addresses; to the others where that one cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        provider: &ExtensionProvider,
        addresses: &[SocketAddr],
        check: &Check<'_>,
    ) -> Result<Answer, CheckError> {
        let message = check_request(provider, check);
        let service = &provider.service;
        in_turn(service, addresses, self.address(service), async |address| {
            let (channel, age) = self.channel(service, address)?;
            let called = self.call(service, channel, message.clone()).await;
            match (called, age) {
                // It may have ended of old age before this check came to it.
                (Err(status), Age::Kept) if is_of_transport(&status) => {
                    let (channel, _) = self.channel(service, address)?;
                    read(self.call(service, channel, message.clone()).await, address)
                }
                (called, _) => read(called, address),
            }
        })
        .await
    }

    /// Where the provider was reached last.
    fn address(&self, service: &ProviderService) -> Option<SocketAddr> {
        let connections = self.connections.borrow();
        connections
            .get(service)
            .map(|connection| connection.address)
    }

    fn channel(
        &self,
        service: &ProviderService,
        address: SocketAddr,
    ) -> Result<(Channel, Age), CheckError> {
        let used = Instant::now();
        let mut connections = self.connections.borrow_mut();
        if let Some(known) = connections.get_mut(service)
            && known.address == address
        {
            known.used = used;
            return Ok((known.channel.clone(), Age::Kept));
        }
        let channel = connect(service, address)?;
        connections.retain(|_, connection| connection.used.elapsed() < IDLE);
        let connection = Connection {
            address,
            channel: channel.clone(),
            used,
        };
        connections.insert(service.clone(), connection);
        Ok((channel, Age::New))
    }

    /// Calls, and gives up a connection that breaks.
    async fn call(
        &self,
        service: &ProviderService,
        channel: Channel,
        message: CheckRequest,
    ) -> Result<CheckResponse, Status> {
        let called = call(channel, message).await;
        if called.as_ref().is_err_and(is_of_transport) {
            self.connections.borrow_mut().remove(service);
        }
        called
    }
}

/// A connection that is made when it is first used, and again when it breaks.
fn connect(service: &ProviderService, address: SocketAddr) -> Result<Channel, CheckError> {
    let unusable = |problem: String| CheckError::Unreachable { address, problem };
    let origin: Uri = format!("http://{}:{}", service.host, service.port)
        .parse()
        .map_err(|error: http::uri::InvalidUri| unusable(error.to_string()))?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| unusable(error.to_string()))?;
    Ok(endpoint
        .origin(origin)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_lazy())
}

async fn call(channel: Channel, message: CheckRequest) -> Result<CheckResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
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
    let problem = describe(status);
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
    status
        .source()
        .is_some_and(|cause| cause.is::<tonic::transport::Error>())
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
