//! The head of an HTTP/2 request, checked as strictly as HTTP/1's.
//!
//! Extended CONNECT (RFC 8441), which asks for another protocol on a stream, is judged as what it is in HTTP/1:
//! a GET with Upgrade. So one policy holds for both, as in Envoy. A protocol that carries requests of its own is
//! refused, since those would not be judged.
//!
//! h2 joins no fields: clients may send several `cookie` lines (RFC 9113, section 8.2.3), and policy
//! sees each.

use h2::ext::Protocol;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use super::super::h1::{MOST_FIELDS, remove_connection_headers, upgrade_to};
use super::super::head::{RequestHead, is_authority, is_target};

/// Why a request is refused before it is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// CONNECT, which asks for a tunnel.
    #[error("CONNECT is not supported")]
    Connect,
    /// Extended CONNECT to a protocol that carries requests, or that is malformed.
    #[error("extended CONNECT to this protocol is not supported")]
    Protocol,
    /// The method is not in upper case.
    #[error("the method is not a token in upper case")]
    Method,
    /// There is no authority, there are several, or it is not a host.
    #[error(":authority and Host are missing, not a host, or different")]
    Authority,
    /// The path is malformed.
    #[error(":path is not a path of visible ASCII")]
    Path,
    /// There is a hop-by-hop header, or Content-Length is repeated or not a number.
    #[error("there is a hop-by-hop header, or Content-Length is not one number")]
    Header,
    /// There are too many headers.
    #[error("there are too many headers")]
    TooManyHeaders,
}

impl Refused {
    /// The status of the response.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method | Self::Authority | Self::Path | Self::Header => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request that was read.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ReadRequest {
    /// The head that is judged.
    pub(super) head: RequestHead,
    /// The protocol that extended CONNECT asks for.
    pub(super) protocol: Option<Protocol>,
}

/// Reads a request's head.
///
/// # Errors
/// [`Refused`].
pub(super) fn read(parts: Parts) -> Result<ReadRequest, Refused> {
    let Parts {
        method,
        uri,
        mut headers,
        mut extensions,
        ..
    } = parts;
    let protocol = extensions.remove::<Protocol>();
    let method = match (method, &protocol) {
        (Method::CONNECT, None) => return Err(Refused::Connect),
        (Method::CONNECT, Some(_)) => Method::GET,
        (method, _) => method,
    };
    if method
        .as_str()
        .bytes()
        .any(|byte| byte.is_ascii_lowercase())
    {
        return Err(Refused::Method);
    }
    check_headers(&headers)?;
    if let Some(protocol) = &protocol {
        let upgrade = upgrade_to(protocol.as_str()).ok_or(Refused::Protocol)?;
        headers.insert(UPGRADE, upgrade);
    }
    let authority = authority(&uri, &headers)?;
    headers.remove(HOST);
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let is_form = target.starts_with('/') || (target == "*" && method == Method::OPTIONS);
    if !is_form || !is_target(target) {
        return Err(Refused::Path);
    }
    let head = RequestHead {
        method,
        scheme: Some(uri.scheme().cloned().unwrap_or(Scheme::HTTP)),
        authority,
        target: target.to_owned(),
        headers,
        version: Version::HTTP_2,
    };
    Ok(ReadRequest { head, protocol })
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refused> {
    const NONE_OF: [HeaderName; 5] = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    if headers.len() > MOST_FIELDS {
        return Err(Refused::TooManyHeaders);
    }
    let is_of_connection = NONE_OF.iter().any(|name| headers.contains_key(name));
    let is_te = |value: &HeaderValue| value == "trailers";
    let lengths: Vec<&HeaderValue> = headers.get_all(CONTENT_LENGTH).into_iter().collect();
    let is_number = |value: &HeaderValue| {
        let digits = value.as_bytes();
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    let is_length = match lengths.as_slice() {
        [] => true,
        [length] => is_number(length),
        _ => false,
    };
    if is_of_connection || !is_length || !headers.get_all(TE).into_iter().all(is_te) {
        return Err(Refused::Header);
    }
    Ok(())
}

/// Returns `:authority` or Host. If both are present, they have to be the same.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<String, Refused> {
    let hosts: Vec<&HeaderValue> = headers.get_all(HOST).into_iter().collect();
    let host = match hosts.as_slice() {
        [] => None,
        [host] => Some(host.to_str().map_err(|_| Refused::Authority)?),
        _ => return Err(Refused::Authority),
    };
    let authority = match (uri.authority().map(Authority::as_str), host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refused::Authority);
        }
        (Some(authority), _) => authority,
        (None, host) => host.unwrap_or_default(),
    };
    if is_authority(authority) {
        Ok(authority.to_owned())
    } else {
        Err(Refused::Authority)
    }
}

