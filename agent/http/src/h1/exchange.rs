//! One permitted request and its response. Both are carried at the same time: an application may
//! respond before it has all of the request.
//!
//! A client that gives up is noticed. If it breaks off, both sides are reset at once. If it ends its
//! side, it may have closed, or it may wait for the response; no one can tell before something is sent to
//! it. So the application is told the end, as it is without a mesh, and decides: it may respond, or stop
//! its work and close.

use std::cell::Cell;
use std::future::pending;
use std::io::ErrorKind;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::super::downstream::Downstream;
use super::super::gate::{BodyError, Gate, PermittedRequest};
use super::super::progress::{BodyProgress, MessageKind, Progress, PumpError};
use super::super::sniff::without_empty_lines;
use super::body::{Body, BodyDecoder, Coding, Framing, Sender};
use super::hop::{ConnectionPersistence, was_offered};
use super::request::{HeadParser, ParsedRequest, write_request};
use super::response::{ParsedResponse, ResponseParser, write_response};
use super::spelling::Spelling;
use super::wire::{BufferedClient, Sink, Source, pump};
use ambit_datapath::RequestStream;
use ambit_relay::{Party, Socket, left_and_unmoved};

/// The most bytes of later requests that are read during an exchange. They are read to notice that a
/// client leaves.
const LOOK_AHEAD: usize = 64 << 10;

/// How an exchange ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ExchangeEnd {
    /// Both sides are ready for the next request.
    Next,
    /// Finished; the connection ends.
    Last,
    /// The response is finished, but the application did not take all of the request; the connection
    /// ends.
    Early,
    /// Policy no longer permits the request.
    Revoked,
    /// The client broke off.
    ClientLeft,
    /// The client's body is malformed, to be answered with this status.
    Malformed(StatusCode),
    /// The gate changed the head into one that cannot be written.
    Unwritable,
    /// The application closed the connection without a byte of a response.
    NoResponse,
    /// The same, after the client had ended its side and the application had been told.
    GivenUp,
    /// The application broke off, or its response is malformed.
    ApplicationFailed,
    /// The application ended the connection within a response, and the client has been sent what it had sent. The
    /// end of the client's connection shows that it is not whole.
    CutShort,
    /// The application has left, and for minutes the client has taken nothing of what it had sent.
    ClientStalled,
    /// The client and the application have left HTTP. The application has sent these bytes since.
    Switched(Bytes),
}

/// What an exchange takes place between, and who permits it.
pub(super) struct Exchange<'a, D, G: Gate> {
    pub(super) client: &'a mut BufferedClient<D>,
    pub(super) application: &'a mut RequestStream,
    pub(super) gate: &'a G,
    pub(super) grant: &'a mut G::Permitted,
    pub(super) progress: &'a Progress<'a>,
    /// The most bytes of the response's head, and of its trailers.
    pub(super) most: usize,
}

impl<D: Downstream, G: Gate> Exchange<'_, D, G> {
    /// Carries a request and its `body`.
    pub(super) async fn carry(self, mut request: ParsedRequest, body: Body) -> ExchangeEnd {
        let Self {
            client,
            application,
            gate,
            grant,
            progress,
            most,
        } = self;
        let Ok(stream) = application.exchange(grant.permit()) else {
            return ExchangeEnd::NoResponse;
        };
        let socket = Socket::new(stream);
        let (mut source, mut sink) = (Source::new(&socket), Sink::new(&socket));
        source.draw_like(&mut client.source);
        let connection = client.connection.clone();
        let framing = request.framing;
        let written = {
            let ParsedRequest { head, spelling, .. } = &request;
            let persistence = request.persistence;
            write_request(head, spelling, framing, persistence, &mut sink.pending)
        };
        if written.is_err() {
            return ExchangeEnd::Unwritable;
        }
        forget_sent(&mut request);
        let sending = Sending::default();
        let upload = upload(
            &mut client.source,
            body,
            &mut sink,
            &sending,
            framing.into(),
            most,
            progress.body(MessageKind::Request),
        );
        let download = Download {
            source: &mut source,
            sink: &mut client.sink,
            request: &request,
            most,
            sending: &sending,
            progress,
        };
        let has_closed = |stream: &_| gate.has_closed(Party::Server, stream);
        let carried = tokio::select! {
            () = grant.revoked() => ExchangeEnd::Revoked,
            () = connection.broken() => ExchangeEnd::ClientLeft,
            failed = upload => failed,
            carried = download.run() => carried,
            () = left_and_unmoved(&socket, has_closed, || progress.received()) => {
                ExchangeEnd::ClientStalled
            }
        };
        match carried {
            ExchangeEnd::NoResponse if sending.is_end_told.get() => ExchangeEnd::GivenUp,
            carried => carried,
        }
    }
}

