//! Heads as bytes. What stands in them about the body and the connection is ours alone.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Version};

use super::super::authority::is_authority;
use super::super::head::RequestHead;
use super::framing::Framing;
use super::head::is_target;
use super::hop::ConnectionPersistence;
use super::response::ResponseHead;

/// A head that the gate has made into what cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the request's target or authority cannot be written into a request line")]
pub struct Unwritable;

/// What is written about the connection.
const OURS: [HeaderName; 4] = [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];

/// Writes a request's head.
///
/// # Errors
/// [`Unwritable`]; then nothing is written.
pub fn write_request(
    head: &RequestHead,
    framing: Framing,
    persistence: ConnectionPersistence,
    out: &mut BytesMut,
) -> Result<(), Unwritable> {
    let has_no_host = head.authority.is_empty() && head.version == Version::HTTP_10;
    let is_form = head.target.starts_with('/') || head.target == "*";
    let is_writable = is_form && is_target(&head.target);
    if !is_writable || !(has_no_host || is_authority(&head.authority)) {
        return Err(Unwritable);
    }
    out.put_slice(head.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(head.target.as_bytes());
    out.put_slice(match head.version {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    if !has_no_host {
        put_field(out, "host", head.authority.as_bytes());
    }
    put_fields(out, &head.headers);
    put_framing(out, framing);
    put_connection(out, &head.headers, head.version, persistence);
    out.put_slice(b"\r\n");
    Ok(())
}

/// Writes a response's head, to a client that speaks `version`. Where the framing is none, a
/// Content-Length tells what a body would have.
pub(super) fn write_response(
    head: &ResponseHead,
    framing: Framing,
    persistence: ConnectionPersistence,
    version: Version,
    out: &mut BytesMut,
) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(&head.reason);
    out.put_slice(b"\r\n");
    put_fields(out, &head.headers);
    match (framing, head.headers.get(CONTENT_LENGTH)) {
        (Framing::None, Some(length)) => put_field(out, "content-length", length.as_bytes()),
        _ => put_framing(out, framing),
    }
    if !head.status.is_informational() || head.headers.contains_key(UPGRADE) {
        put_connection(out, &head.headers, version, persistence);
    }
    out.put_slice(b"\r\n");
}

fn put_fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if !OURS.contains(name) {
            put_field(out, name.as_str(), value.as_bytes());
        }
    }
}

fn put_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => put_field(out, "content-length", length.to_string().as_bytes()),
        Framing::Chunked => put_field(out, "transfer-encoding", b"chunked"),
    }
}

fn put_connection(
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

fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn head(target: &str, authority: &str) -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: None,
            authority: authority.to_owned(),
            target: target.to_owned(),
            headers: HeaderMap::new(),
            version: Version::HTTP_11,
        }
    }

    #[test]
    fn a_gate_cannot_write_another_request_into_a_head() {
        for (target, authority) in [
            ("/ HTTP/1.1\r\nx: y", "a.com"),
            ("/\u{e9}", "a.com"),
            ("", "a.com"),
            ("x", "a.com"),
            ("/", ""),
            ("/", "a.com\r\nx: y"),
        ] {
            let mut out = BytesMut::new();
            let written = write_request(
                &head(target, authority),
                Framing::None,
                ConnectionPersistence::KeepAlive,
                &mut out,
            );
            assert_eq!(written, Err(Unwritable), "{target:?} {authority:?}");
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_gate_cannot_change_the_framing() {
        let mut head = head("/", "a.com");
        for (name, value) in [
            ("content-length", "5"),
            ("connection", "x"),
            ("host", "b.com"),
        ] {
            head.headers.insert(name, value.parse().unwrap());
        }
        let mut out = BytesMut::new();
        write_request(
            &head,
            Framing::Chunked,
            ConnectionPersistence::Close,
            &mut out,
        )
        .unwrap();
        let expected = "GET / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: chunked\r\n\
                        connection: close\r\n\r\n";
        assert_eq!(out, expected);
    }
}
