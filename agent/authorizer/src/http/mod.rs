//! The client for HTTP authorizers.

mod pool;
mod response;

use std::rc::Rc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::Full;
use hyper::body::Body;

use crate::answer::CheckError;
use crate::check::{AuthorizationCheck, CheckedRequest, Oddity, PARTIAL_BODY, SentCheck};
use crate::connection::{AnswerProgress, PodNetwork};
use crate::headers::{is_reserved, is_reserved_text};
use crate::resolve::in_turn;
use ambit_model::{HttpApi, ProviderService, ServiceEndpoint, folded};
use pool::{CallerKey, Pool};
use response::ResponseHead;

/// The head of a check; `None` if the request cannot be sent on.
pub(super) fn check_head(api: &HttpApi, asked: &CheckedRequest<'_>) -> Option<Request<()>> {
    let request = check_request(api, asked).ok()?;
    Some(request.map(|_| ()))
}

/// What is unusual about a check, considering only what is sent.
pub(super) fn oddity(api: &HttpApi, asked: &CheckedRequest<'_>) -> Option<Oddity> {
    let request = check_request(api, asked).ok()?;
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
    /// Sends a check to an endpoint, and to the next one if it cannot be reached.
    ///
    /// # Errors
    /// [`CheckError`].
    pub(super) async fn check(
        &self,
        network: &Rc<dyn PodNetwork>,
        api: &HttpApi,
        service: &ProviderService,
        endpoints: &[ServiceEndpoint],
        check: &AuthorizationCheck<'_>,
        progress: &AnswerProgress,
    ) -> Result<ResponseHead, CheckError> {
        let Some(asked) = &check.request else {
            let problem = "it authorizes HTTP requests, but this connection is not parsed as HTTP";
            return Err(CheckError::NotAskable(problem));
        };
        let request = check_request(api, asked)?;
        let caller = CallerKey::of(&check.source);
        in_turn(service, endpoints, None, async |endpoint| {
            let sent = self
                .pool
                .send(network, endpoint, &caller, &request, progress);
            let (response, lease) = sent.await?;
            Ok(ResponseHead { response, lease })
        })
        .await
    }
}

/// Builds the request of a check, as Envoy does for an HTTP authorizer: the request itself, with few of
/// its headers.
///
/// # Errors
/// [`CheckError::NotAskable`] if the request cannot be sent on.
pub(super) fn check_request(
    api: &HttpApi,
    asked: &CheckedRequest<'_>,
) -> Result<Request<Full<Bytes>>, CheckError> {
    if *asked.method == Method::CONNECT {
        let problem = "a request with the method CONNECT would be for the authorizer itself";
        return Err(CheckError::NotAskable(problem));
    }
    let body = asked.body.as_ref().map(|body| body.bytes.clone());
    let body = body.unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = uri(api, asked)?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers(api, asked, body.len())?;
    *request.body_mut() = Full::new(body);
    Ok(request)
}

fn uri(api: &HttpApi, asked: &CheckedRequest<'_>) -> Result<Uri, CheckError> {
    let refused = || CheckError::NotAskable("the path of the request cannot be sent on");
    if !asked.path.starts_with('/') && asked.path != "*" {
        return Err(refused());
    }
    let path = format!("{}{}", api.path_prefix, asked.path);
    path.parse().map_err(|_| refused())
}

/// Host, Authorization, and the headers that the provider asks for, each with all its values. Headers
/// that the authorizer's server could mistake for the provider's or for HTTP's own are not sent.
fn headers(
    api: &HttpApi,
    asked: &CheckedRequest<'_>,
    body_bytes: usize,
) -> Result<HeaderMap, CheckError> {
    let mut headers = HeaderMap::new();
    for (name, value) in asked.headers {
        if is_shown(api, name) && !resembles_own(api, name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in &api.additional_headers {
        headers.insert(name, value.clone());
    }
    if let Some(body) = &asked.body {
        let partial = HeaderValue::from_static(body.extent.as_partial());
        headers.insert(HeaderName::from_static(PARTIAL_BODY), partial);
    }
    let host = HeaderValue::from_str(asked.authority)
        .map_err(|_| CheckError::NotAskable("the request has no valid authority"))?;
    headers.insert(HOST, host);
    headers.insert(CONTENT_LENGTH, body_bytes.into());
    Ok(headers)
}

/// Whether an authorizer is shown headers of this name.
pub(crate) fn is_shown(api: &HttpApi, name: &HeaderName) -> bool {
    let asked_for = api.request_headers.iter().any(|p| p.matches(name));
    (*name == AUTHORIZATION || asked_for) && !is_reserved(name)
}

fn resembles_own(api: &HttpApi, name: &HeaderName) -> bool {
    let name = folded(name.as_str());
    let mut additional = api.additional_headers.iter();
    name == PARTIAL_BODY
        || is_reserved_text(&name)
        || additional.any(|(own, _)| folded(own.as_str()) == name)
}
