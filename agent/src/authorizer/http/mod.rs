//! HTTP authorizers.

mod answer;
mod pool;
mod request;

use std::rc::Rc;

use http::Request;

use super::check::{Check, CheckedRequest};
use super::error::CheckError;
use super::network::{Endpoint, Network};
use super::resolve::in_turn;
use crate::model::{HttpApi, ProviderService};
use answer::Head;
use pool::Pool;

/// The head of a check; `None` where the request is none that could be sent on.
pub(super) fn check_head(api: &HttpApi, asked: &CheckedRequest<'_>) -> Option<Request<()>> {
    let request = request::check_request(api, asked).ok()?;
    Some(request.map(|_| ()))
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
        network: &Rc<dyn Network>,
        (api, service): (&HttpApi, &ProviderService),
        endpoints: &[Endpoint],
        check: &Check<'_>,
    ) -> Result<Head, CheckError> {
        let Some(asked) = &check.request else {
            let problem = "it judges requests, and this connection is not looked into";
            return Err(CheckError::NotAskable(problem));
        };
        let request = request::check_request(api, asked)?;
        in_turn(service, endpoints, None, async |endpoint| {
            let (response, lease) = self.pool.send(network, endpoint, &request).await?;
            Ok(Head { response, lease })
        })
        .await
    }
}
