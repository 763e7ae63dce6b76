use ::http::Response;
use bytes::Bytes;

use super::http_server::{HttpServer, Then, raw};
use super::*;
use ambit_model::HeaderPattern;

fn patterns(texts: &[&str]) -> Vec<HeaderPattern> {
    let pattern = |text: &&str| HeaderPattern::new(text).expect("a pattern");
    texts.iter().map(pattern).collect()
}

fn http(api: HttpApi) -> ExtensionProvider {
    provider(AuthorizerApi::Http(api))
}

fn response(status: u16, lines: &[(&'static str, &'static str)]) -> Response<&'static str> {
    let mut response = Response::new("");
    *response.status_mut() = status.try_into().expect("a status");
    *response.headers_mut() = header_map(lines);
    response
}

/// The provider's answer to an ordinary request, if the authorizer sends this response.
async fn answer_to(api: HttpApi, response: Response<&'static str>) -> AuthorizerAnswer {
    let server = HttpServer::answering(response).await;
    let asked = TestCheck::new();
    at(&[server.address])
        .check(&http(api), &asked.check())
        .await
}

#[tokio::test(flavor = "local")]
async fn the_authorizer_gets_the_request_with_the_configured_headers() {
    let server = HttpServer::answering(response(200, &[])).await;
    let mut asked = TestCheck::with_headers(&[
        ("host", "forged"),
        ("authorization", "Bearer t"),
        ("x-role", "user"),
        ("x-role", "admin"),
        ("x-other", "1"),
        ("x-mesh", "forged"),
        ("cookie", "a=1"),
        ("content-length", "99"),
        ("content-type", "text/plain"),
        ("connection", "close"),
        ("expect", "100-continue"),
    ]);
    asked.method = Method::DELETE;
    let mesh = HeaderName::from_static("x-mesh");
    let provider = http(HttpApi {
        path_prefix: "/check".into(),
        request_headers: patterns(&["x-role", "x-mesh", "con*", "*t", "host"]),
        additional_headers: vec![(mesh, HeaderValue::from_static("ambit"))],
        ..HttpApi::default()
    });
    allowed(at(&[server.address]).check(&provider, &asked.check()).await);
    let request = server.request();
    assert_eq!(request.method(), Method::DELETE);
    assert_eq!(request.uri(), "/check/order?id=7");
    let expected = [
        ("host", "orders.shop"),
        ("authorization", "Bearer t"),
        ("x-role", "user"),
        ("x-role", "admin"),
        ("x-mesh", "ambit"),
        ("content-type", "text/plain"),
        ("content-length", "0"),
    ];
    assert_eq!(*request.headers(), header_map(&expected));
    assert!(request.body().is_empty());
}

#[tokio::test(flavor = "local")]
async fn the_body_is_sent_with_its_own_length() {
    let server = HttpServer::answering(response(200, &[])).await;
    let mut asked = TestCheck::with_headers(&[("content-length", "1000")]);
    asked.method = Method::POST;
    asked.body = Some(BodyPart {
        bytes: Bytes::from_static(b"all of it"),
        extent: BodyExtent::Whole,
    });
    let provider = http(HttpApi::default());
    allowed(at(&[server.address]).check(&provider, &asked.check()).await);
    let request = server.request();
    assert_eq!(request.body(), "all of it");
    assert_eq!(request.headers()["content-length"], "9");
    assert_eq!(request.headers()["x-envoy-auth-partial-body"], "false");
}

#[tokio::test(flavor = "local")]
async fn an_allowed_request_gets_the_configured_headers() {
    let api = HttpApi {
        to_upstream_on_allow: patterns(&["x-user*", "content-*", "host"]),
        to_downstream_on_allow: patterns(&["set-cookie"]),
        ..HttpApi::default()
    };
    let answer = response(
        200,
        &[
            ("x-user", "alice"),
            ("x-user", "bob"),
            ("x-admin", "yes"),
            ("set-cookie", "a=1"),
            (
                "x-envoy-auth-headers-to-remove",
                "Authorization, x-old ,, host",
            ),
        ],
    );
    let allowance = allowed(answer_to(api, answer).await);
    let mut request = header_map(&[
        ("x-user", "forged"),
        ("authorization", "secret"),
        ("x-old", "1"),
        ("host", "orders.shop"),
        ("content-length", "5"),
    ]);
    allowance.request.apply(&mut request);
    let expected = [
        ("x-user", "alice"),
        ("x-user", "bob"),
        ("host", "orders.shop"),
        ("content-length", "5"),
    ];
    assert_eq!(request, header_map(&expected));
    let mut response = HeaderMap::new();
    allowance.response.apply(&mut response);
    assert_eq!(response, header_map(&[("set-cookie", "a=1")]));
}

#[tokio::test(flavor = "local")]
async fn by_default_no_headers_are_added() {
    let answer = response(200, &[("x-user", "alice"), ("set-cookie", "a=1")]);
    let allowance = allowed(answer_to(HttpApi::default(), answer).await);
    assert!(allowance.request.is_empty() && allowance.response.is_empty());
}

