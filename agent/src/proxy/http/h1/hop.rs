//! Headers that are about one connection (RFC 9110, section 7.6.1). They go before the request is
//! judged, so that policy sees what the application sees.
//!
//! A header that Connection names goes too, except that a request which names one that policies or
//! applications rely on is refused: who sends it wants it lost on the way. Of the protocols that
//! Upgrade offers, those that carry requests of their own are not offered on: they would not be
//! judged.

use http::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Version};

use super::super::sniff::is_tchar;
use super::fields::trim;
use super::malformed::Malformed;

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that Connection may not name.
const END_TO_END: [&str; 13] = [
    "host",
    "transfer-encoding",
    "trailer",
    "authorization",
    "cookie",
    "expect",
    "forwarded",
    "via",
    "origin",
    "referer",
    "x-real-ip",
    "traceparent",
    "range",
];

/// Beginnings of others.
const END_TO_END_BEGUN: [&str; 3] = ["content-", "x-forwarded-", "if-"];

/// Protocols that carry requests, up to their version.
const CARRIES_REQUESTS: [&str; 5] = ["h2c", "h2", "http", "tls", "h3"];

/// What becomes of the connection after a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// It takes another one.
    KeepAlive,
    /// It ends.
    Close,
}

/// Takes a request's connection headers out. Upgrade stays where it is in force, and `te: trailers`.
///
/// # Errors
/// [`Malformed::Connection`].
pub(super) fn take_of_request(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<Persistence, Malformed> {
    let named = named(headers)?;
    if named.iter().any(|name| is_end_to_end(name)) {
        return Err(Malformed::Connection);
    }
    let is_current = version == Version::HTTP_11;
    let has = |token: &str| named.iter().any(|name| name == token);
    let upgrade = upgrade(headers).filter(|_| is_current && has("upgrade"));
    let te = is_current && has("te") && wants_trailers(headers);
    remove(headers, &named);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
    }
    if te {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(persistence(version, &named))
}

/// Takes a response's connection headers out, but for Upgrade.
///
/// # Errors
/// [`Malformed::Connection`].
pub(super) fn take_of_response(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<Persistence, Malformed> {
    let named = named(headers)?;
    if named.iter().any(|name| name.starts_with("content-")) {
        return Err(Malformed::Connection);
    }
    let upgrade: Vec<HeaderValue> = headers.get_all(UPGRADE).into_iter().cloned().collect();
    remove(headers, &named);
    for value in upgrade {
        headers.append(UPGRADE, value);
    }
    Ok(persistence(version, &named))
}

/// Whether an application's answer chose one of the protocols that it was offered.
pub(super) fn was_offered(chosen: &HeaderMap, offered: &HeaderMap) -> bool {
    let offered: Vec<String> = tokens(offered, UPGRADE).collect();
    let mut chosen = tokens(chosen, UPGRADE).peekable();
    chosen.peek().is_some() && chosen.all(|protocol| offered.contains(&protocol))
}

/// Takes out what is about one connection, whatever it says.
pub(crate) fn remove_all(headers: &mut HeaderMap) {
    remove(headers, &[]);
}

fn remove(headers: &mut HeaderMap, named: &[String]) {
    for name in [
        CONNECTION,
        PROXY_CONNECTION,
        KEEP_ALIVE,
        HTTP2_SETTINGS,
        TE,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in named {
        headers.remove(name.as_str());
    }
}

fn persistence(version: Version, named: &[String]) -> Persistence {
    let has = |token: &str| named.iter().any(|name| name == token);
    let stays = version == Version::HTTP_11 || has("keep-alive");
    if stays && !has("close") {
        Persistence::KeepAlive
    } else {
        Persistence::Close
    }
}

/// What Connection lists, in lower case.
fn named(headers: &HeaderMap) -> Result<Vec<String>, Malformed> {
    let named: Vec<String> = tokens(headers, CONNECTION).collect();
    let are_tokens = named.iter().all(|name| name.bytes().all(is_tchar));
    are_tokens.then_some(named).ok_or(Malformed::Connection)
}

fn is_end_to_end(name: &str) -> bool {
    let mut begun = END_TO_END_BEGUN.iter();
    END_TO_END.contains(&name) || begun.any(|begin| name.starts_with(begin))
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, TE).any(|token| token == "trailers")
}

/// The protocols that may be offered on.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered: Vec<String> = tokens(headers, UPGRADE)
        .filter(|protocol| {
            let name = protocol.split('/').next().unwrap_or_default();
            !CARRIES_REQUESTS.contains(&name)
        })
        .collect();
    let text = offered.join(", ");
    HeaderValue::try_from(text)
        .ok()
        .filter(|value| !value.is_empty())
}

/// The elements of a header's lists, in lower case.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|token| String::from_utf8_lossy(trim(token)).to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests;
