//! HTTP authorizers.

mod answer;
mod pool;
mod request;
mod reuse;

use std::rc::Rc;

use http::Request;
use hyper::body::Body;

use super::check::{Check, CheckedRequest};
use super::error::CheckError;
use super::hearing::AnswerProgress;
use super::network::{Endpoint, PodNetwork};
use super::ordinary::{Oddity, SentCheck};
use super::resolve::in_turn;
use ambit_model::{HttpApi, ProviderService};
use answer::Head;
use pool::{CallerKey, Pool};
pub(super) use request::is_shown;

/// The head of a check; `None` where the request is none that could be sent on.
pub(super) fn check_head(api: &HttpApi, asked: &CheckedRequest<'_>) -> Option<Request<()>> {
    let request = request::check_request(api, asked).ok()?;
    Some(request.map(|_| ()))
}

/// What is odd about a check, of what is sent of it.
pub(super) fn oddity(api: &HttpApi, asked: &CheckedRequest<'_>) -> Option<Oddity> {
    let request = request::check_request(api, asked).ok()?;
    let target = request.uri().path_and_query();
    let sent = SentCheck {
        method: request.method(),
        target: target.map_or("", |target| target.as_str()),
        headers: request.headers(),
        body: usize::try_from(request.body().size_hint().lower()).unwrap_or(usize::MAX),
    };
    sent.oddity()
}

/// The connections of one pod on one shard.
#[derive(Default)]
pub(super) struct HttpClient {
    pool: Pool,
}

impl HttpClient {
    /// Puts a check to one of the endpoints; to the others where that one cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        network: &Rc<dyn PodNetwork>,
        (api, service): (&HttpApi, &ProviderService),
        endpoints: &[Endpoint],
        (check, hearing): (&Check<'_>, &AnswerProgress),
    ) -> Result<Head, CheckError> {
        let Some(asked) = &check.request else {
            let problem = "it judges requests, and this connection is not looked into";
            return Err(CheckError::NotAskable(problem));
        };
        let request = request::check_request(api, asked)?;
        let caller = CallerKey::of(&check.source);
        in_turn(service, endpoints, None, async |endpoint| {
            let sent = self
                .pool
                .send(network, (endpoint, &caller), &request, hearing);
            let (response, lease) = sent.await?;
            Ok(Head { response, lease })
        })
        .await
    }
}