#[tokio::test(flavor = "local")]
async fn everything_but_200_and_5xx_is_a_denial_with_its_status() {
    for status in [201, 204, 302, 400, 401, 403, 404, 429, 431] {
        let answer = answer_to(HttpApi::default(), response(status, &[])).await;
        assert_eq!(denied(answer).status, status);
    }
    for status in [500, 502, 503, 599] {
        let answer = answer_to(HttpApi::default(), response(status, &[])).await;
        let error = unanswered(answer);
        assert!(
            matches!(error, CheckError::Failed { .. }),
            "{status}: {error}"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn a_denial_has_the_authorizers_body_and_headers() {
    let lines = [
        ("location", "https://login.example"),
        ("www-authenticate", "Bearer"),
        ("x-why", "no token"),
        ("x-secret", "1"),
        ("keep-alive", "timeout=5"),
    ];
    let answer = || response(302, &lines).map(|_| "log in first");
    let denial = denied(answer_to(HttpApi::default(), answer()).await);
    assert_eq!(
        (denial.status, denial.body.as_ref()),
        (StatusCode::FOUND, b"log in first".as_slice())
    );
    for (name, value) in &lines[..4] {
        assert_eq!(denial.headers[*name], *value);
    }
    for name in ["keep-alive", "content-length", "connection", "host"] {
        assert!(!denial.headers.contains_key(name), "{name}");
    }
    let some = HttpApi {
        to_downstream_on_deny: patterns(&["x-why"]),
        ..HttpApi::default()
    };
    let denial = denied(answer_to(some, answer()).await);
    assert_eq!(denial.headers, header_map(&lines[..3]));
    assert_eq!(denial.body, "log in first");
}

/// CVE-2024-23324: nothing that follows a denial turns it into anything else.
#[tokio::test(flavor = "local")]
async fn a_denial_stands_if_its_body_does_not_arrive() {
    let endless = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\nbut";
    let broken = b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    for (bytes, then) in [
        (endless.as_slice(), Then::Stall),
        (endless, Then::Close),
        (broken, Then::Close),
    ] {
        let address = raw(bytes, then).await;
        let mut provider = fail_open(http(HttpApi::default()));
        provider.timeout = Duration::from_secs(2);
        let outcome = at(&[address])
            .decide(&provider, &TestCheck::new().check())
            .await;
        let CheckOutcome::Deny(denial) = outcome else {
            panic!("{then:?}: {outcome:?}")
        };
        assert_eq!(denial.status, StatusCode::FORBIDDEN);
        assert!(denial.body.is_empty());
    }
}

#[tokio::test(flavor = "local")]
async fn a_response_that_is_not_http_is_an_error() {
    for bytes in [
        b"\x00\x01\x02".as_slice(),
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx user: alice\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-envoy-auth-headers-to-remove: a b\r\ncontent-length: 0\r\n\r\n",
    ] {
        let address = raw(bytes, Then::Close).await;
        let provider = http(HttpApi::default());
        let error = unanswered(
            at(&[address])
                .check(&provider, &TestCheck::new().check())
                .await,
        );
        let shown = String::from_utf8_lossy(bytes);
        assert!(
            matches!(error, CheckError::Malformed { .. }),
            "{shown:?}: {error}"
        );
    }
    let address = raw(b"", Then::Close).await;
    let provider = http(HttpApi::default());
    let error = unanswered(
        at(&[address])
            .check(&provider, &TestCheck::new().check())
            .await,
    );
    assert!(matches!(error, CheckError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "local")]
async fn connections_are_used_again_unless_the_authorizer_closes_them() {
    for (lines, connections) in [(&[][..], 1), (&[("connection", "close")], 3)] {
        let server = HttpServer::answering(response(200, lines)).await;
        let (authorizer, provider) = (at(&[server.address]), http(HttpApi::default()));
        for _ in 0..3 {
            allowed(authorizer.check(&provider, &TestCheck::new().check()).await);
        }
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test(flavor = "local")]
async fn another_endpoint_is_asked_if_one_cannot_be_reached() {
    let server = HttpServer::answering(response(200, &[])).await;
    let authorizer = at(&[GONE, server.address]);
    // The first endpoint is chosen at random.
    for _ in 0..8 {
        let provider = http(HttpApi::default());
        allowed(authorizer.check(&provider, &TestCheck::new().check()).await);
    }
}

#[tokio::test(flavor = "local")]
async fn a_request_that_cannot_be_checked_is_refused_even_with_fail_open() {
    let server = HttpServer::answering(response(200, &[])).await;
    let authorizer = at(&[server.address]);
    let provider = fail_open(http(HttpApi::default()));
    let mut connect = TestCheck::new();
    connect.method = Method::CONNECT;
    let mut no_path = TestCheck::new();
    no_path.path = "orders.shop:80";
    let connection = TestCheck::new();
    for check in [connect.check(), no_path.check(), connection.connection()] {
        match authorizer.decide(&provider, &check).await {
            CheckOutcome::Refuse {
                status: StatusCode::FORBIDDEN,
                error: CheckError::NotAskable(_),
            } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.connections(), 0);
}
