//! The agent's side of the admin socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

use super::answer::{AdminAnswer, ErrorAnswer};
use super::request::{AdminRequest, PREFIX, RequestError};
use ambit_daemon::http::{ConnectionBound, HttpBounds, HttpResponse};

/// How long a client may take for the head of its request, and again for the body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 256 << 10;

/// The bounds for operators.
const BOUNDS: HttpBounds = HttpBounds {
    name: "an admin",
    connections: ConnectionBound::Unbounded,
    head_timeout: REQUEST_TIMEOUT,
    exchange_timeout: None,
    accept_pause: Duration::from_millis(100),
};

/// Makes the answers.
pub trait AdminState: Send + Sync + 'static {
    /// Answers a request.
    ///
    /// # Errors
    /// If the request cannot be answered: a sentence that says why.
    fn answer(
        &self,
        request: AdminRequest,
    ) -> impl Future<Output = Result<AdminAnswer, String>> + Send;
}

/// Answers requests while it is polled.
pub async fn serve<S: AdminState>(listener: UnixListener, state: Arc<S>) {
    let service = move |request| respond(Arc::clone(&state), request);
    ambit_daemon::http::serve(listener, BOUNDS, service).await;
}

/// Answers the request of one connection.
///
/// # Errors
/// If it is not HTTP/1.1, comes too slowly, or the client leaves.
pub async fn answer<S: AdminState>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<S>,
) -> hyper::Result<()> {
    let service = move |request| respond(Arc::clone(&state), request);
    ambit_daemon::http::answer(stream, BOUNDS.head_timeout, service).await
}

async fn respond<S: AdminState>(state: Arc<S>, request: Request<Incoming>) -> HttpResponse {
    let asked = match read(request).await {
        Ok(asked) => asked,
        Err((status, error)) => return refusal(status, error),
    };
    match state.answer(asked).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => refusal(StatusCode::BAD_REQUEST, error),
    }
}

async fn read(request: Request<Incoming>) -> Result<AdminRequest, (StatusCode, String)> {
    let Some(name) = request.uri().path().strip_prefix(PREFIX) else {
        let error = format!("paths begin with {PREFIX}");
        return Err((StatusCode::NOT_FOUND, error));
    };
    let name = name.to_owned();
    let read = match *request.method() {
        Method::GET => AdminRequest::get(&name),
        Method::POST => {
            let body = read_body(request.into_body()).await;
            let body = body.map_err(|error| (StatusCode::BAD_REQUEST, error))?;
            AdminRequest::post(&name, body)
        }
        _ => {
            let error = "only GET and POST are answered".to_owned();
            return Err((StatusCode::METHOD_NOT_ALLOWED, error));
        }
    };
    read.map_err(|error| {
        let status = match &error {
            RequestError::Unknown(_) => StatusCode::NOT_FOUND,
            RequestError::Question(_) => StatusCode::BAD_REQUEST,
        };
        (status, error.to_string())
    })
}

async fn read_body(body: Incoming) -> Result<serde_json::Value, String> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(format!("the question cannot be read: {error}")),
        Err(_) => return Err("the question does not come to its end".to_owned()),
    };
    serde_json::from_slice(&body).map_err(|error| format!("the question is no JSON: {error}"))
}

fn refusal(status: StatusCode, error: String) -> HttpResponse {
    json(status, &ErrorAnswer { error })
}

fn json(status: StatusCode, answer: &impl Serialize) -> HttpResponse {
    let body = match serde_json::to_vec(answer) {
        Ok(body) => body,
        Err(error) => {
            let error = format!("the answer cannot be JSON: {error}");
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, error);
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::admin::answer::Measured;
    use crate::admin::client::AdminClient;
    use crate::admin::socket::{AdminError, bind};
    use ambit_policy::explain::{AccessQuestion, CallerName, CallerTransport, DestinationName};

    /// Has no connections, and answers no question.
    struct Idle;

    impl AdminState for Idle {
        async fn answer(&self, request: AdminRequest) -> Result<AdminAnswer, String> {
            match request {
                AdminRequest::Connections => {
                    Ok(AdminAnswer::Connections(Measured::Known(Vec::new())))
                }
                _ => Err("nothing is known".to_owned()),
            }
        }
    }

    fn question(host: &str) -> Box<AccessQuestion> {
        Box::new(AccessQuestion {
            from: CallerName::Address(IpAddr::from([10, 0, 0, 1])),
            from_address: None,
            transport: CallerTransport::Plaintext,
            to: DestinationName::Address(IpAddr::from([10, 0, 0, 2])),
            port: 80,
            request: Some(ambit_policy::explain::HypotheticalRequest {
                host: Some(host.to_owned()),
                ..Default::default()
            }),
        })
    }

    #[tokio::test]
    async fn an_answer_comes_back_or_the_reason_why_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ambit/admin.sock");
        tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Idle)));
        let client = AdminClient::new(&path);
        let connections = client.connections().await.unwrap();
        assert_eq!(connections, Measured::Known(Vec::new()));
        let error = client.workloads().await.unwrap_err().to_string();
        assert!(
            error.contains("400") && error.contains("nothing is known"),
            "{error}"
        );
        let error = client.explain(question("a")).await.unwrap_err().to_string();
        assert!(error.contains("nothing is known"), "{error}");
        let long = question(&"a".repeat(MAX_BODY_BYTES));
        let error = client.explain(long).await.unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        assert!(matches!(bind(&path), Err(AdminError::InUse(_))));
    }

    async fn raw(request: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, server) = tokio::io::duplex(4096);
        let serving = answer(server, Arc::new(Idle));
        let asking = async {
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answered = String::new();
            client.read_to_string(&mut answered).await.unwrap();
            answered
        };
        tokio::join!(serving, asking).1
    }

    #[tokio::test]
    async fn what_is_not_a_request_is_refused_with_the_reason() {
        for (request, status, error) in [
            ("GET /v1/other", "404", "there is no /v1/other"),
            ("GET /v1/explain", "404", "there is no /v1/explain"),
            ("GET /status", "404", "paths begin with /v1/"),
            ("PUT /v1/status", "405", "only GET and POST are answered"),
            ("POST /v1/explain", "400", "the question is no JSON"),
        ] {
            let head = format!("{request} HTTP/1.1\r\nhost: ambit\r\ncontent-length: 0\r\n\r\n");
            let answered = raw(&head).await;
            assert!(
                answered.starts_with(&format!("HTTP/1.1 {status}")),
                "{answered}"
            );
            assert!(
                answered.contains(&format!("{{\"error\":\"{error}")),
                "{answered}"
            );
        }
        let body = "POST /v1/status HTTP/1.1\r\nhost: ambit\r\ncontent-length: 1\r\n\r\n1";
        let answered = raw(body).await;
        assert!(answered.contains("there is no /v1/status"), "{answered}");
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_silence_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(bind(&path).unwrap());
        let error = AdminClient::new(&path).status().await.unwrap_err();
        assert!(error.to_string().contains("--socket"), "{error}");
        bind(&path).unwrap();
    }
}
