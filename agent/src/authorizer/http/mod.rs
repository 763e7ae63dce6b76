//! HTTP authorizers.

mod answer;
mod pool;
mod request;

use std::net::SocketAddr;

use super::check::Check;
use super::error::CheckError;
use super::resolve::in_turn;
use crate::model::{HttpApi, ProviderService};
use answer::Head;
use pool::Pool;

/// The connections of one shard.
#[derive(Default)]
pub(super) struct HttpClient {
    pool: Pool,
}

impl HttpClient {
    /// Puts a check to one of the addresses; to the others where that one cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        api: &HttpApi,
        service: &ProviderService,
        addresses: &[SocketAddr],
        check: &Check<'_>,
    ) -> Result<Head, CheckError> {
        let request = request::check_request(api, check)?;
        in_turn(service, addresses, None, async |address| {
            let (response, lease) = self.pool.send(address, &request).await?;
            Ok(Head { response, lease })
        })
        .await
    }
}
