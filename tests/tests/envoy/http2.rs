//! A connection of HTTP/2 that carries one request after another.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::{HeaderName, HeaderValue, Uri, Version};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use crate::connection::Answer;
use crate::listener::PATH_HEADER;
use crate::request::Request;

/// A connection, and the runtime that drives it while a request is under way.
pub(crate) struct Connection {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
}

impl Connection {
    /// Speaks HTTP/2 over a socket, with TLS if there is a configuration for it.
    pub(crate) fn new(
        socket: TcpStream,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::TcpStream::from_std(socket)?;
            match tls {
                None => start(socket).await,
                Some((config, server)) => {
                    start(TlsConnector::from(config).connect(server, socket).await?).await
                }
            }
        })?;
        Ok(Self { runtime, sender })
    }

    /// Sends a request and reads the answer.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Answer> {
        let head = head(request).context("a request that HTTP/2 can carry")?;
        self.runtime.block_on(async {
            let mut sender = self.sender.clone().ready().await?;
            let (response, _) = sender.send_request(head, true)?;
            let (parts, mut body) = response.await?.into_parts();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data?.len())?;
            }
            let path = parts.headers.get(PATH_HEADER);
            Ok(Answer {
                status: parts.status.as_u16(),
                path: path.and_then(|path| Some(path.to_str().ok()?.to_owned())),
                keeps_open: true,
            })
        })
    }
}

async fn start<S>(stream: S) -> Result<SendRequest<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await?;
    // Its end shows at the next request.
    tokio::spawn(connection);
    Ok(sender)
}

/// Whether a request can be sent by this client as it is: its library takes no target or host that
/// RFC 3986 does not know, and cuts fragments.
pub(crate) fn can_carry(request: &Request) -> bool {
    head(request).is_some()
}

fn head(request: &Request) -> Option<http::Request<()>> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(request.host.as_str())
        .path_and_query(request.target.as_str())
        .build()
        .ok()?;
    if uri.path_and_query()?.as_str() != request.target {
        return None;
    }
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .version(Version::HTTP_2)
        .uri(uri)
        .body(())
        .ok()?;
    for (name, value) in request.lines() {
        // White space around a value does not belong to it, and HTTP/2 does not allow it.
        let (name, value) = (HeaderName::try_from(name), value.trim());
        head.headers_mut()
            .append(name.ok()?, HeaderValue::from_str(value).ok()?);
    }
    Some(head)
}
