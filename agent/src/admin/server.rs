//! The agent's side of the admin socket.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;

use ambit_authority::ensure_creatable;

/// How long a client may take to ask.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest question, in bytes.
const MAX_QUESTION_BYTES: usize = 256 << 10;

/// Why the admin socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another agent answers there.
    #[error("another agent answers at {0}; stop it, or give this one another --socket")]
    InUse(PathBuf),
    /// Something else is there, which would have to be removed.
    #[error("{0} exists and is not a socket; move it away, or give this agent another --socket")]
    NotASocket(PathBuf),
    /// The socket could not be made.
    #[error("the admin socket {path} could not be made: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// What the agent answers.
pub trait AdminState: Send + Sync + 'static {
    /// The answer to a path below `/v1/`; `None` where there is none.
    fn answer(&self, what: &str) -> impl Future<Output = Option<Value>> + Send;

    /// The answer to a question that is put to a path below `/v1/`; `None` where none is taken.
    ///
    /// # Errors
    /// What is wrong with the question, as a sentence.
    fn ask(&self, what: &str, question: Value) -> Option<Result<Value, String>>;
}

/// Whether [`bind`] would succeed, as far as that can be told without changing anything.
///
/// # Errors
/// [`AdminError`].
pub fn check(path: &Path) -> Result<(), AdminError> {
    let failed = |source| AdminError::Socket {
        path: path.to_owned(),
        source,
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    if answers(&address).map_err(failed)? {
        return Err(AdminError::InUse(path.to_owned()));
    }
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        Ok(_) | Err(_) => {}
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    ensure_creatable(parent).map_err(failed)
}

/// Whether an agent has the socket. One that is stopped still has it, even if its backlog is full.
fn answers(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok(match socket.connect(address) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    })
}

/// Opens the socket. One that a dead agent left is replaced.
///
/// # Errors
/// [`AdminError`].
pub fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    check(path)?;
    let failed = |source| AdminError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers for as long as the agent runs.
pub async fn serve<S: AdminState>(listener: UnixListener, state: Arc<S>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an admin connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            if let Err(error) = answer(stream, state).await {
                tracing::debug!(%error, "an admin connection failed");
            }
        });
    }
}

/// Answers one request.
///
/// # Errors
/// Where it is no HTTP/1.1, comes too slowly, or the client leaves.
pub async fn answer<S: AdminState>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<S>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| respond(Arc::clone(&state), request));
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false);
    server.serve_connection(TokioIo::new(stream), service).await
}

async fn respond<S: AdminState>(
    state: Arc<S>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path().strip_prefix("/v1/").map(str::to_owned) {
        None => (
            StatusCode::NOT_FOUND,
            json!({"error": "paths begin with /v1/"}),
        ),
        Some(what) => match *request.method() {
            Method::GET => found(state.answer(&what).await, &what),
            Method::POST => asked(&*state, &what, request.into_body()).await,
            _ => (
                StatusCode::METHOD_NOT_ALLOWED,
                json!({"error": "only GET and POST are answered"}),
            ),
        },
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    Ok(response)
}

fn found(answer: Option<Value>, what: &str) -> (StatusCode, Value) {
    match answer {
        Some(answer) => (StatusCode::OK, answer),
        None => (
            StatusCode::NOT_FOUND,
            json!({"error": format!("there is no /v1/{what}")}),
        ),
    }
}

async fn asked<S: AdminState>(state: &S, what: &str, body: Incoming) -> (StatusCode, Value) {
    let refused = |error: String| (StatusCode::BAD_REQUEST, json!({"error": error}));
    let body = Limited::new(body, MAX_QUESTION_BYTES).collect();
    let body = match tokio::time::timeout(REQUEST_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return refused(format!("the question cannot be read: {error}")),
        Err(_) => return refused("the question does not come to its end".to_owned()),
    };
    let question = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return refused(format!("the question is no JSON: {error}")),
    };
    match state.ask(what, question) {
        Some(Err(error)) => refused(error),
        Some(Ok(answer)) => found(Some(answer), what),
        None => found(None, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client;

    struct Fixed;

    impl AdminState for Fixed {
        async fn answer(&self, what: &str) -> Option<Value> {
            (what == "status").then(|| json!({"ready": true}))
        }

        fn ask(&self, what: &str, question: Value) -> Option<Result<Value, String>> {
            (what == "echo").then(|| match question.is_null() {
                true => Err("nothing is asked".to_owned()),
                false => Ok(question),
            })
        }
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ambit/admin.sock");
        tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Fixed)));
        let status = client::get(&path, "status").await.unwrap();
        assert_eq!(status, json!({"ready": true}));
        let error = client::get(&path, "other").await.unwrap_err();
        assert!(
            error.to_string().contains("there is no /v1/other"),
            "{error}"
        );
        assert!(matches!(bind(&path), Err(AdminError::InUse(_))));
    }

    #[tokio::test]
    async fn a_question_is_answered_or_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        tokio::spawn(serve(bind(&path).unwrap(), Arc::new(Fixed)));
        let answer = client::ask(&path, "echo", &json!({"a": 1})).await;
        assert_eq!(answer.unwrap(), json!({"a": 1}));
        let long = json!("a".repeat(MAX_QUESTION_BYTES));
        for (what, question, reason) in [
            ("echo", Value::Null, "nothing is asked"),
            ("echo", long, "cannot be read"),
            ("status", json!(1), "there is no /v1/status"),
        ] {
            let error = client::ask(&path, what, &question).await.unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_removed_and_a_check_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        fs::write(&path, "mine").unwrap();
        for refused in [check(&path), bind(&path).map(drop)] {
            assert!(
                matches!(refused, Err(AdminError::NotASocket(_))),
                "{refused:?}"
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let below_a_file = check(&path.join("admin.sock")).unwrap_err();
        assert!(
            below_a_file.to_string().contains("kept/admin.sock"),
            "{below_a_file}"
        );
        check(&directory.path().join("deep/admin.sock")).unwrap();
        assert!(!directory.path().join("deep").exists());
        let long = directory.path().join("x".repeat(200));
        assert!(matches!(check(&long), Err(AdminError::Socket { .. })));
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_silence_is_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        drop(bind(&path).unwrap());
        let error = client::get(&path, "status").await.unwrap_err();
        assert!(error.to_string().contains("--socket"), "{error}");
        bind(&path).unwrap();
    }
}
