//! Headers that are about one connection (RFC 9110, section 7.6.1). They go before the request is
//! judged, so that policy sees what the application sees.
//!
//! A header that Connection names goes too, except that a request which names one that policies or
//! applications rely on is refused: who sends it wants it lost on the way. Of the protocols that
//! Upgrade offers, those that carry requests of their own are not offered on: they would not be
//! judged.

use bytes::BytesMut;
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Version};

use super::super::sniff::is_tchar;
use super::fields::{Malformed, put_field};
use ambit_input::work;

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

/// Protocols that carry requests: their names, or the names of their drafts up to the `-`.
const CARRIES_REQUESTS: [&str; 6] = ["h2c", "h2", "http", "tls", "h3", "spdy"];

/// Protocols that one message may list in Upgrade.
const MOST_PROTOCOLS: usize = 16;

/// What becomes of the connection after a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionPersistence {
    /// It takes another one.
    KeepAlive,
    /// It ends.
    Close,
}

/// Takes a request's connection headers out. Upgrade stays where it is in force, and `te: trailers`.
///
/// # Errors
/// [`Malformed::Connection`], [`Malformed::Upgrade`].
pub(super) fn take_of_request(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<ConnectionPersistence, Malformed> {
    let named = named(headers)?;
    if named.iter().any(|name| is_end_to_end(name)) {
        return Err(Malformed::Connection);
    }
    let is_current = version == Version::HTTP_11;
    let has = |token: &str| named.iter().any(|name| name == token);
    let upgrade = match is_current && has("upgrade") {
        true => upgrade(headers)?,
        false => None,
    };
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
) -> Result<ConnectionPersistence, Malformed> {
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

/// Whether an application's answer chose among the protocols that it was offered.
pub(super) fn was_offered(chosen: &HeaderMap, offered: &HeaderMap) -> bool {
    let (Some(chosen), Some(offered)) = (protocols(chosen), protocols(offered)) else {
        return false;
    };
    let is_offered = |protocol: &String| {
        work::spend(offered.len());
        offered.contains(protocol)
    };
    !chosen.is_empty() && chosen.iter().all(is_offered)
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

fn persistence(version: Version, named: &[String]) -> ConnectionPersistence {
    let has = |token: &str| named.iter().any(|name| name == token);
    let stays = version == Version::HTTP_11 || has("keep-alive");
    if stays && !has("close") {
        ConnectionPersistence::KeepAlive
    } else {
        ConnectionPersistence::Close
    }
}

/// Writes the Connection header.
pub(super) fn put_connection(
    out: &mut BytesMut,
    headers: &HeaderMap,
    version: Version,
    persistence: ConnectionPersistence,
) {
    let persistence = match (version, persistence) {
        (_, ConnectionPersistence::Close) => Some("close"),
        (Version::HTTP_10, ConnectionPersistence::KeepAlive) => Some("keep-alive"),
        _ => None,
    };
    let upgrade = headers.contains_key(UPGRADE).then_some("upgrade");
    let te = headers.contains_key(TE).then_some("te");
    let options: Vec<&str> = [upgrade, te, persistence].into_iter().flatten().collect();
    if !options.is_empty() {
        put_field(out, "connection", options.join(", ").as_bytes());
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

/// The protocols that may be offered on. What is not written as a protocol is not: some server may
/// see one in it that carries requests.
///
/// # Errors
/// [`Malformed::Upgrade`].
fn upgrade(headers: &HeaderMap) -> Result<Option<HeaderValue>, Malformed> {
    let mut offered = protocols(headers).ok_or(Malformed::Upgrade)?;
    offered.retain(|protocol| is_protocol(protocol) && !carries_requests(protocol));
    let value = HeaderValue::try_from(offered.join(", ")).ok();
    Ok(value.filter(|value| !value.is_empty()))
}

/// What Upgrade lists, in lower case; `None` if it is more than [`MOST_PROTOCOLS`].
fn protocols(headers: &HeaderMap) -> Option<Vec<String>> {
    let listed: Vec<String> = tokens(headers, UPGRADE).take(MOST_PROTOCOLS + 1).collect();
    (listed.len() <= MOST_PROTOCOLS).then_some(listed)
}

/// RFC 9110, section 7.8: a token, with a version after a slash or without.
fn is_protocol(text: &str) -> bool {
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_tchar);
    match text.split_once('/') {
        Some((name, version)) => is_token(name) && is_token(version),
        None => is_token(text),
    }
}

fn carries_requests(protocol: &str) -> bool {
    let name = protocol.split(['/', '-']).next().unwrap_or_default();
    CARRIES_REQUESTS.contains(&name)
}

/// The elements of a header's lists, in lower case.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(|token| {
            work::spend(1 + token.len());
            String::from_utf8_lossy(trim(token)).to_ascii_lowercase()
        })
        .filter(|token| !token.is_empty())
}

/// Without the white space around it (RFC 9110's OWS, and nothing else).
fn trim(value: &[u8]) -> &[u8] {
    let is_text = |&byte: &u8| byte != b' ' && byte != b'\t';
    let start = value.iter().position(is_text).unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(is_text)
        .map_or(start, |last| last + 1);
    &value[start..end]
}

#[cfg(test)]
mod tests;
