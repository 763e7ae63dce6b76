use bytes::Bytes;

use super::grpc_server::GrpcServer;
use super::*;
use crate::envoy::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderValue as EnvoyHeader, HeaderValueOption,
    HttpStatus, OkHttpResponse, QueryParameter, RpcStatus,
};
use ambit_model::{BodyEncoding, BodyExcess, BodyInCheck};

const PERMISSION_DENIED: i32 = 7;

pub(super) fn grpc() -> ExtensionProvider {
    provider(AuthorizerApi::Grpc)
}

fn status(code: i32) -> Option<RpcStatus> {
    Some(RpcStatus { code })
}

pub(super) fn ok(response: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: status(0),
        ok_response: Some(response),
        ..CheckResponse::default()
    }
}

fn denial(response: DeniedHttpResponse) -> CheckResponse {
    CheckResponse {
        status: status(PERMISSION_DENIED),
        denied_response: Some(response),
        ..CheckResponse::default()
    }
}

fn option(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(EnvoyHeader {
            key: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            raw_value: Bytes::new(),
        }),
        append: None,
        append_action: 0,
    }
}

fn appended(name: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption {
        append: Some(BoolValue { value: append }),
        ..option(name, value)
    }
}

/// The provider's answer to an ordinary request, if the authorizer sends this message.
async fn answer_to(response: CheckResponse) -> AuthorizerAnswer {
    let server = GrpcServer::answering(response).await;
    let asked = TestCheck::new();
    at(&[server.address]).check(&grpc(), &asked.check()).await
}

#[tokio::test(flavor = "local")]
async fn the_authorizer_sees_the_whole_request_and_both_ends() {
    let server = GrpcServer::answering(ok(OkHttpResponse::default())).await;
    let asked = TestCheck::with_headers(&[
        ("x-token", "t"),
        ("host", "forged"),
        ("content-length", "9"),
    ]);
    let answer = at(&[server.address]).check(&grpc(), &asked.check()).await;
    assert!(allowed(answer).request.is_empty());
    let (head, check) = server.check();
    assert_eq!(
        head.uri().path(),
        "/envoy.service.auth.v3.Authorization/Check"
    );
    let authority = head.uri().authority().expect("an authority").as_str();
    assert_eq!(authority, "authz.tools.svc.cluster.local:9000");
    let attributes = check.attributes.expect("attributes");
    let source = attributes.source.expect("a source");
    assert_eq!(
        source.principal,
        "spiffe://cluster.local/ns/shop/sa/frontend"
    );
    let address = source
        .address
        .and_then(|a| a.socket_address)
        .expect("an address");
    assert_eq!(
        (address.address.as_str(), address.port_value),
        ("10.1.0.1", Some(40_000))
    );
    let destination = attributes.destination.expect("a destination");
    assert_eq!(
        destination.principal,
        "spiffe://cluster.local/ns/shop/sa/orders"
    );
    let request = attributes.request.expect("a request");
    assert!(request.time.expect("a time").seconds > 0);
    let http = request.http.expect("HTTP");
    assert_eq!(
        (http.method.as_str(), http.path.as_str()),
        ("GET", "/order?id=7")
    );
    assert_eq!(
        (http.host.as_str(), http.scheme.as_str()),
        ("orders.shop", "http")
    );
    assert_eq!(
        (http.id.as_str(), http.protocol.as_str()),
        ("request-1", "HTTP/1.1")
    );
    assert_eq!(http.size, 9);
    assert_eq!(http.headers["x-token"], "t");
    assert_eq!(http.headers[":authority"], "orders.shop");
    assert_eq!(http.headers[":path"], "/order?id=7");
    assert!(!http.headers.contains_key("host"));
    assert!(http.body.is_empty() && http.raw_body.is_empty());
}

