//! What a gRPC authorizer's message means.

use http::{HeaderMap, StatusCode};

use crate::answer::{Allowance, AuthorizerAnswer, DenialResponse};
use crate::envoy::{CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse};
use crate::headers::{HeaderMutations, HeaderPlacement};

/// `google.rpc.Code.OK`.
const OK: i32 = 0;

/// An answer that cannot be followed, or none: a sentence without subject and full stop.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The authorizer says that it failed.
    Failed(String),
    /// It says that it cannot answer for the moment.
    Unavailable(String),
    /// It says that it cannot take this check.
    NotTaken(String),
    /// It asks for what an authorizer may not do, says nothing, or cannot be read.
    Malformed(String),
}

/// What a message means.
///
/// A denial anywhere in it denies, whatever else it has; and nothing that a denial has can make it
/// anything else. Where Envoy takes a message that says nothing for consent, this does not.
///
/// # Errors
/// [`NoAnswer`].
pub(super) fn answer(response: CheckResponse) -> Result<AuthorizerAnswer, NoAnswer> {
    if let Some(denied) = response.denied_response {
        return Ok(AuthorizerAnswer::Deny(denial(denied)));
    }
    if response.error_response.is_some() {
        let problem = "it says that it failed (error_response)";
        return Err(NoAnswer::Failed(problem.to_owned()));
    }
    match (
        response.status.map(|status| status.code),
        response.ok_response,
    ) {
        (Some(code), _) if code != OK => Ok(AuthorizerAnswer::Deny(denial(
            DeniedHttpResponse::default(),
        ))),
        (_, Some(ok)) => allowance(&ok).map(AuthorizerAnswer::Allow),
        (Some(_), None) => Ok(AuthorizerAnswer::Allow(Allowance::default())),
        (None, None) => Err(NoAnswer::Malformed(
            "it neither allows nor denies".to_owned(),
        )),
    }
}

/// A denial stands without those of its headers that no response can have.
fn denial(denied: DeniedHttpResponse) -> DenialResponse {
    let mut headers = HeaderMutations::default();
    for option in &denied.headers {
        if let Ok(placement) = placement(option, HeaderPlacement::Set) {
            let _ = change(&mut headers, option, placement);
        }
    }
    let mut map = HeaderMap::new();
    headers.apply(&mut map);
    DenialResponse {
        status: denied
            .status
            .and_then(|status| u16::try_from(status.code).ok())
            .filter(|code| (200..600).contains(code))
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::FORBIDDEN),
        headers: map,
        body: denied.body,
    }
}

fn allowance(ok: &OkHttpResponse) -> Result<Allowance, NoAnswer> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        let problem = "it asks to change the query, which Ambit does not do for authorizers";
        return Err(NoAnswer::Malformed(problem.to_owned()));
    }
    let mut allowance = Allowance::default();
    for option in &ok.headers {
        let placement = placement(option, HeaderPlacement::Set)?;
        change(&mut allowance.request, option, placement)?;
    }
    for name in &ok.headers_to_remove {
        let removed = allowance.request.remove(name);
        removed.map_err(|error| NoAnswer::Malformed(error.to_string()))?;
    }
    for option in &ok.response_headers_to_add {
        let placement = placement(option, HeaderPlacement::Append)?;
        change(&mut allowance.response, option, placement)?;
    }
    Ok(allowance)
}

fn change(
    mutations: &mut HeaderMutations,
    option: &HeaderValueOption,
    placement: HeaderPlacement,
) -> Result<(), NoAnswer> {
    let Some(header) = &option.header else {
        return Err(NoAnswer::Malformed(
            "it changes a header without a name".to_owned(),
        ));
    };
    let value = if header.raw_value.is_empty() {
        &header.value
    } else {
        &header.raw_value
    };
    let changed = mutations.change(&header.key, value, placement);
    changed.map_err(|error| NoAnswer::Malformed(error.to_string()))
}

/// How a header is placed. The action 0 is also what is meant where neither field is there, which
/// differs from one list of headers to another.
fn placement(
    option: &HeaderValueOption,
    default: HeaderPlacement,
) -> Result<HeaderPlacement, NoAnswer> {
    match (
        option.append.map(|append| append.value),
        option.append_action,
    ) {
        (Some(true), _) => Ok(HeaderPlacement::Append),
        (Some(false), _) => Ok(HeaderPlacement::Set),
        (None, 0) => Ok(default),
        (None, 1) => Ok(HeaderPlacement::AddIfAbsent),
        (None, 2) => Ok(HeaderPlacement::Set),
        (None, 3) => Ok(HeaderPlacement::SetIfPresent),
        (None, other) => Err(NoAnswer::Malformed(format!(
            "append_action {other} is not known"
        ))),
    }
}
