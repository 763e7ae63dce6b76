use super::*;
use ambit_input::work::{linear, steps_of};

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &(name, value) in lines {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

fn request(lines: &[(&'static str, &'static str)]) -> Result<HeaderMap, Malformed> {
    let mut headers = headers(lines);
    remove_from_request(&mut headers, Version::HTTP_11).map(|_| headers)
}

#[test]
fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
    let left = request(&[
        ("connection", "close, X-Secret ,"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("x-role", "user"),
    ]);
    assert_eq!(left, Ok(headers(&[("x-role", "user")])));
}

#[test]
fn a_request_cannot_have_headers_removed_that_policies_rely_on() {
    for name in [
        "host",
        "Content-Length",
        "transfer-encoding",
        "Authorization",
        "origin",
        "X-Forwarded-For",
        "x-forwarded-client-cert",
        "forwarded",
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_str(name).unwrap());
        let refused = remove_from_request(&mut headers, Version::HTTP_11);
        assert_eq!(refused, Err(Malformed::Connection), "{name}");
    }
    assert_eq!(
        request(&[("connection", "a b")]),
        Err(Malformed::Connection)
    );
}

#[test]
fn cookie_and_trailer_are_kept_although_connection_names_them() {
    let left = request(&[
        ("connection", "Cookie, trailer, x-a"),
        ("cookie", "a=b"),
        ("trailer", "x-sum"),
        ("x-a", "1"),
    ]);
    let kept = headers(&[("cookie", "a=b"), ("trailer", "x-sum")]);
    assert_eq!(left, Ok(kept));
}

#[test]
fn an_upgrade_is_passed_on_if_connection_names_it() {
    let websocket = [("connection", "Upgrade"), ("upgrade", "WebSocket")];
    assert_eq!(request(&websocket).unwrap()["upgrade"], "websocket");
    let mut old = headers(&websocket);
    remove_from_request(&mut old, Version::HTTP_10).unwrap();
    assert!(old.is_empty());
}

#[test]
fn protocols_whose_requests_would_not_be_judged_are_not_passed_on() {
    for protocol in ["h2c", "HTTP/2.0", "TLS/1.0", "h2c, H2"] {
        let lines = [
            ("connection", "upgrade, http2-settings"),
            ("upgrade", protocol),
            ("http2-settings", "x"),
        ];
        assert_eq!(request(&lines), Ok(HeaderMap::new()), "{protocol}");
    }
    let mixed = [("connection", "upgrade"), ("upgrade", "h2c, websocket")];
    assert_eq!(request(&mixed).unwrap()["upgrade"], "websocket");
}

/// Servers differ in which part of a protocol's name they look at.
#[test]
fn protocols_that_carry_requests_are_recognised_however_they_are_written() {
    for protocol in [
        "h2c;q=1",
        "H2C ; q=1",
        "h2c/1",
        "H2c/2.0",
        "h2c-14",
        "\"h2c\"",
        "\"websocket, h2c\"",
        "h2c websocket",
        "websocket h2c",
        "websocket;h2c",
        "h2c\t",
        "HTTP/2",
        "tls/1.3",
        "h3-29",
        "/h2c",
        "h2c/",
        "websocket/h2c/1",
    ] {
        let lines = [
            ("connection", "upgrade, http2-settings"),
            ("upgrade", protocol),
            ("http2-settings", "x"),
        ];
        assert_eq!(request(&lines), Ok(HeaderMap::new()), "{protocol}");
    }
    let lines = [
        ("connection", "upgrade"),
        ("upgrade", "h2c;q=0.5"),
        ("upgrade", "websocket/13, h2c"),
    ];
    assert_eq!(request(&lines), Ok(headers(&[("upgrade", "websocket/13")])));
}

#[test]
fn an_application_may_choose_only_what_it_was_offered() {
    let offered = headers(&[("upgrade", "websocket, tcp")]);
    assert!(was_offered(&headers(&[("upgrade", "WebSocket")]), &offered));
    assert!(!was_offered(&headers(&[("upgrade", "h2c")]), &offered));
    assert!(!was_offered(&headers(&[("upgrade", "tcp, h2c")]), &offered));
    assert!(!was_offered(&HeaderMap::new(), &offered));
}

#[test]
fn te_is_passed_on_for_trailers_only() {
    let te = |value| request(&[("connection", "te"), ("te", value)]).unwrap();
    assert_eq!(te("gzip, Trailers")["te"], "trailers");
    assert!(te("gzip").is_empty());
}

#[test]
fn a_response_may_list_parameters_in_connection() {
    let response = |value| {
        let lines = [("connection", value), ("x-a", "1"), ("keep-alive", "max=9")];
        let mut headers = headers(&lines);
        let persistence = remove_from_response(&mut headers, Version::HTTP_11)?;
        Ok((headers.contains_key("x-a"), headers.len(), persistence))
    };
    use ConnectionPersistence::{Close, KeepAlive};
    assert_eq!(response("keep-alive; timeout=5"), Ok((true, 2, KeepAlive)));
    assert_eq!(response("timeout=5, \"x\", ;"), Ok((true, 2, KeepAlive)));
    assert_eq!(response("Close ; a, X-A;b"), Ok((false, 1, Close)));
    assert_eq!(response("content-length ;a=b"), Err(Malformed::Connection));
    let refused = request(&[("connection", "keep-alive; timeout=5")]);
    assert_eq!(refused, Err(Malformed::Connection));
}

#[test]
fn a_response_keeps_its_upgrade_and_its_content() {
    let mut sent = headers(&[
        ("connection", "upgrade, x-a"),
        ("upgrade", "a"),
        ("x-a", "b"),
    ]);
    remove_from_response(&mut sent, Version::HTTP_11).unwrap();
    assert_eq!(sent, headers(&[("upgrade", "a")]));
    let mut bad = headers(&[("connection", "content-length")]);
    let refused = remove_from_response(&mut bad, Version::HTTP_11);
    assert_eq!(refused, Err(Malformed::Connection));
}

/// The lists of one response must not occupy a thread for long.
#[test]
fn twice_the_lists_cost_no_more_than_twice_the_steps() {
    let list = |times: usize| HeaderValue::try_from("a,".repeat(times)).unwrap();
    let steps = |times: usize| {
        let offered = HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (
                UPGRADE,
                HeaderValue::try_from("b,".repeat(times) + "a").unwrap(),
            ),
        ]);
        let chosen = HeaderMap::from_iter([(CONNECTION, list(times)), (UPGRADE, list(times))]);
        steps_of(|| {
            let _ = was_offered(&chosen, &offered);
            let _ = remove_from_request(&mut offered.clone(), Version::HTTP_11);
            let _ = remove_from_response(&mut chosen.clone(), Version::HTTP_11);
        })
        .1
    };
    let (once, twice) = (steps(2_000), steps(4_000));
    assert!(twice <= linear(once), "{once}, {twice}");
}

#[test]
fn too_many_protocols_are_refused() {
    let upgrade = |count: usize| {
        let list = vec!["websocket"; count].join(",");
        HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, HeaderValue::try_from(list).unwrap()),
        ])
    };
    let taken = |count| remove_from_request(&mut upgrade(count), Version::HTTP_11).is_ok();
    assert!(taken(16) && !taken(17));
    assert!(was_offered(&upgrade(16), &upgrade(1)));
    assert!(!was_offered(&upgrade(17), &upgrade(1)));
}
