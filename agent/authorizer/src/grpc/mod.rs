//! gRPC authorizers: one HTTP/2 connection for each provider. Its streams do not touch each other, so
//! that all callers share it.

mod answer;
mod call;
mod connection;
mod request;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri, Version};

use super::answer::AuthorizerAnswer;
use super::check::Check;
use super::envoy::{CHECK_PATH, CheckRequest};
use super::error::CheckError;
use super::hearing::{AnswerProgress, ReceivedBytes};
use super::network::{Endpoint, PodNetwork};
use super::resolve::in_turn;
use ambit_model::{ExtensionProvider, ProviderService};
use answer::NoAnswer;
use call::check_call;
use connection::{Age, Broken, CallSender, ProviderConnection};
use request::check_request;

/// The connections of one pod on one shard.
#[derive(Default)]
pub(super) struct GrpcClient {
    kept: RefCell<HashMap<ProviderService, Rc<ProviderConnection>>>,
}

impl GrpcClient {
    /// Puts a check to one of the endpoints; to the others where that one cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        network: &Rc<dyn PodNetwork>,
        provider: &ExtensionProvider,
        endpoints: &[Endpoint],
        (check, hearing): (&Check<'_>, &AnswerProgress),
    ) -> Result<AuthorizerAnswer, CheckError> {
        let message = check_request(provider, check);
        let service = &provider.service;
        let kept = self.kept(service);
        in_turn(service, endpoints, kept.endpoint(), async |endpoint| {
            let asked = CheckAttempt {
                service,
                message: &message,
                address: endpoint.address(),
                hearing,
            };
            let (caller, age) = kept.caller(network, endpoint).await?;
            let called = match (asked.call(caller).await, age) {
                // It may have ended of old age before this check came to it.
                (Err(CallError::Broken(_)), Age::Reused) => {
                    kept.forget(endpoint).await;
                    let (caller, _) = kept.caller(network, endpoint).await?;
                    asked.call(caller).await
                }
                (called, _) => called,
            };
            if let Err(CallError::Broken(_)) = &called {
                kept.forget(endpoint).await;
            }
            called.map_err(|error| error.at(endpoint.address()))
        })
        .await
    }

    /// The connection to a provider. Those to providers that are not asked any more are forgotten.
    fn kept(&self, service: &ProviderService) -> Rc<ProviderConnection> {
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

/// A check that is put to an endpoint.
struct CheckAttempt<'a> {
    service: &'a ProviderService,
    message: &'a CheckRequest,
    address: SocketAddr,
    hearing: &'a AnswerProgress,
}

/// Why a call has no answer.
enum CallError {
    /// There is none to be asked by this name.
    NotAskable,
    /// The connection failed: the authorizer said nothing.
    Broken(Broken),
    /// The answer is none.
    NoAnswer(NoAnswer),
}

impl CheckAttempt<'_> {
    async fn call(&self, mut caller: CallSender) -> Result<AuthorizerAnswer, CallError> {
        let request = check_call(self.service, self.message).ok_or(CallError::NotAskable)?;
        let heard = ReceivedBytes::default();
        self.hearing.ask(self.address, heard.clone());
        let response = caller.send(request).await.map_err(CallError::Broken)?;
        heard.add(1);
        call::read(response).await.map_err(CallError::NoAnswer)
    }
}

impl CallError {
    fn at(self, address: SocketAddr) -> CheckError {
        match self {
            Self::NotAskable => CheckError::NotAskable("no request can be sent to its service"),
            Self::Broken(Broken(problem)) | Self::NoAnswer(NoAnswer::Unavailable(problem)) => {
                CheckError::Unreachable { address, problem }
            }
            Self::NoAnswer(NoAnswer::Failed(problem)) => CheckError::Failed { address, problem },
            Self::NoAnswer(NoAnswer::NotTaken(problem)) => {
                CheckError::NotTaken { address, problem }
            }
            Self::NoAnswer(NoAnswer::Malformed(problem)) => {
                CheckError::Malformed { address, problem }
            }
        }
    }
}
