//! HTTP/2: a client and an application made with h2, and the proxy between them.

use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::time::sleep;

use super::*;

/// A request as the application receives it.
pub(super) type Arrived = (Request<RecvStream>, SendResponse<Bytes>);

pub(super) struct Streams {
    pub(super) client: SendRequest<Bytes>,
    pub(super) arrived: mpsc::UnboundedReceiver<Arrived>,
    /// Makes the application accept no more requests.
    pub(super) drain: watch::Sender<bool>,
    application: JoinHandle<()>,
    pub(super) gate: TestGate,
    meter: Rc<Meter>,
    serving: JoinHandle<ServeOutcome<TcpStream>>,
}

/// Serves an application's connection until it has ended.
async fn serve_streams(
    stream: TcpStream,
    builder: h2::server::Builder,
    arrives: mpsc::UnboundedSender<Arrived>,
    mut drains: watch::Receiver<bool>,
) {
    let mut connection = builder.handshake(stream).await.unwrap();
    loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Some(Ok(stream)) => arrives.send(stream).unwrap(),
                _ => return,
            },
            Ok(()) = drains.changed() => connection.graceful_shutdown(),
        }
    }
}

impl Streams {
    pub(super) async fn new() -> Self {
        Self::with(h2::server::Builder::new()).await
    }

    /// With an application of these settings.
    pub(super) async fn with(builder: h2::server::Builder) -> Self {
        let Scene {
            client,
            application,
            gate,
            meter,
            serving,
        } = Scene::new().await;
        let (arrives, arrived) = mpsc::unbounded_channel();
        let (drain, drains) = watch::channel(false);
        let (accepts, mut accepted) = mpsc::unbounded_channel();
        *gate.0.reconnected.borrow_mut() = Some(accepts);
        let further = (arrives.clone(), watch::channel(false).1);
        let application = spawn_local(serve_streams(application, builder.clone(), arrives, drains));
        spawn_local(async move {
            while let Some(application) = accepted.recv().await {
                let (arrives, drains) = further.clone();
                spawn_local(serve_streams(application, builder.clone(), arrives, drains));
            }
        });
        let (client, connection) = h2::client::handshake(client).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        Self {
            client,
            arrived,
            drain,
            application,
            gate,
            meter,
            serving,
        }
    }

    pub(super) async fn arrive(&mut self) -> Arrived {
        self.arrived.recv().await.unwrap()
    }

    /// Opens a stream that reaches the application, and returns both ends.
    pub(super) async fn open(
        &mut self,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>, Arrived) {
        let request = post("http://a.com/x");
        let (response, body) = self.client.send_request(request, false).unwrap();
        (response, body, self.arrive().await)
    }
}

pub(super) fn post(uri: &str) -> Request<()> {
    Request::post(uri).body(()).unwrap()
}

pub(super) async fn read_all(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

pub(super) async fn send_all(body: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context)).await;
        let room = room.unwrap().unwrap().min(data.len());
        body.send_data(data.split_to(room), false).unwrap();
    }
}

fn grpc_status() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("authorization", "stolen".parse().unwrap());
    trailers
}

#[test]
fn requests_responses_and_trailers_are_passed_on() {
    run(async {
        let mut streams = Streams::new().await;
        let mut request = post("http://a.com:80/pkg.Service/Method?x");
        request
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        let (response, mut body) = streams.client.send_request(request, false).unwrap();
        body.send_data("hello".into(), false).unwrap();
        let mut trailers = grpc_status();
        for name in ["x-auth-user", "x_auth_user"] {
            trailers.insert(name, "mallory".parse().unwrap());
        }
        body.send_trailers(trailers).unwrap();
        let (request, mut respond) = streams.arrive().await;
        assert_eq!(request.uri(), "http://a.com:80/pkg.Service/Method?x");
        assert_eq!(request.headers()["te"], "trailers");
        let mut received = request.into_body();
        assert_eq!(read_all(&mut received).await.unwrap(), b"hello");
        let trailers = received.trailers().await.unwrap().unwrap();
        assert_eq!(
            (trailers.len(), &trailers["grpc-status"]),
            (1, &"0".parse().unwrap())
        );
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data("ok".into(), false).unwrap();
        send.send_trailers(grpc_status()).unwrap();
        let mut answer = response.await.unwrap().into_body();
        assert_eq!(read_all(&mut answer).await.unwrap(), b"ok");
        let trailers = answer.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        tokio::task::yield_now().await;
        assert_eq!(streams.gate.outcomes(), [RequestOutcome::Finished]);
        assert_eq!((streams.meter.sent(), streams.meter.received()), (5, 2));
    });
}

