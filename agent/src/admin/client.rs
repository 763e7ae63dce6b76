//! The operator's side of the admin socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::answer::{ErrorAnswer, Measured, Row, StatusAnswer, WorkloadAnswer};
use super::request::AdminRequest;
use ambit_identity::{CertificateInfo, PresentedChain};
use ambit_policy::explain::{AccessExplanation, AccessQuestion};

/// How long an agent may take to answer: one that is stopped or hangs never answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the agent at a socket. Each method fails if no agent answers within five seconds, or if the
/// agent answers with an error; its error says why.
#[derive(Clone, Copy, Debug)]
pub struct AdminClient<'a> {
    socket: &'a Path,
    limit: Duration,
}

#[expect(
    clippy::missing_errors_doc,
    missing_docs,
    reason = "see the type and the requests"
)]
impl<'a> AdminClient<'a> {
    pub const fn new(socket: &'a Path) -> Self {
        Self {
            socket,
            limit: ANSWER_TIMEOUT,
        }
    }

    pub async fn status(&self) -> anyhow::Result<StatusAnswer> {
        self.ask(&AdminRequest::Status).await
    }

    pub async fn workloads(&self) -> anyhow::Result<Vec<WorkloadAnswer>> {
        self.ask(&AdminRequest::Workloads).await
    }

    pub async fn policies(&self) -> anyhow::Result<Vec<Row>> {
        self.ask(&AdminRequest::Policies).await
    }

    pub async fn connections(&self) -> anyhow::Result<Measured<Vec<Row>>> {
        self.ask(&AdminRequest::Connections).await
    }

    pub async fn certificates(&self) -> anyhow::Result<Vec<CertificateInfo>> {
        self.ask(&AdminRequest::Certificates).await
    }

    pub async fn certificate_chains(&self) -> anyhow::Result<Vec<PresentedChain>> {
        self.ask(&AdminRequest::CertificateChains).await
    }

    pub async fn events(&self) -> anyhow::Result<Vec<Row>> {
        self.ask(&AdminRequest::Events).await
    }

    pub async fn explain(
        &self,
        question: Box<AccessQuestion>,
    ) -> anyhow::Result<AccessExplanation> {
        self.ask(&AdminRequest::Explain(question)).await
    }

    async fn ask<A: DeserializeOwned>(&self, request: &AdminRequest) -> anyhow::Result<A> {
        let (status, body) = match timeout(self.limit, send(self.socket, request)).await {
            Ok(answer) => answer?,
            Err(_) => bail!("{}", Unresponsive::of(self)),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).context("the agent's answer cannot be read");
        }
        let refused: ErrorAnswer =
            serde_json::from_slice(&body).context("the agent's answer cannot be read")?;
        bail!("the agent answered {status}: {}", refused.error)
    }
}

/// An agent has the socket and does not answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent at {} did not answer within {limit:?}: it is stopped (SIGSTOP, a debugger, a frozen \
     cgroup), hangs, or lacks CPU time", socket.display()
)]
struct Unresponsive<'a> {
    socket: &'a Path,
    limit: Duration,
}

impl<'a> Unresponsive<'a> {
    const fn of(client: &AdminClient<'a>) -> Self {
        Self {
            socket: client.socket,
            limit: client.limit,
        }
    }
}

async fn send(socket: &Path, request: &AdminRequest) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        // The socket's backlog is full.
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
        .method(request.method())
        .uri(request.path())
        .header(http::header::HOST, "ambit")
        .body(Full::new(request.body()?))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    async fn ask_in_vain(socket: &Path) {
        let start = Instant::now();
        let client = AdminClient {
            socket,
            limit: SHORT,
        };
        let error = client.status().await.unwrap_err().to_string();
        assert!(error.contains("did not answer within 300ms"), "{error}");
        assert!(start.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_client_does_not_wait_forever_for_an_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        ask_in_vain(&path).await;
        // Nor if its backlog is full.
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