/// Forgets of a request what is not needed once it has been written: many may wait for their responses.
fn forget_sent(request: &mut ParsedRequest) {
    let offered = request.head.headers.remove(UPGRADE);
    request.head.headers = offered
        .map(|offered| (UPGRADE, offered))
        .into_iter()
        .collect();
    request.spelling = Spelling::default();
}

/// How much of the request has been sent; the response waits for it.
#[derive(Debug, Default)]
struct Sending {
    state: Cell<UploadState>,
    changed: Notify,
    /// Whether the application has been told that the client has ended its side.
    is_end_told: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum UploadState {
    #[default]
    Partly,
    Wholly,
    /// The application takes no more of the request.
    NotTaken,
}

impl Sending {
    fn set(&self, sent: UploadState) {
        self.state.set(sent);
        self.changed.notify_one();
    }

    /// Waits until nothing more is sent.
    async fn ended(&self) -> UploadState {
        while self.state.get() == UploadState::Partly {
            self.changed.notified().await;
        }
        self.state.get()
    }
}

/// Sends the request, and then watches the client. When the client has ended its side and no other request
/// of at most `most` bytes waits, the application is told. Resolves only if the client fails.
async fn upload<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    body: Body,
    sink: &mut Sink<W>,
    sending: &Sending,
    coding: Coding,
    most: usize,
    progress: BodyProgress<'_>,
) -> ExchangeEnd {
    match pump(source, body, sink, coding, progress).await {
        Ok(()) => sending.set(UploadState::Wholly),
        // The application may have responded all the same.
        Err(PumpError::Sink(_)) => {
            sending.set(UploadState::NotTaken);
            return pending().await;
        }
        Err(PumpError::Source(BodyError::Malformed { status, .. })) => {
            return ExchangeEnd::Malformed(status);
        }
        Err(PumpError::Source(BodyError::CutShort)) => return ExchangeEnd::ClientLeft,
    }
    while source.buffer.len() < LOOK_AHEAD && !source.has_ended() {
        match source.fill().await {
            Ok(_) => {}
            // That the client leaves is not noticed then.
            Err(error) if error.kind() == ErrorKind::OutOfMemory => break,
            Err(_) => return ExchangeEnd::ClientLeft,
        }
    }
    if source.has_ended() && !begins_with_request(&source.buffer, most) {
        sending.is_end_told.set(true);
        // If this fails, the application has gone, which shows when it is read.
        let _ = sink.shutdown().await;
    }
    pending().await
}

/// Whether `bytes` begin with a request, which the application gets on the same connection. If it is
/// malformed or incomplete, nothing more will be sent to the application.
fn begins_with_request(bytes: &[u8], most: usize) -> bool {
    let head = without_empty_lines(bytes);
    matches!(HeadParser::new(most).parse(head), Ok(Some(_)))
}