#[test]
fn each_stream_is_judged_on_its_own() {
    run(async {
        let mut streams = Streams::new().await;
        let denied = post("http://a.com/denied");
        let (response, _body) = streams.client.send_request(denied, false).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let body = read_all(response.body_mut()).await.unwrap();
        assert_eq!(body, b"RBAC: access denied");
        let rewritten = post("http://a.com/to-rewrite");
        let (response, _) = streams.client.send_request(rewritten, true).unwrap();
        let (request, mut respond) = streams.arrive().await;
        assert_eq!(request.uri().path(), "/rewritten");
        assert!(request.body().is_end_stream());
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        assert!(streams.arrived.try_recv().is_err());
    });
}

#[test]
fn a_denied_request_does_not_begin_http_2_to_the_application() {
    run(async {
        let scene = Scene::new().await;
        let (mut client, connection) = h2::client::handshake(scene.client).await.unwrap();
        let driver = spawn_local(async move { drop(connection.await) });
        let (response, _) = client
            .send_request(post("http://a.com/denied"), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::FORBIDDEN);
        drop(client);
        driver.await.unwrap();
        let mut application = scene.application;
        assert_eq!(read_to_end(&mut application).await, "");
    });
}

#[test]
fn malformed_requests_are_answered_and_not_judged() {
    run(async {
        let mut streams = Streams::new().await;
        let mut two_hosts = post("http://a.com/");
        two_hosts
            .headers_mut()
            .insert("host", "b.com".parse().unwrap());
        let mut lower = post("http://a.com/");
        *lower.method_mut() = Method::from_bytes(b"post").unwrap();
        let mut connect = Request::new(());
        *connect.method_mut() = Method::CONNECT;
        *connect.uri_mut() = "a.com:80".parse().unwrap();
        for (request, status) in [(two_hosts, 400), (lower, 400), (connect, 405)] {
            let (response, _) = streams.client.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        }
        assert!(streams.gate.targets().is_empty());
    });
}

#[test]
fn large_bodies_pass_both_ways_at_the_same_time() {
    run(async {
        let mut streams = Streams::new().await;
        let (response, mut body, (request, mut respond)) = streams.open().await;
        let large = Bytes::from(vec![7; LARGE]);
        let sent = large.clone();
        spawn_local(async move {
            send_all(&mut body, sent).await;
            body.send_data(Bytes::new(), true).unwrap();
        });
        let echoing = async {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            let mut received = request.into_body();
            while let Some(data) = received.data().await {
                let data = data.unwrap();
                received
                    .flow_control()
                    .release_capacity(data.len())
                    .unwrap();
                send_all(&mut send, data).await;
            }
            send.send_data(Bytes::new(), true).unwrap();
        };
        let reading = async {
            let mut answer = response.await.unwrap().into_body();
            read_all(&mut answer).await.unwrap()
        };
        let ((), answer) = tokio::join!(echoing, reading);
        assert!(answer == large);
    });
}

