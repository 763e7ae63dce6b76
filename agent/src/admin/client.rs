//! The operator's side of the admin socket.

use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// Asks an agent.
///
/// # Errors
/// Where no agent answers at `socket`, or it has no such answer.
pub async fn get(socket: &Path, what: &str) -> anyhow::Result<Value> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no agent answers at {}; is it running, and is that its --socket?",
            socket.display()
        )
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(format!("/v1/{what}"))
        .header(http::header::HOST, "ambit")
        .body(Empty::<Bytes>::new())?;
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
