//! Whether a connection may be used again: only if nothing can still come on it. What comes late
//! would be taken for the answer to the next check.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Body;

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reuse {
    /// It may take another check, once the whole answer was read.
    Keep,
    /// It ends.
    Close,
}

/// Decides by the request, whether interim answers came, and the answer's head.
///
/// Servers have been seen that send a body in answer to HEAD, and with 204 and 304. One that does not
/// read a request's body takes it for the next request, and answers it.
pub(super) fn after<B>(
    request: &Request<Full<Bytes>>,
    interim: Interim,
    response: &Response<B>,
) -> Reuse {
    let has_no_body = *request.method() == Method::HEAD
        || matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        );
    let is_plain = response.version() == Version::HTTP_11
        && !response.status().is_informational()
        && !asks_to_close(response.headers())
        && is_framed_once(response.headers());
    let sent_body = !request.body().is_end_stream();
    match (is_plain, interim) {
        (true, Interim::None) if !has_no_body && !sent_body => Reuse::Keep,
        _ => Reuse::Close,
    }
}

/// Whether interim answers (1xx) came before the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Interim {
    /// None did.
    None,
    /// Some did.
    Some,
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    let is_keep_alive =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    !headers.get_all(CONNECTION).iter().all(is_keep_alive)
}

/// Whether exactly one header says where the body ends.
fn is_framed_once(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths, encodings.next(), encodings.next()) {
        (1, None, _) => true,
        (0, Some(encoding), None) => encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reuse(
        (method, body): (Method, &'static str),
        interim: Interim,
        (status, lines): (u16, &[(&'static str, &'static str)]),
    ) -> Reuse {
        let mut request = Request::new(Full::new(Bytes::from_static(body.as_bytes())));
        *request.method_mut() = method;
        let mut response = Response::builder().status(status);
        for &(name, value) in lines {
            response = response.header(name, value);
        }
        after(&request, interim, &response.body(()).expect("a response"))
    }

    #[test]
    fn only_an_ordinary_exchange_leaves_nothing_behind() {
        let length = &[("content-length", "2")][..];
        let chunked = &[("transfer-encoding", "chunked")][..];
        for lines in [
            length,
            chunked,
            &[("content-length", "0"), ("connection", "Keep-Alive")],
        ] {
            let kept = reuse((Method::GET, ""), Interim::None, (200, lines));
            assert_eq!(kept, Reuse::Keep, "{lines:?}");
        }
        for (request, interim, answer) in [
            ((Method::HEAD, ""), Interim::None, (200, length)),
            ((Method::POST, "body"), Interim::None, (200, length)),
            ((Method::GET, ""), Interim::Some, (200, length)),
            ((Method::GET, ""), Interim::None, (204, length)),
            ((Method::GET, ""), Interim::None, (205, length)),
            ((Method::GET, ""), Interim::None, (304, length)),
            ((Method::GET, ""), Interim::None, (101, length)),
            ((Method::GET, ""), Interim::None, (200, &[])),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("content-length", "2"), ("content-length", "2")]),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (
                    200,
                    &[("content-length", "2"), ("transfer-encoding", "chunked")],
                ),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("transfer-encoding", "gzip, chunked")]),
            ),
            (
                (Method::GET, ""),
                Interim::None,
                (200, &[("content-length", "2"), ("connection", "close")]),
            ),
        ] {
            let closed = reuse(request.clone(), interim, answer);
            assert_eq!(closed, Reuse::Close, "{request:?} {answer:?}");
        }
        let mut old = Response::builder().header("content-length", "0");
        old = old.version(Version::HTTP_10);
        let request = Request::new(Full::new(Bytes::new()));
        let closed = after(&request, Interim::None, &old.body(()).expect("a response"));
        assert_eq!(closed, Reuse::Close);
    }
}
