//! The operator's side of the admin socket.

use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// Asks an agent for what it has under a name.
///
/// # Errors
/// Where no agent answers at `socket`, or it has no such answer.
pub async fn get(socket: &Path, what: &str) -> anyhow::Result<Value> {
    send(socket, Method::GET, what, Bytes::new()).await
}

/// Asks an agent a question.
///
/// # Errors
/// Where no agent answers at `socket`, or it has no answer; its error says why.
pub async fn ask(socket: &Path, what: &str, question: &Value) -> anyhow::Result<Value> {
    send(socket, Method::POST, what, question.to_string().into()).await
}

async fn send(socket: &Path, method: Method, what: &str, body: Bytes) -> anyhow::Result<Value> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no agent answers at {}; is it running, and is that its --socket?",
            socket.display()
        )
    })?;
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