/// Carries the response.
struct Download<'a, R, W> {
    source: &'a mut Source<R>,
    sink: &'a mut Sink<W>,
    request: &'a ParsedRequest,
    most: usize,
    sending: &'a Sending,
    progress: &'a Progress<'a>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Download<'_, R, W> {
    async fn run(mut self) -> ExchangeEnd {
        let (response, persistence) = loop {
            let mut response = match self.head().await {
                Ok(response) => response,
                Err(failed) => return failed,
            };
            if !response.head.status.is_informational() {
                self.progress.amend(&mut response.head.headers);
            }
            let persistence = self.write(&response);
            match response.head.status {
                StatusCode::SWITCHING_PROTOCOLS => return self.switch(&response).await,
                status if status.is_informational() => {
                    if self.sink.flush().await.is_err() {
                        return ExchangeEnd::ClientLeft;
                    }
                }
                status => {
                    self.progress.answered(status);
                    break (response, persistence);
                }
            }
        };
        let body = BodyDecoder::new(response.framing, self.most, Sender::Application);
        let framing = self.framing(&response);
        let progress = self.progress.body(MessageKind::Response);
        match pump(
            self.source,
            body.into(),
            self.sink,
            framing.into(),
            progress,
        )
        .await
        {
            Ok(()) => self.rest(persistence).await,
            Err(PumpError::Sink(_)) => ExchangeEnd::ClientLeft,
            Err(PumpError::Source(BodyError::CutShort))
                if framing != Framing::UntilClose && !self.source.has_broken_off() =>
            {
                ExchangeEnd::CutShort
            }
            Err(PumpError::Source(_)) => ExchangeEnd::ApplicationFailed,
        }
    }

    async fn head(&mut self) -> Result<ParsedResponse, ExchangeEnd> {
        let mut parser = ResponseParser::new(self.most);
        loop {
            let method = &self.request.head.method;
            match parser.parse(&self.source.buffer, method) {
                Ok(Some(response)) => {
                    let _ = self.source.buffer.split_to(response.consumed);
                    return Ok(response);
                }
                Ok(None) => {}
                Err(malformed) => {
                    tracing::debug!(%malformed, "an application's response was refused");
                    return Err(ExchangeEnd::ApplicationFailed);
                }
            }
            match self.source.fill().await {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.source.buffer.is_empty() => {
                    return Err(ExchangeEnd::NoResponse);
                }
                Ok(0) | Err(_) => return Err(ExchangeEnd::ApplicationFailed),
            }
        }
    }

    /// Writes a head, and returns whether another request may follow.
    fn write(&mut self, response: &ParsedResponse) -> ConnectionPersistence {
        let framing = self.framing(response);
        let lasts = [self.request.persistence, response.persistence];
        let persistence = match framing {
            Framing::UntilClose => ConnectionPersistence::Close,
            _ if lasts.contains(&ConnectionPersistence::Close) => ConnectionPersistence::Close,
            _ => ConnectionPersistence::KeepAlive,
        };
        let version = self.request.head.version;
        let pending = &mut self.sink.pending;
        // HTTP/1.0 has no interim responses.
        let is_final = !response.head.status.is_informational();
        if is_final || version != Version::HTTP_10 {
            write_response(&response.head, framing, persistence, version, pending);
        }
        persistence
    }

    /// Returns how the body is framed for the client: HTTP/1.0 has no chunks.
    fn framing(&self, response: &ParsedResponse) -> Framing {
        match (response.framing, self.request.head.version) {
            (Framing::Chunked, Version::HTTP_10) => Framing::UntilClose,
            (framing, _) => framing,
        }
    }

    /// Passes on 101, if the application chose among the protocols that the client offered.
    async fn switch(self, response: &ParsedResponse) -> ExchangeEnd {
        let offered: &HeaderMap = &self.request.head.headers;
        if !offered.contains_key(UPGRADE) || !was_offered(&response.head.headers, offered) {
            self.sink.pending.clear();
            return ExchangeEnd::ApplicationFailed;
        }
        self.progress.answered(response.head.status);
        if self.sink.flush().await.is_err() {
            return ExchangeEnd::ClientLeft;
        }
        match self.sending.ended().await {
            UploadState::Wholly => ExchangeEnd::Switched(self.source.buffer.split().freeze()),
            UploadState::Partly | UploadState::NotTaken => ExchangeEnd::ApplicationFailed,
        }
    }

    /// After the response, carries the rest of the request while the application takes it.
    async fn rest(self, persistence: ConnectionPersistence) -> ExchangeEnd {
        let is_whole = self.sending.state.get() == UploadState::Wholly;
        if !self.source.buffer.is_empty() {
            // Unrequested bytes would be taken for the next response.
            return ExchangeEnd::Early;
        }
        match (persistence, is_whole) {
            (ConnectionPersistence::Close, true) => return ExchangeEnd::Last,
            (ConnectionPersistence::Close, false) => return ExchangeEnd::Early,
            (ConnectionPersistence::KeepAlive, true) => return ExchangeEnd::Next,
            (ConnectionPersistence::KeepAlive, false) => {}
        }
        tokio::select! {
            sent = self.sending.ended() => match sent {
                UploadState::Wholly => ExchangeEnd::Next,
                UploadState::Partly | UploadState::NotTaken => ExchangeEnd::Early,
            },
            _ = self.source.fill() => ExchangeEnd::Early,
        }
    }
}