/// R-11, CVE-2021-32777.
#[tokio::test(flavor = "local")]
async fn r11_every_value_of_a_header_is_seen() {
    let server = GrpcServer::answering(ok(OkHttpResponse::default())).await;
    let lines = [
        ("x-role", "user"),
        ("x-role", "admin"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ];
    let mut asked = TestCheck::with_headers(&lines);
    let odd = HeaderValue::from_bytes(b"r\xff").expect("a value");
    asked.headers.append("x-role", odd);
    at(&[server.address]).check(&grpc(), &asked.check()).await;
    let (_, check) = server.check();
    let http = check
        .attributes
        .and_then(|a| a.request?.http)
        .expect("HTTP");
    assert_eq!(http.headers["x-role"], "user,admin,r!");
    assert_eq!(http.headers["cookie"], "a=1; b=2");
}

#[tokio::test(flavor = "local")]
async fn the_body_is_sent_in_the_configured_field() {
    for (encoding, text, raw) in [
        (BodyEncoding::Text, "a!", b"".as_slice()),
        (BodyEncoding::Bytes, "", b"a\xff"),
    ] {
        let server = GrpcServer::answering(ok(OkHttpResponse::default())).await;
        let mut asked = TestCheck::new();
        asked.body = Some(BodyPart {
            bytes: Bytes::from_static(b"a\xff"),
            extent: BodyExtent::Beginning,
        });
        let mut provider = grpc();
        provider.request_body = Some(BodyInCheck {
            max_bytes: 2,
            excess: BodyExcess::Cut,
            encoding,
        });
        at(&[server.address]).check(&provider, &asked.check()).await;
        let (_, check) = server.check();
        let http = check
            .attributes
            .and_then(|a| a.request?.http)
            .expect("HTTP");
        assert_eq!((http.body.as_str(), http.raw_body.as_ref()), (text, raw));
        assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
    }
}

#[tokio::test(flavor = "local")]
async fn a_check_of_a_plain_connection_contains_its_ends_only() {
    let server = GrpcServer::answering(CheckResponse {
        status: status(0),
        ..CheckResponse::default()
    })
    .await;
    let asked = TestCheck::new();
    let answer = at(&[server.address])
        .check(&grpc(), &asked.connection())
        .await;
    allowed(answer);
    let (_, check) = server.check();
    let attributes = check.attributes.expect("attributes");
    assert!(attributes.request.is_none());
    let principal = attributes.source.expect("a source").principal;
    assert_eq!(principal, "spiffe://cluster.local/ns/shop/sa/frontend");
}

#[tokio::test(flavor = "local")]
async fn an_allowed_request_may_be_changed() {
    let mut if_absent = option("x-there", "no");
    if_absent.append_action = 1;
    let allowance = allowed(
        answer_to(ok(OkHttpResponse {
            headers: vec![
                option("x-user", "alice"),
                appended("x-groups", "b", true),
                if_absent,
            ],
            headers_to_remove: vec![
                Bytes::from_static(b"authorization"),
                Bytes::from_static(b":path"),
                Bytes::from_static(b"Host"),
            ],
            response_headers_to_add: vec![
                option("set-cookie", "a=1"),
                option("set-cookie", "b=2"),
                appended("x-frame", "deny", false),
            ],
            ..OkHttpResponse::default()
        }))
        .await,
    );
    let mut request = header_map(&[
        ("x-user", "forged"),
        ("x-user", "twice"),
        ("x-groups", "a"),
        ("x-there", "yes"),
        ("authorization", "secret"),
        ("host", "orders.shop"),
    ]);
    allowance.request.apply(&mut request);
    let expected = [
        ("x-user", "alice"),
        ("x-groups", "a"),
        ("x-groups", "b"),
        ("x-there", "yes"),
        ("host", "orders.shop"),
    ];
    assert_eq!(request, header_map(&expected));
    let mut response = header_map(&[("set-cookie", "own=1"), ("x-frame", "allow")]);
    allowance.response.apply(&mut response);
    let expected = [
        ("set-cookie", "own=1"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-frame", "deny"),
    ];
    assert_eq!(response, header_map(&expected));
}

#[tokio::test(flavor = "local")]
async fn a_denied_request_gets_the_authorizers_response() {
    let denial = denied(
        answer_to(denial(DeniedHttpResponse {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![
                option("www-authenticate", "Bearer"),
                option("x-why", "no token"),
                appended("x-why", "at all", true),
            ],
            body: Bytes::from_static(b"who are you?"),
        }))
        .await,
    );
    assert_eq!(denial.status, StatusCode::UNAUTHORIZED);
    assert_eq!(denial.body, "who are you?");
    let lines = [
        ("www-authenticate", "Bearer"),
        ("x-why", "no token"),
        ("x-why", "at all"),
    ];
    assert_eq!(denial.headers, header_map(&lines));
}

/// CVE-2024-23324: malformed parts must not turn a denial into anything else.
#[tokio::test(flavor = "local")]
async fn a_denial_stands_whatever_else_is_wrong_with_it() {
    let strange = DeniedHttpResponse {
        status: Some(HttpStatus { code: 7_000 }),
        headers: vec![
            option(":status", "200"),
            option("content-length", "0"),
            option("x-a", "b\r\nx-c: d"),
            HeaderValueOption::default(),
            option("x-good", "yes"),
        ],
        body: Bytes::from_static(b"\xff"),
    };
    let server = GrpcServer::answering(denial(strange)).await;
    let asked = TestCheck::new();
    let authorizer = at(&[server.address]);
    let outcome = authorizer.decide(&fail_open(grpc()), &asked.check()).await;
    let CheckOutcome::Deny(denial) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(denial.status, StatusCode::FORBIDDEN);
    assert_eq!(denial.headers, header_map(&[("x-good", "yes")]));
    assert_eq!(denial.body.as_ref(), b"\xff");
}

#[tokio::test(flavor = "local")]
async fn a_denial_anywhere_in_an_answer_denies() {
    let denials = [
        CheckResponse {
            status: status(PERMISSION_DENIED),
            ..CheckResponse::default()
        },
        CheckResponse {
            status: status(PERMISSION_DENIED),
            ok_response: Some(OkHttpResponse::default()),
            ..CheckResponse::default()
        },
        CheckResponse {
            status: status(0),
            denied_response: Some(DeniedHttpResponse::default()),
            ..CheckResponse::default()
        },
        CheckResponse {
            denied_response: Some(DeniedHttpResponse::default()),
            ok_response: Some(OkHttpResponse::default()),
            ..CheckResponse::default()
        },
    ];
    for response in denials {
        let denial = denied(answer_to(response).await);
        assert_eq!(denial.status, StatusCode::FORBIDDEN);
        assert!(denial.headers.is_empty() && denial.body.is_empty());
    }
}

#[tokio::test(flavor = "local")]
async fn an_authorizer_may_not_change_headers_of_http_itself() {
    let set = |name: &str| OkHttpResponse {
        headers: vec![option("x-user", "alice"), option(name, "1")],
        ..OkHttpResponse::default()
    };
    let mut unknown_action = option("x-user", "alice");
    unknown_action.append_action = 9;
    let answers = [
        set(":path"),
        set(":authority"),
        set("Host"),
        set("content-length"),
        set("transfer-encoding"),
        set("connection"),
        set(""),
        set("a b"),
        OkHttpResponse {
            headers: vec![option("x-user", "a\r\nx-admin: yes")],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers: vec![unknown_action],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            headers_to_remove: vec![Bytes::from_static(b"a b")],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            response_headers_to_add: vec![option("content-length", "0")],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            query_parameters_to_set: vec![QueryParameter {}],
            ..OkHttpResponse::default()
        },
        OkHttpResponse {
            query_parameters_to_remove: vec![Bytes::from_static(b"admin")],
            ..OkHttpResponse::default()
        },
    ];
    for response in answers {
        let shown = format!("{response:?}");
        let error = unanswered(answer_to(ok(response)).await);
        assert!(
            matches!(error, CheckError::Malformed { .. }),
            "{shown}: {error}"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn an_empty_answer_is_an_error() {
    let error = unanswered(answer_to(CheckResponse::default()).await);
    assert!(matches!(error, CheckError::Malformed { .. }), "{error}");
    let error = unanswered(
        answer_to(CheckResponse {
            status: status(0),
            error_response: Some(DeniedHttpResponse::default()),
            ..CheckResponse::default()
        })
        .await,
    );
    assert!(matches!(error, CheckError::Failed { .. }), "{error}");
}
