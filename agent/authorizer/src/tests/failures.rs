//! What happens to requests if there is no answer.

use super::grpc_server::{GrpcServer, Reply};
use super::http_server::{HttpServer, Then, narrow, raw};
use super::*;

/// The outcome of a check for a provider that never fails open, and for one that does.
async fn outcomes(
    address: SocketAddr,
    provider: ExtensionProvider,
) -> (CheckOutcome, CheckOutcome, AuthorizerStats) {
    let authorizer = at(&[address]);
    let asked = TestCheck::new();
    let closed = authorizer.decide(&provider, &asked.check()).await;
    let open = authorizer
        .decide(&fail_open(provider), &asked.check())
        .await;
    (closed, open, authorizer.counts.read())
}

/// A provider with a short time limit, for authorizers that never answer.
fn impatient(api: AuthorizerApi) -> ExtensionProvider {
    ExtensionProvider {
        timeout: Duration::from_millis(200),
        ..provider(api)
    }
}

#[tokio::test(flavor = "local")]
async fn without_an_answer_a_request_is_refused_or_let_through_as_configured() {
    let silent = GrpcServer::replying(Reply::Silence).await;
    let broken = GrpcServer::replying(Reply::HangUp).await;
    let failing = HttpServer::answering({
        let mut response = ::http::Response::new("");
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .await;
    let slow = raw(b"", Then::Stall).await;
    let (grpc, http) = (AuthorizerApi::Grpc, http_api());
    for (case, address, provider) in [
        ("gone, gRPC", GONE, provider(grpc.clone())),
        ("gone, HTTP", GONE, provider(http.clone())),
        ("silent, gRPC", silent.address, impatient(grpc.clone())),
        ("broken, gRPC", broken.address, provider(grpc.clone())),
        ("no HTTP/2", slow, impatient(grpc)),
        ("silent, HTTP", slow, impatient(http.clone())),
        ("500", failing.address, provider(http)),
    ] {
        let (closed, open, stats) = outcomes(address, provider).await;
        let CheckOutcome::Refuse { status, error } = closed else {
            panic!("{case}: {closed:?}")
        };
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{case}");
        assert!(
            matches!(open, CheckOutcome::LetThrough(_)),
            "{case}: {open:?}"
        );
        assert_eq!(stats.errors, [(error.as_str(), 2)].into(), "{case}");
        assert_eq!(
            (stats.let_through, stats.allowed, stats.denied),
            (1, 0, 0),
            "{case}"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn a_denial_stands_whether_or_not_the_provider_fails_open() {
    let mut forbidden = ::http::Response::new("");
    *forbidden.status_mut() = StatusCode::FORBIDDEN;
    let http = HttpServer::answering(forbidden).await;
    let grpc = GrpcServer::replying(Reply::Code(7)).await;
    for (address, api) in [
        (http.address, http_api()),
        (grpc.address, AuthorizerApi::Grpc),
    ] {
        let (closed, open, stats) = outcomes(address, provider(api)).await;
        assert!(matches!(closed, CheckOutcome::Deny(_)), "{closed:?}");
        assert!(matches!(open, CheckOutcome::Deny(_)), "{open:?}");
        assert_eq!((stats.denied, stats.let_through), (2, 0));
        assert!(stats.errors.is_empty());
    }
}

/// A caller must not get past an authorizer with a check that the authorizer does not accept.
#[tokio::test(flavor = "local")]
async fn a_check_that_is_not_accepted_is_refused_even_with_fail_open() {
    for code in [3, 8, 11] {
        let server = GrpcServer::replying(Reply::Code(code)).await;
        let (closed, open, stats) = outcomes(server.address, provider(AuthorizerApi::Grpc)).await;
        let refused = |outcome: &CheckOutcome| match outcome {
            CheckOutcome::Refuse { status, .. } => *status,
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(refused(&closed), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused(&open), StatusCode::FORBIDDEN);
        assert_eq!(stats.let_through, 0);
    }
}

/// Checks that this provider lets nothing through, even with `failOpen`.
async fn ensure_refused(
    case: &str,
    address: SocketAddr,
    provider: ExtensionProvider,
    asked: &TestCheck,
) {
    let outcome = at(&[address])
        .decide(&fail_open(provider), &asked.check())
        .await;
    let is_refused = matches!(
        &outcome,
        CheckOutcome::Refuse {
            status: StatusCode::FORBIDDEN,
            ..
        }
    );
    assert!(is_refused, "{case}: {outcome:?}");
}

/// Nor with a request on which ordinary authorizers fail or cut the connection.
#[tokio::test(flavor = "local")]
async fn a_request_that_authorizers_choke_on_is_refused_even_with_fail_open() {
    let long: &'static str = format!("/{}", "a".repeat(9_000)).leak();
    let (none, header) = (HeaderMap::new(), header_map(&[("authorization", long)]));
    let obscure = HeaderValue::from_bytes(b"Bearer \xff").expect("a value");
    let obscure = HeaderMap::from_iter([(::http::header::AUTHORIZATION, obscure)]);
    let method = |name: &str| Method::from_bytes(name.as_bytes()).expect("a method");
    for (case, method, path, headers) in [
        ("a long path", Method::GET, long, &none),
        ("a long header", Method::GET, "/", &header),
        ("a header that is not text", Method::GET, "/", &obscure),
        ("a stray %", Method::GET, "/%", &none),
        ("half an escape", Method::GET, "/a%2", &none),
        ("an escape of no text", Method::GET, "/%ff", &none),
        ("an odd method", method("BREW"), "/", &none),
    ] {
        let asked = TestCheck {
            method,
            path,
            headers: headers.clone(),
            ..TestCheck::new()
        };
        ensure_refused(case, narrow(1).await, provider(http_api()), &asked).await;
        ensure_refused(case, GONE, provider(http_api()), &asked).await;
        let broken = GrpcServer::replying(Reply::HangUp).await;
        ensure_refused(case, broken.address, provider(AuthorizerApi::Grpc), &asked).await;
    }
    let ordinary = TestCheck {
        path: "/caf%C3%A9?q=%20",
        ..TestCheck::with_headers(&[("authorization", "Bearer t")])
    };
    let provider = fail_open(provider(http_api()));
    let outcome = at(&[narrow(1).await])
        .decide(&provider, &ordinary.check())
        .await;
    assert!(
        matches!(outcome, CheckOutcome::LetThrough(_)),
        "{outcome:?}"
    );
}

/// Nor if the authorizer says that it does not implement the request.
#[tokio::test(flavor = "local")]
async fn a_request_that_an_authorizer_does_not_implement_is_refused_even_with_fail_open() {
    for answer in [
        b"HTTP/1.1 501 Unsupported method\r\ncontent-length: 0\r\n\r\n".as_slice(),
        b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-length: 0\r\n\r\n",
    ] {
        let address = raw(answer, Then::Close).await;
        ensure_refused("501, 505", address, provider(http_api()), &TestCheck::new()).await;
    }
}

/// An answer that has begun may have been a denial.
#[tokio::test(flavor = "local")]
async fn an_answer_that_is_cut_short_is_a_refusal_even_with_fail_open() {
    for (begun, then) in [
        (b"HTTP/1.1 403 Forbidden\r\n".as_slice(), Then::Close),
        (b"HTTP/1.1 403 Forbidden\r\n", Then::Stall),
        (b"HTTP/1.1 4", Then::Close),
        (b"HTTP/1.1 403 Forbidden\r\nbad header\r\n\r\n", Then::Close),
        (b"HTTP/1.1 200 OK\r\n", Then::Stall),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbut",
            Then::Close,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbut",
            Then::Stall,
        ),
    ] {
        let address = raw(begun, then).await;
        let shown = String::from_utf8_lossy(begun);
        ensure_refused(&shown, address, impatient(http_api()), &TestCheck::new()).await;
    }
}

/// Nor by using up the pod's share of checks.
#[tokio::test(flavor = "local")]
async fn requests_beyond_the_pods_limit_are_refused_even_with_fail_open() {
    let server = GrpcServer::replying(Reply::Silence).await;
    let (slots, counts) = (CheckSlots::new(1), Rc::<AuthorizerCounts>::default());
    let shards = [(); 2].map(|()| {
        let network = Fixed(vec![server.address]);
        Authorizer::new(network, slots.clone(), Rc::clone(&counts))
    });
    let provider = fail_open(provider(AuthorizerApi::Grpc));
    let asked = TestCheck::new();
    let check = asked.check();
    let waiting = shards[0].check(&provider, &check);
    let mut waiting = std::pin::pin!(waiting);
    let pending = std::future::poll_fn(|context| {
        let polled = waiting.as_mut().poll(context);
        std::task::Poll::Ready(polled.is_pending())
    });
    assert!(pending.await);
    match shards[1].decide(&provider, &check).await {
        CheckOutcome::Refuse {
            status: StatusCode::FORBIDDEN,
            error: CheckError::OverCap { cap: 1 },
        } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(counts.read().errors, [("authorizer-over-cap", 1)].into());
}

/// Nor by using up the connections that the pod may open.
#[tokio::test(flavor = "local")]
async fn without_room_for_a_connection_requests_are_refused_even_with_fail_open() {
    /// A network without room for connections.
    struct Full;
    impl PodNetwork for Full {
        fn resolve<'a>(
            &'a self,
            _: &'a ProviderService,
        ) -> LocalBoxFuture<'a, io::Result<Vec<ServiceEndpoint>>> {
            let endpoint = ServiceEndpoint::Outside(([127, 0, 0, 1], 9).into());
            Box::pin(async { Ok(vec![endpoint]) })
        }

        fn connect<'a>(
            &'a self,
            _: &'a ServiceEndpoint,
        ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>> {
            Box::pin(async { Err(NotConnected::NoRoom("it has 5 already".to_owned())) })
        }

        fn spawn(&self, _: LocalBoxFuture<'static, ()>) {}
    }
    for api in [AuthorizerApi::Grpc, http_api()] {
        let authorizer = Authorizer::new(Full, CheckSlots::default(), Rc::default());
        let provider = fail_open(provider(api));
        match authorizer
            .decide(&provider, &TestCheck::new().check())
            .await
        {
            CheckOutcome::Refuse {
                status: StatusCode::FORBIDDEN,
                error: CheckError::NoRoom { .. },
            } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "local")]
async fn a_check_that_ends_frees_its_slot() {
    let server = GrpcServer::replying(Reply::Code(7)).await;
    let network = Fixed(vec![server.address]);
    let authorizer = Authorizer::new(network, CheckSlots::new(1), Rc::default());
    for _ in 0..3 {
        let provider = provider(AuthorizerApi::Grpc);
        denied(authorizer.check(&provider, &TestCheck::new().check()).await);
    }
}

#[tokio::test(flavor = "local")]
async fn an_authorizer_without_an_address_is_not_found() {
    for api in [AuthorizerApi::Grpc, http_api()] {
        let error = unanswered(
            at(&[])
                .check(&provider(api), &TestCheck::new().check())
                .await,
        );
        assert!(matches!(error, CheckError::NotFound { .. }), "{error}");
    }
}

#[test]
fn counts_of_shards_are_added() {
    let one = AuthorizerStats {
        allowed: 1,
        denied: 2,
        errors: [("authorizer-timed-out", 3)].into(),
        let_through: 4,
    };
    let mut all = one.clone();
    all.add(&one);
    let expected = AuthorizerStats {
        allowed: 2,
        denied: 4,
        errors: [("authorizer-timed-out", 6)].into(),
        let_through: 8,
    };
    assert_eq!(all, expected);
}
