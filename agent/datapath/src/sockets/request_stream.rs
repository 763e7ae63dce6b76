//! A connection to an application over which policy judges each request.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::sockets::dial::UnjudgedStream;
use ambit_http2::{HeadFilter, HeadLimits};
use ambit_policy::RequestPermit;

/// The length of an HTTP/2 frame header (RFC 9113, section 4.1).
const FRAME_HEAD: usize = 9;

/// A connection to an application over which a request passes only with a [`RequestPermit`]. If it is dropped
/// without [`RequestStream::end`], the application sees a reset.
#[derive(Debug)]
pub struct RequestStream(TcpStream);

/// What an application did although it had no request to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unasked {
    /// It ended or reset the connection.
    #[error("the application closed the connection")]
    Ended,
    /// It sent something.
    #[error("the application sent data although it had no request to answer")]
    Spoke,
    /// It sent HTTP/2's SETTINGS, which a server may send first (RFC 9113, section 3.4).
    #[error("the application has begun HTTP/2")]
    BeganHttp2,
}

impl UnjudgedStream {
    /// Lets requests pass, each with its own permit.
    pub fn per_request(self) -> RequestStream {
        RequestStream::new(self.0)
    }
}

impl RequestStream {
    fn new(stream: TcpStream) -> Self {
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER could not be set");
        }
        Self(stream)
    }

    /// Makes a stream for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test(stream: TcpStream) -> Self {
        Self::new(stream)
    }

    /// Returns the connection, for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn into_tcp_for_test(self) -> TcpStream {
        self.0
    }

    /// Turns it back into a connection that policy judges as a whole.
    pub fn into_unjudged(self) -> UnjudgedStream {
        UnjudgedStream(self.0)
    }

    /// Lets one HTTP/1 request and its response pass.
    ///
    /// # Errors
    /// [`Unasked`] if the application has ended the connection, or has sent data that would be taken for the
    /// response.
    pub fn exchange(&mut self, _permit: &RequestPermit) -> Result<&TcpStream, Unasked> {
        match SockRef::from(&self.0).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(&self.0),
            Ok(1..) => Err(Unasked::Spoke),
            Ok(0) | Err(_) => Err(Unasked::Ended),
        }
    }

    /// Lets all bytes pass, both ways, for the request with which the client and the application have left HTTP.
    pub fn leave_http(self, _permit: &RequestPermit) -> TcpStream {
        self.0
    }

    /// Resolves when the application does something although it has no request to answer.
    pub async fn unasked(&self) -> Unasked {
        let mut frame = [0; FRAME_HEAD];
        match self.0.peek(&mut frame).await {
            Ok(0) | Err(_) => Unasked::Ended,
            Ok(length) if is_settings(&frame[..length]) => Unasked::BeganHttp2,
            Ok(_) => Unasked::Spoke,
        }
    }

    /// Ends the connection without a reset.
    pub fn end(self) {
        end_in_order(&self.0);
    }

    /// Begins HTTP/2 with the application, with the permit for the first request. Nothing is sent unless the
    /// [`ApplicationConnection`] is polled. `heads` are the limits of `settings`.
    ///
    /// # Errors
    /// If the HTTP/2 handshake fails.
    pub async fn multiplex(
        self,
        _permit: &RequestPermit,
        settings: &Builder,
        heads: HeadLimits,
    ) -> Result<(ApplicationRequests, ApplicationConnection), h2::Error> {
        let stream = HeadFilter::of_server(EndsInOrder(self.0), heads);
        let (requests, connection) = settings.handshake(stream).await?;
        Ok((ApplicationRequests(requests), connection))
    }
}

/// Whether a connection begins with a SETTINGS frame: its length, type 4, no flags, stream 0.
fn is_settings(begun: &[u8]) -> bool {
    matches!(begun, [0, 0, _, 4, 0, 0, 0, 0, 0])
}

/// The future that drives an HTTP/2 connection to an application.
pub type ApplicationConnection = Connection<HeadFilter<EndsInOrder>, Bytes>;

