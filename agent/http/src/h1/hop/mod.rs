//! Hop-by-hop headers (RFC 9110, section 7.6.1). They are removed before the request is judged, so that
//! policy sees the headers that the application sees.
//!
//! A header that Connection names is removed too. If it is one that policies or applications rely on,
//! the request is refused: its sender wants the header to be lost on the way. Cookie and Trailer, which
//! some clients name without such a wish, are kept: nothing is lost then. Protocols in Upgrade that
//! carry requests of their own are not offered to the application, since those requests would not be
//! judged.

use bytes::BytesMut;
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, UPGRADE};
use http::{HeaderMap, Version};

use super::super::sniff::is_tchar;
use super::fields::{Malformed, put_field};
use super::spelling::Spelling;
use ambit_input::work;

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// End-to-end headers, which Connection must not name.
const END_TO_END: [&str; 11] = [
    "host",
    "transfer-encoding",
    "authorization",
    "expect",
    "forwarded",
    "via",
    "origin",
    "referer",
    "x-real-ip",
    "traceparent",
    "range",
];

/// End-to-end headers that Connection may name without effect.
const KEPT: [&str; 2] = ["cookie", "trailer"];

/// Prefixes of more end-to-end headers.
const END_TO_END_BEGUN: [&str; 3] = ["content-", "x-forwarded-", "if-"];

/// Protocols that carry requests: their names, or the names of their drafts up to the `-`.
const CARRIES_REQUESTS: [&str; 6] = ["h2c", "h2", "http", "tls", "h3", "spdy"];

/// The most protocols that one message may list in Upgrade.
const MOST_PROTOCOLS: usize = 16;

/// Whether a connection is kept after a message (RFC 9112, section 9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionPersistence {
    /// Another message may follow.
    KeepAlive,
    /// The connection ends.
    Close,
}

/// Removes a request's hop-by-hop headers. Upgrade and `te: trailers` are kept if Connection names
/// them.
///
/// # Errors
/// [`Malformed::Connection`], [`Malformed::Upgrade`].
pub(super) fn remove_from_request(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<ConnectionPersistence, Malformed> {
    let mut named = named(headers)?;
    named.retain(|name| !KEPT.contains(&name.as_str()));
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

/// Removes a response's hop-by-hop headers except Upgrade and Keep-Alive. What Connection lists that is
/// not a name, such as the parameter of `keep-alive; timeout=5`, is ignored: it names no header, and if the
/// application closes after all, its end is seen.
///
/// # Errors
/// [`Malformed::Connection`].
pub(super) fn remove_from_response(
    headers: &mut HeaderMap,
    version: Version,
) -> Result<ConnectionPersistence, Malformed> {
    let named: Vec<String> = tokens(headers, CONNECTION)
        .filter_map(option_name)
        .collect();
    if named.iter().any(|name| name.starts_with("content-")) {
        return Err(Malformed::Connection);
    }
    let kept = [UPGRADE, KEEP_ALIVE].map(|name| {
        let values: Vec<HeaderValue> = headers.get_all(&name).into_iter().cloned().collect();
        (name, values)
    });
    remove(headers, &named);
    for (name, values) in kept {
        for value in values {
            headers.append(name.clone(), value);
        }
    }
    Ok(persistence(version, &named))
}

/// Whether an application's response chooses among the protocols that it was offered.
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

/// Removes the hop-by-hop headers, except those that only Connection names.
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

/// Writes the Connection header, if it is needed.
pub(super) fn put_connection(
    out: &mut BytesMut,
    headers: &HeaderMap,
    version: Version,
    persistence: ConnectionPersistence,
    spelling: &Spelling,
) {
    let persistence = match (version, persistence) {
        (_, ConnectionPersistence::Close) => Some("close"),
        (Version::HTTP_10, ConnectionPersistence::KeepAlive) => Some("keep-alive"),
        (_, ConnectionPersistence::KeepAlive) => {
            headers.contains_key(KEEP_ALIVE).then_some("keep-alive")
        }
    };
    let upgrade = headers.contains_key(UPGRADE).then_some("upgrade");
    let te = headers.contains_key(TE).then_some("te");
    let options: Vec<&str> = [upgrade, te, persistence].into_iter().flatten().collect();
    if !options.is_empty() {
        let name = spelling.spell("connection");
        put_field(out, name, options.join(", ").as_bytes());
    }
}

/// The names that Connection lists, in lower case.
fn named(headers: &HeaderMap) -> Result<Vec<String>, Malformed> {
    let named: Vec<String> = tokens(headers, CONNECTION).collect();
    let are_tokens = named.iter().all(|name| name.bytes().all(is_tchar));
    are_tokens.then_some(named).ok_or(Malformed::Connection)
}

/// The name in an element of a response's Connection, without parameters.
fn option_name(element: String) -> Option<String> {
    let name = element.split(';').next()?.trim_end_matches([' ', '\t']);
    let is_token = !name.is_empty() && name.bytes().all(is_tchar);
    is_token.then(|| name.to_owned())
}

fn is_end_to_end(name: &str) -> bool {
    let mut begun = END_TO_END_BEGUN.iter();
    END_TO_END.contains(&name) || begun.any(|begin| name.starts_with(begin))
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, TE).any(|token| token == "trailers")
}

/// The protocols to offer to the application. An element that is not a well-formed protocol is left
/// out: some server may read one in it that carries requests.
///
/// # Errors
/// [`Malformed::Upgrade`].
fn upgrade(headers: &HeaderMap) -> Result<Option<HeaderValue>, Malformed> {
    let mut offered = protocols(headers).ok_or(Malformed::Upgrade)?;
    offered.retain(|protocol| is_protocol(protocol) && !carries_requests(protocol));
    let value = HeaderValue::try_from(offered.join(", ")).ok();
    Ok(value.filter(|value| !value.is_empty()))
}

/// The protocols that Upgrade lists, in lower case; `None` if there are more than
/// [`MOST_PROTOCOLS`].
fn protocols(headers: &HeaderMap) -> Option<Vec<String>> {
    let listed: Vec<String> = tokens(headers, UPGRADE).take(MOST_PROTOCOLS + 1).collect();
    (listed.len() <= MOST_PROTOCOLS).then_some(listed)
}

/// Whether a string is a protocol (RFC 9110, section 7.8): a token, with or without a version after a
/// slash.
fn is_protocol(text: &str) -> bool {
    let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_tchar);
    match text.split_once('/') {
        Some((name, version)) => is_token(name) && is_token(version),
        None => is_token(text),
    }
}

/// Returns Upgrade's value for one protocol; `None` if it is malformed, or carries requests.
pub(crate) fn upgrade_to(protocol: &str) -> Option<HeaderValue> {
    let is_offered = is_protocol(protocol) && !carries_requests(&protocol.to_ascii_lowercase());
    let value = is_offered.then(|| HeaderValue::from_str(protocol));
    value?.ok()
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

/// Removes optional white space (RFC 9110's OWS, and nothing else) around a value.
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
