//! The operator's side of the admin socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an agent may take to answer: one that is stopped or hangs never does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks an agent for what it has under a name.
///
/// # Errors
/// If no agent answers at `socket` within [`ANSWER_TIMEOUT`], or it has no such answer.
pub async fn get(socket: &Path, what: &str) -> anyhow::Result<Value> {
    send_within(ANSWER_TIMEOUT, socket, Method::GET, what, Bytes::new()).await
}

/// Asks an agent a question.
///
/// # Errors
/// If no agent answers at `socket` within [`ANSWER_TIMEOUT`], or it has no answer; its error says
/// why.
pub async fn ask(socket: &Path, what: &str, question: &Value) -> anyhow::Result<Value> {
    let body = question.to_string().into();
    send_within(ANSWER_TIMEOUT, socket, Method::POST, what, body).await
}

async fn send_within(
    limit: Duration,
    socket: &Path,
    method: Method,
    what: &str,
    body: Bytes,
) -> anyhow::Result<Value> {
    match timeout(limit, send(socket, method, what, body)).await {
        Ok(answer) => answer,
        Err(_) => bail!("{}", Unresponsive { socket, limit }),
    }
}

/// An agent that has the socket and does not answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent at {} did not answer within {limit:?}: it is stopped (SIGSTOP, a debugger, a frozen \
     cgroup), hangs, or is short of CPU", socket.display()
)]
struct Unresponsive<'a> {
    socket: &'a Path,
    limit: Duration,
}

async fn send(socket: &Path, method: Method, what: &str, body: Bytes) -> anyhow::Result<Value> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        // The queue of those who wait to be accepted is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return std::future::pending().await;
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "no agent answers at {}; is it running, and is that its --socket?",
                    socket.display()
                )
            });
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(format!("/v1/{what}"))
        .header(http::header::HOST, "ambit")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).context("the agent's answer is no JSON")?;
    if !status.is_success() {
        bail!(
            "the agent answered {status}: {}",
            answer["error"].as_str().unwrap_or_default()
        );
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    async fn ask_in_vain(socket: &Path) {
        let start = Instant::now();
        let asked = send_within(SHORT, socket, Method::GET, "status", Bytes::new());
        let error = asked.await.unwrap_err().to_string();
        assert!(error.contains("did not answer within 300ms"), "{error}");
        assert!(start.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn an_agent_that_does_not_answer_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        ask_in_vain(&path).await;
        // Nor if it has not accepted others for so long that no more may wait.
        let mut waiting = Vec::new();
        loop {
            let socket = socket2::Socket::new(
                socket2::Domain::UNIX,
                socket2::Type::STREAM.nonblocking(),
                None,
            );
            let socket = socket.unwrap();
            let address = socket2::SockAddr::unix(&path).unwrap();
            match socket.connect(&address) {
                Ok(()) => waiting.push(UnixStream::from(socket)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        ask_in_vain(&path).await;
    }
}
