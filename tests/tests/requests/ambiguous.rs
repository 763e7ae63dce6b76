//! Requests that could be read in two ways.

use ambit_tests::{Backend, Lab, RawCall, RawEnd, RawReply, Site, Until};
use anyhow::{Context, Result, ensure};

use crate::expected::DENY_ADMIN;

/// Requests that end, or do not end, where two readers would disagree; each carries a second one,
/// for `/smuggled`.
const AMBIGUOUS: [(&str, &[u8]); 27] = [
    (
        "Content-Length, then Transfer-Encoding",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "Transfer-Encoding, then Content-Length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 41\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "two lengths",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "twice the same length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a list of lengths",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0, 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a length with a sign",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: +0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a hexadecimal length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0x0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "two encodings",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding before chunked",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an obfuscated encoding",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding with a vertical tab",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: \x0bchunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding in HTTP/1.0",
        b"POST /ok HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a folded line",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a folded first line",
        b"POST /ok HTTP/1.1\r\n Host: web\r\nHost: web\r\n\r\n",
    ),
    (
        "LF by itself in a head",
        b"POST /ok HTTP/1.1\r\nHost: web\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a head that ends with LF by itself",
        b"GET /ok HTTP/1.1\r\nHost: web\r\n\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "CR by itself in a value",
        b"GET /ok HTTP/1.1\r\nHost: web\r\nX: a\rContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    ("NUL in a value", b"GET /ok HTTP/1.1\r\nHost: web\r\nX: a\0b\r\n\r\n"),
    ("NUL in a target", b"GET /ok\0 HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("two Hosts", b"GET /ok HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
    (
        "a space before the colon",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    ("a space in a target", b"GET /ok x HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("two spaces in the request line", b"GET  /ok HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("a tab in the request line", b"GET /ok\tx HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("no version", b"GET /ok\r\nHost: web\r\n\r\n"),
    ("another version", b"GET /ok HTTP/1.2\r\nHost: web\r\n\r\n"),
    (
        "Connection that names what has to arrive",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nConnection: content-length\r\nContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
];

/// Bodies with errors after a correct head.
const BAD_BODIES: [(&str, &[u8]); 6] = [
    ("a size that is none", b"zz\r\n"),
    ("a size with a sign", b"+5\r\nhello\r\n"),
    ("a size in 0x", b"0x5\r\nhello\r\n"),
    ("LF by itself after the size", b"5\nhello\r\n"),
    ("a longer chunk than its size", b"4\r\nhello\r\n"),
    ("a size beyond all numbers", b"fffffffffffffffff\r\n"),
];

pub(crate) fn what_could_be_read_in_two_ways_is_refused(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("p1", &[DENY_ADMIN]), ("body", &[DENY_ADMIN])])?;
    let backend = site.backend("p1")?;
    let send = |backend: &Backend, bytes: &[u8]| {
        let call = RawCall {
            to: backend.service.at(),
            bytes,
            until: Until::End,
        };
        call.make(site.caller.place())
    };
    for (case, bytes) in AMBIGUOUS {
        let reply = send(backend, bytes)?;
        ensure_refused_and_ended(&reply).context(case)?;
        // After a correct request, on the same connection.
        let second = [&b"GET /admin HTTP/1.1\r\nHost: web\r\n\r\n"[..], bytes].concat();
        let reply = send(backend, &second)?;
        let is_refused = reply.statuses() == [403, 400] && reply.end == RawEnd::Closed;
        ensure!(is_refused, "{case}, second: {reply:?}");
    }
    backend.web.ensure_nothing_left()?;
    let seen = backend.web.heads();
    ensure!(seen.is_empty(), "the application saw {seen:?}");
    for (case, body) in BAD_BODIES {
        let head = b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n";
        let reply = send(site.backend("body")?, &[&head[..], body, smuggled].concat())?;
        ensure_refused_and_ended(&reply).context(case)?;
    }
    let web = &site.backend("body")?.web;
    ensure!(
        web.bodies().is_empty() && !web.heads().iter().any(|head| head.contains("smuggled")),
        "the application took a broken body for a whole one: {:?}",
        web.heads()
    );
    Ok(())
}

fn ensure_refused_and_ended(reply: &RawReply) -> Result<()> {
    let is_refused = reply.statuses() == [400] && reply.end == RawEnd::Closed;
    ensure!(is_refused, "{reply:?}");
    Ok(())
}
