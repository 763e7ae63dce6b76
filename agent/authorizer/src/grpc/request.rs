//! Builds the message of a check, as Envoy does for a gRPC authorizer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderName, Version};

use crate::check::{AuthorizationCheck, CheckPeer, CheckedRequest, PARTIAL_BODY};
use crate::envoy;
use ambit_model::{BodyEncoding, ExtensionProvider};

/// The message for a check.
pub(super) fn check_request(
    provider: &ExtensionProvider,
    check: &AuthorizationCheck<'_>,
) -> envoy::CheckRequest {
    let request = check.request.as_ref().map(|request| envoy::Request {
        time: now(),
        http: Some(http_request(provider, request)),
    });
    envoy::CheckRequest {
        attributes: Some(envoy::AttributeContext {
            source: Some(peer(&check.source)),
            destination: Some(peer(&check.destination)),
            request,
        }),
    }
}

fn peer(peer: &CheckPeer<'_>) -> envoy::Peer {
    envoy::Peer {
        address: Some(address(peer.address)),
        principal: peer
            .principal
            .map(|identity| identity.spiffe_id())
            .unwrap_or_default(),
    }
}

fn address(address: SocketAddr) -> envoy::Address {
    envoy::Address {
        socket_address: Some(envoy::SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_value: Some(address.port().into()),
        }),
    }
}

fn now() -> Option<envoy::Timestamp> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(envoy::Timestamp {
        seconds: since.as_secs().try_into().ok()?,
        nanos: since.subsec_nanos().try_into().ok()?,
    })
}

fn http_request(provider: &ExtensionProvider, request: &CheckedRequest<'_>) -> envoy::HttpRequest {
    let bytes = request.body.as_ref().map(|body| body.bytes.clone());
    let (body, raw_body) = match provider.request_body.map(|settings| settings.encoding) {
        Some(BodyEncoding::Text) => (text(&bytes.unwrap_or_default()), Bytes::new()),
        Some(BodyEncoding::Bytes) => (String::new(), bytes.unwrap_or_default()),
        None => (String::new(), Bytes::new()),
    };
    envoy::HttpRequest {
        id: request.id.to_owned(),
        method: request.method.to_string(),
        headers: headers(request),
        path: request.path.to_owned(),
        host: request.authority.to_owned(),
        scheme: request.scheme.to_owned(),
        size: size(request.headers),
        protocol: protocol(request.version).to_owned(),
        body,
        raw_body,
    }
}

/// All values of all headers, and the pseudo-headers, whose names no header can have.
fn headers(request: &CheckedRequest<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::from([
        (":method".to_owned(), request.method.to_string()),
        (":scheme".to_owned(), request.scheme.to_owned()),
        (":authority".to_owned(), request.authority.to_owned()),
        (":path".to_owned(), request.path.to_owned()),
    ]);
    let names = request.headers.keys().filter(|name| *name != HOST);
    headers.extend(names.map(|name| (name.as_str().to_owned(), joined(request.headers, name))));
    if let Some(body) = &request.body {
        let partial = body.extent.as_partial().to_owned();
        headers.insert(PARTIAL_BODY.to_owned(), partial);
    }
    headers
}

/// A header's values, joined as in RFC 9110, section 5.3, and RFC 9113, section 8.2.3.
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let separator = if *name == COOKIE { "; " } else { "," };
    let values = headers.get_all(name).iter();
    let values: Vec<String> = values.map(|value| text(value.as_bytes())).collect();
    values.join(separator)
}

/// Bytes as text. Each byte that is not part of valid UTF-8 becomes `!`, as in Envoy.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

fn size(headers: &HeaderMap) -> i64 {
    let length = headers.get(CONTENT_LENGTH);
    length
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(-1)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_marked_and_not_dropped() {
        assert_eq!(text(b"user"), "user");
        assert_eq!(text(b"a\xff\xfeb"), "a!!b");
        assert_eq!(text("é\u{fffd}".as_bytes()), "é\u{fffd}");
        assert_eq!(text(b"\xe2\x82"), "!!");
    }
}