#[test]
fn resets_pass_both_ways_and_other_streams_continue() {
    run(async {
        let mut streams = Streams::new().await;
        let (kept, _kept_body, (_kept_request, mut kept_respond)) = streams.open().await;
        let (_response, mut body, (request, _respond)) = streams.open().await;
        body.send_reset(Reason::CANCEL);
        let seen = read_all(&mut request.into_body()).await.unwrap_err();
        assert_eq!(seen.reason(), Some(Reason::CANCEL));
        let (response, _body, (_request, mut respond)) = streams.open().await;
        respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        let seen = response.await.unwrap_err();
        assert_eq!(seen.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        let (response, _body, (_request, mut respond)) = streams.open().await;
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let mut answer = response.await.unwrap().into_body();
        send.send_reset(Reason::INTERNAL_ERROR);
        let seen = read_all(&mut answer).await.unwrap_err();
        assert_eq!(seen.reason(), Some(Reason::INTERNAL_ERROR));
        kept_respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(kept.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn what_an_application_sent_before_a_reset_arrives() {
    const ANSWER: usize = 200 << 10;
    run(async {
        let mut streams = Streams::new().await;
        let (response, _body, (_request, mut respond)) = streams.open().await;
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        spawn_local(async move {
            send_all(&mut send, Bytes::from(vec![7; ANSWER])).await;
            // A reset discards what h2 has not written.
            sleep(Duration::from_millis(100)).await;
            send.send_reset(Reason::ENHANCE_YOUR_CALM);
        });
        let mut answer = response.await.unwrap().into_body();
        // Then much waits in the proxy.
        sleep(Duration::from_millis(300)).await;
        let mut read = 0;
        let reason = loop {
            match answer.data().await {
                Some(Ok(data)) => {
                    read += data.len();
                    answer.flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(error)) => break error.reason(),
                None => break None,
            }
        };
        assert_eq!((read, reason), (ANSWER, Some(Reason::ENHANCE_YOUR_CALM)));
    });
}

#[test]
fn a_client_that_leaves_resets_its_streams_to_the_application() {
    run(async {
        let mut streams = Streams::new().await;
        let (response, body, (_request, mut respond)) = streams.open().await;
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        let answer = response.await.unwrap();
        drop((answer, body));
        let reset = std::future::poll_fn(|context| send.poll_reset(context)).await;
        assert_eq!(reset.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn a_stream_that_is_revoked_is_reset_on_both_sides_in_mid_stream() {
    run(async {
        let mut streams = Streams::new().await;
        let (response, mut body, (request, mut respond)) = streams.open().await;
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data("abc".into(), false).unwrap();
        let mut answer = response.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap(), "abc");
        body.send_data("def".into(), false).unwrap();
        let mut received = request.into_body();
        assert_eq!(received.data().await.unwrap().unwrap(), "def");
        streams.gate.revoke();
        let at_client = read_all(&mut answer).await.unwrap_err();
        let at_application = read_all(&mut received).await.unwrap_err();
        assert_eq!(at_client.reason(), Some(Reason::CANCEL));
        assert_eq!(at_application.reason(), Some(Reason::CANCEL));
        assert_eq!(streams.gate.outcomes(), [RequestOutcome::Revoked]);
    });
}

#[test]
fn an_application_without_http_2_is_502() {
    run(async {
        let mut scene = Scene::new().await;
        let (mut client, connection) = h2::client::handshake(scene.client).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let (response, _) = client.send_request(post("http://a.com/x"), true).unwrap();
        scene.application.read_u8().await.unwrap();
        let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
        scene.application.write_all(answer).await.unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::BAD_GATEWAY);
    });
}

#[test]
fn interim_responses_are_passed_on() {
    run(async {
        let mut streams = Streams::new().await;
        let (mut response, _body, (_request, mut respond)) = streams.open().await;
        let mut early = Response::new(());
        *early.status_mut() = StatusCode::EARLY_HINTS;
        respond.send_informational(early).unwrap();
        let interim = std::future::poll_fn(|context| response.poll_informational(context)).await;
        assert_eq!(interim.unwrap().unwrap().status(), StatusCode::EARLY_HINTS);
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_client_that_ends_in_order_ends_the_application_in_order() {
    run(async {
        let mut streams = Streams::new().await;
        let (response, _) = {
            let sent = streams.client.send_request(post("http://a.com/x"), true);
            sent.unwrap()
        };
        let (_, mut respond) = streams.arrive().await;
        respond.send_response(Response::new(()), true).unwrap();
        response.await.unwrap();
        drop(streams.client);
        streams.application.await.unwrap();
        assert!(matches!(
            streams.serving.await.unwrap(),
            ServeOutcome::Ended
        ));
    });
}