/// Opens streams on an HTTP/2 connection to an application, one for each permit.
#[derive(Clone, Debug)]
pub struct ApplicationRequests(SendRequest<Bytes>);

/// A request whose head was sent.
#[derive(Debug)]
pub struct SentRequest {
    /// The response.
    pub response: ResponseFuture,
    /// Takes the request's body.
    pub body: SendStream<Bytes>,
}

/// Opens one stream.
#[derive(Debug)]
pub struct ReadyRequests(SendRequest<Bytes>);

impl ApplicationRequests {
    /// Waits until the application takes another stream.
    ///
    /// # Errors
    /// If the application takes no more requests, or the connection has failed.
    pub async fn ready(self) -> Result<ReadyRequests, h2::Error> {
        self.0.ready().await.map(ReadyRequests)
    }

    /// Whether the application takes more streams on this connection, as far as it is known: it may have sent
    /// GOAWAY.
    pub fn takes_requests(&mut self, context: &mut Context<'_>) -> bool {
        !matches!(self.0.poll_ready(context), Poll::Ready(Err(_)))
    }

    /// Whether the application has announced extended CONNECT (RFC 8441).
    pub fn allows_extended_connect(&self) -> bool {
        self.0.is_extended_connect_protocol_enabled()
    }
}

impl ReadyRequests {
    /// Sends a request.
    ///
    /// # Errors
    /// If the connection has failed.
    pub fn send(
        mut self,
        _permit: &RequestPermit,
        request: Request<()>,
        body: BodyPresence,
    ) -> Result<SentRequest, h2::Error> {
        let is_last = body == BodyPresence::Empty;
        let (response, body) = self.0.send_request(request, is_last)?;
        Ok(SentRequest { response, body })
    }
}

/// Whether something follows a request's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyPresence {
    /// Nothing follows.
    Empty,
    /// A body or trailers may follow.
    Follows,
}

/// A connection that is reset when it is dropped, unless its sending side was shut down.
#[derive(Debug)]
pub struct EndsInOrder(TcpStream);

fn end_in_order(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(None) {
        tracing::debug!(%error, "SO_LINGER could not be set");
    }
}

impl AsyncRead for EndsInOrder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for EndsInOrder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.0).poll_shutdown(context);
        if let Poll::Ready(Ok(())) = shut {
            end_in_order(&self.0);
        }
        shut
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (RequestStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (dialled, accepted) = tokio::join!(dialled, listener.accept());
        (
            RequestStream::for_test(dialled.unwrap()),
            accepted.unwrap().0,
        )
    }

    #[tokio::test]
    async fn a_request_passes_while_the_application_is_quiet() {
        let (mut stream, _application) = pair().await;
        assert!(stream.exchange(&RequestPermit::for_test()).is_ok());
    }

    #[tokio::test]
    async fn what_was_not_asked_for_is_not_taken_for_an_answer() {
        let (mut stream, mut application) = pair().await;
        application.write_all(b"HTTP/1.1 200 OK").await.unwrap();
        assert_eq!(stream.unasked().await, Unasked::Spoke);
        let refused = stream.exchange(&RequestPermit::for_test()).map(|_| ());
        assert_eq!(refused, Err(Unasked::Spoke));
    }

    #[tokio::test]
    async fn an_application_that_has_ended_gets_no_request() {
        let (mut stream, application) = pair().await;
        drop(application);
        assert_eq!(stream.unasked().await, Unasked::Ended);
        let refused = stream.exchange(&RequestPermit::for_test()).map(|_| ());
        assert_eq!(refused, Err(Unasked::Ended));
    }

    #[tokio::test]
    async fn a_server_of_http_2_may_send_its_settings_first() {
        let (stream, mut application) = pair().await;
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        application.write_all(&settings).await.unwrap();
        assert_eq!(stream.unasked().await, Unasked::BeganHttp2);
    }
}
