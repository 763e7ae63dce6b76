//! Changes a request after its tokens were verified.

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::extract::{cookie_value, parameter_value, split_query, tokens_in};
use ambit_model::folded;
use ambit_policy::{ClaimHeader, JwtRule, TokenLocation, VerifiedToken};

/// The verified tokens of a request; at least one.
#[derive(Debug)]
pub struct VerifiedTokens {
    token: Arc<VerifiedToken>,
    /// At least one.
    accepted: Vec<Accepted>,
}

/// A verified token.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) token: Arc<VerifiedToken>,
    /// The token as received, and the places to remove it from; empty if it is forwarded.
    pub(super) stripped: (String, Vec<TokenLocation>),
    /// Headers to set for the application.
    pub(super) outputs: Vec<(HeaderName, HeaderValue)>,
}

impl VerifiedTokens {
    /// `None` if no token was accepted.
    pub(super) fn new(accepted: Vec<Accepted>) -> Option<Self> {
        let token = accepted.first()?.token.clone();
        Some(Self { token, accepted })
    }

    /// The token that policies see.
    pub fn token(&self) -> &Arc<VerifiedToken> {
        &self.token
    }
}

impl Accepted {
    /// The headers that a rule derives from a token: its payload as received, and claims that are
    /// strings, numbers or booleans. A value that no header can have is left out.
    pub(super) fn outputs(
        rule: &JwtRule,
        payload: &str,
        claims: &Map<String, Value>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let payload = rule.payload_header.iter().filter_map(|header| {
            let value = HeaderValue::try_from(payload).ok()?;
            Some((header.clone(), value))
        });
        let claims = rule.claim_headers.iter().filter_map(|output| {
            let value = claim_text(claims, output)?;
            let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            Some((output.header.clone(), value))
        });
        payload.chain(claims).collect()
    }
}

/// A claim's value as text. A claim whose own name contains dots is found by its whole name.
fn claim_text(claims: &Map<String, Value>, output: &ClaimHeader) -> Option<String> {
    let nested = || {
        let mut names = output.claim.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.as_object()?.get(name))
    };
    match claims.get(&output.claim).or_else(nested)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Changes a request that may be passed on, whether or not it carries a token. Headers that rules derive
/// from tokens are removed if the client sent them, and set from the verified tokens. Tokens are removed
/// from headers and `target` (path and query) unless a rule forwards them.
pub fn apply(
    rules: &[JwtRule],
    verified: Option<&VerifiedTokens>,
    headers: &mut HeaderMap,
    target: &mut String,
) {
    for rule in rules {
        let claims = rule.claim_headers.iter().map(|output| &output.header);
        for header in claims.chain(&rule.payload_header) {
            remove_lookalikes(headers, header);
        }
    }
    let accepted = verified.map_or(&[][..], |verified| &verified.accepted);
    for Accepted { stripped, .. } in accepted {
        let (token, places) = stripped;
        for place in places {
            strip(token, place, headers, target);
        }
    }
    for (header, value) in accepted.iter().flat_map(|accepted| &accepted.outputs) {
        // If there are several tokens, the one that policies see comes first.
        headers.entry(header).or_insert_with(|| value.clone());
    }
}

/// Removes a header, and those that an application may confuse with it.
fn remove_lookalikes(headers: &mut HeaderMap, name: &HeaderName) {
    let wanted = folded(name.as_str());
    let names: Vec<_> = headers
        .keys()
        .filter(|name| folded(name.as_str()) == wanted)
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

fn strip(token: &str, place: &TokenLocation, headers: &mut HeaderMap, target: &mut String) {
    match place {
        TokenLocation::Header { name, prefix } => {
            let is_token = |value: &HeaderValue| {
                tokens_in(value.as_bytes(), prefix)
                    .iter()
                    .any(|found| found == token)
            };
            retain(headers, name, |value| {
                (!is_token(value)).then(|| value.clone())
            });
        }
        TokenLocation::Parameter(name) => {
            let is_token =
                |pair: &str| parameter_value(pair, name).is_some_and(|value| value == token);
            *target = without_parameters(target, is_token);
        }
        TokenLocation::Cookie(name) => {
            let is_token = |cookie: &[u8]| cookie_value(cookie, name) == Some(token.as_bytes());
            retain(headers, &COOKIE, |value| without_cookies(value, is_token));
        }
    }
}

/// Replaces each line of a header by what remains of it.
fn retain(
    headers: &mut HeaderMap,
    name: &HeaderName,
    kept: impl Fn(&HeaderValue) -> Option<HeaderValue>,
) {
    let lines: Vec<_> = headers.get_all(name).iter().map(kept).collect();
    headers.remove(name);
    for line in lines.into_iter().flatten() {
        headers.append(name, line);
    }
}

/// A target without certain parameters of its query. The others stay as they are, byte for byte.
fn without_parameters(target: &str, is_dropped: impl Fn(&str) -> bool) -> String {
    let (path, query, fragment) = split_query(target);
    let pairs = query.split('&').filter(|pair| !is_dropped(pair));
    let query = pairs.collect::<Vec<_>>().join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{path}{mark}{query}{fragment}")
}

/// A Cookie header without certain cookies; `None` if none is left.
fn without_cookies(value: &HeaderValue, is_dropped: impl Fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let cookies = value.as_bytes().split(|&byte| byte == b';');
    let kept: Vec<&[u8]> = cookies
        .filter(|cookie| !is_dropped(cookie))
        .map(<[u8]>::trim_ascii)
        .collect();
    let joined = kept.join(&b"; "[..]);
    HeaderValue::from_bytes(&joined)
        .ok()
        .filter(|value| !value.is_empty())
}
