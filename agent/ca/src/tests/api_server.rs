//! A stand-in for the API server: TokenReview, and listing and watching pods. It covers what this crate
//! uses, and proves nothing about real API servers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::uid;

type Body = BoxBody<Bytes, Infallible>;

pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// The `status` of each token's review. Other tokens are refused.
    reviews: Mutex<HashMap<String, Value>>,
    asked: AtomicUsize,
    pods: Vec<Value>,
    events: broadcast::Sender<Value>,
}

impl ApiServer {
    /// Starts a server with these pods.
    pub(super) async fn start(pods: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            reviews: Mutex::default(),
            asked: AtomicUsize::new(0),
            pods,
            events: broadcast::Sender::new(16),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state }
    }

    pub(super) fn client(&self) -> kube::Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        kube::Client::try_from(kube::Config::new(url)).unwrap()
    }

    /// Sets the result of reviewing a token.
    pub(super) fn review(&self, token: &str, status: Value) {
        let mut reviews = self.state.reviews.lock().unwrap();
        reviews.insert(token.to_owned(), status);
    }

    /// How many reviews were requested.
    pub(super) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// Sends an event to those who watch the pods. Waits until somebody does.
    pub(super) async fn tell(&self, kind: &str, pod: Value) {
        while self.state.events.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        let event = json!({"type": kind, "object": pod});
        self.state.events.send(event).unwrap();
    }
}

/// A Pod of the account `namespace/name` on a node.
pub(super) fn pod_object(account: &str, name: &str, node: &str) -> Value {
    let (namespace, account) = account.split_once('/').unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": uid(name), "resourceVersion": "2"},
        "spec": {"containers": [], "nodeName": node, "serviceAccountName": account},
        "status": {"phase": "Running"},
    })
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client that goes away is not a failure.
        tokio::spawn(async { served.await.unwrap_or_default() });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = match request.uri().path() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            let review = request.into_body().collect().await.unwrap().to_bytes();
            whole(&state.review(&serde_json::from_slice(&review).unwrap()))
        }
        "/api/v1/pods" if query.contains("watch=true") => watch(&state),
        "/api/v1/pods" => whole(&json!({
            "apiVersion": "v1",
            "kind": "PodList",
            "metadata": {"resourceVersion": "1"},
            "items": state.pods,
        })),
        _ => {
            let mut response = Response::new(whole(&json!({"kind": "Status", "code": 404})));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(body))
}

impl State {
    fn review(&self, review: &Value) -> Value {
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(review["spec"]["audiences"], json!(["istio-ca"]));
        let token = review["spec"]["token"].as_str().unwrap();
        let status = self.reviews.lock().unwrap().get(token).cloned();
        let status = status.unwrap_or_else(|| json!({"authenticated": false, "error": "unknown"}));
        json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": review["spec"],
            "status": status,
        })
    }
}

fn whole(value: &Value) -> Body {
    Full::new(Bytes::from(value.to_string())).boxed()
}

/// The events, one per line.
fn watch(state: &State) -> Body {
    let events = stream::unfold(state.events.subscribe(), async |mut events| {
        let event = events.recv().await.ok()?;
        Some((event, events))
    });
    let frame = |event: Value| Ok(Frame::data(Bytes::from(format!("{event}\n"))));
    BodyExt::boxed(StreamBody::new(Box::pin(events).map(frame)))
}