/// Returns the request to send; `None` if the gate changed it into one that cannot be sent.
pub(super) fn write(request: ReadRequest) -> Option<Request<()>> {
    let ReadRequest { head, protocol } = request;
    if !is_target(&head.target) || !is_authority(&head.authority) {
        return None;
    }
    let uri = Uri::builder()
        .scheme(head.scheme.unwrap_or(Scheme::HTTP))
        .authority(head.authority.as_str())
        .path_and_query(head.target.as_str())
        .build();
    let mut request = Request::new(());
    *request.uri_mut() = uri.ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = match protocol {
        Some(protocol) => {
            request.extensions_mut().insert(protocol);
            Method::CONNECT
        }
        None => head.method,
    };
    let wants_trailers = head.headers.contains_key(TE);
    let headers = request.headers_mut();
    *headers = head.headers;
    remove_connection_headers(headers);
    headers.remove(HOST);
    headers.remove(TRANSFER_ENCODING);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_is_written_as_it_was_read() {
        let sent = [("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")];
        let request = read(request("https://a.com:80/x?y", &sent)).unwrap();
        assert_eq!(request.head.authority, "a.com:80");
        assert_eq!(request.head.target, "/x?y");
        let written = write(request).unwrap();
        assert_eq!(written.uri(), "https://a.com:80/x?y");
        assert_eq!(written.headers()["te"], "trailers");
        assert_eq!(written.headers().get_all("cookie").iter().count(), 2);
    }

    #[test]
    fn host_stands_in_for_the_authority_and_must_not_differ() {
        let own =
            |uri, hosts: &[(&str, &str)]| read(request(uri, hosts)).map(|read| read.head.authority);
        assert_eq!(own("/x", &[("host", "a.com")]), Ok("a.com".to_owned()));
        assert_eq!(
            own("http://a.com/", &[("host", "A.com")]),
            Ok("a.com".to_owned())
        );
        for (uri, hosts) in [
            ("/x", &[][..]),
            ("http://a.com/", &[("host", "b.com")]),
            ("http://a.com/", &[("host", "a.com"), ("host", "a.com")]),
            ("/x", &[("host", "a.com"), ("host", "b.com")]),
            ("http://user@a.com/", &[]),
            ("/x", &[("host", "a.com,b.com")]),
        ] {
            assert_eq!(own(uri, hosts), Err(Refused::Authority), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn connection_headers_and_bad_lengths_are_refused() {
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("te", "gzip"),
            ("content-length", "+5"),
            ("content-length", ""),
        ] {
            let refused = read(request("http://a.com/", &[(name, value)]));
            assert_eq!(refused, Err(Refused::Header), "{name}");
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(read(request("http://a.com/", &twice)), Err(Refused::Header));
    }

    #[test]
    fn connect_and_odd_methods_and_paths_are_refused() {
        let mut connect = request("http://a.com/", &[]);
        connect.method = Method::CONNECT;
        assert_eq!(read(connect), Err(Refused::Connect));
        let mut lower = request("http://a.com/", &[]);
        lower.method = Method::from_bytes(b"get").unwrap();
        assert_eq!(read(lower), Err(Refused::Method));
        let star = request("*", &[("host", "a.com")]);
        assert_eq!(read(star), Err(Refused::Path));
        let mut parts = request("http://a.com/", &[]);
        parts.uri = Uri::try_from("http://a.com/\u{e9}").unwrap();
        assert_eq!(read(parts), Err(Refused::Path));
    }

    #[test]
    fn a_gate_cannot_make_it_another_request() {
        let mut request = read(request("http://a.com/", &[])).unwrap();
        request.head.target = "/\r\nx".to_owned();
        assert!(write(request).is_none());
    }

    fn extended(protocol: &str) -> Result<ReadRequest, Refused> {
        let mut connect = request("http://a.com/chat", &[("upgrade-insecure-requests", "1")]);
        connect.method = Method::CONNECT;
        connect.extensions.insert(Protocol::from(protocol));
        read(connect)
    }

    /// M-4.
    #[test]
    fn extended_connect_is_judged_as_an_upgrade_and_sent_as_it_came() {
        let request = extended("websocket").unwrap();
        assert_eq!(request.head.method, Method::GET);
        assert_eq!(request.head.target, "/chat");
        assert_eq!(request.head.headers["upgrade"], "websocket");
        let sent = write(request).unwrap();
        assert_eq!(sent.method(), Method::CONNECT);
        assert_eq!(sent.uri(), "http://a.com/chat");
        assert!(!sent.headers().contains_key("upgrade"));
        let protocol = sent.extensions().get::<Protocol>().unwrap();
        assert_eq!(protocol.as_str(), "websocket");
    }

    #[test]
    fn extended_connect_to_protocols_that_carry_requests_is_refused() {
        for protocol in [
            "h2c", "HTTP/2.0", "h2", "tls/1.2", "spdy/3.1", "", "a b", "a,h2c", "\u{e9}",
        ] {
            assert_eq!(extended(protocol), Err(Refused::Protocol), "{protocol}");
        }
    }
}
