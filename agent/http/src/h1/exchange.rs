//! One permitted request and its answer. Both go on at once: an application may answer before it
//! has all of the request.

use std::cell::Cell;
use std::future::pending;

use http::header::UPGRADE;
use http::{HeaderMap, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::super::client::Downstream;
use super::super::gate::PermittedRequest;
use super::super::progress::{MessageKind, Progress};
use super::body::{Body, BodyDecoder, Coding, Framing};
use super::fields::Malformed;
use super::hop::{ConnectionPersistence, was_offered};
use super::request::{ParsedRequest, write_request};
use super::response::{ParsedResponse, ResponseParser, write_response};
use super::wire::{Broken, BufferedClient, PumpError, Sink, Source, pump, relay_raw};
use ambit_datapath::RequestStream;

/// Bytes of later requests that are read while an answer is on its way, so that a client that
/// leaves is noticed.
const LOOK_AHEAD: usize = 64 << 10;

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Carried {
    /// Both sides are ready for the next request.
    Next,
    /// It was the connection's last.
    Last,
    /// It was the connection's last, and the application did not want all of it.
    Early,
    /// Policy changed.
    Revoked,
    /// The client broke off.
    ClientLeft,
    /// The client's body is malformed.
    Malformed(Malformed),
    /// The gate made a head of it that is none.
    Unwritable,
    /// The application closed without a byte of an answer.
    Unheard,
    /// The application broke off, or its answer is malformed.
    ApplicationFailed,
}

/// Carries a request and its `body`; the answer's head and trailers may have `most` bytes each.
pub(super) async fn carry<D: Downstream>(
    client: &mut BufferedClient<D>,
    application: &mut RequestStream,
    (request, body, most): (&ParsedRequest, Body, usize),
    grant: &mut impl PermittedRequest,
    progress: &Progress<'_>,
) -> Carried {
    let Ok((read, write)) = application.exchange(grant.permit()) else {
        return Carried::Unheard;
    };
    let (mut source, mut sink) = (Source::new(read), Sink::new(write));
    let ParsedRequest {
        head,
        framing,
        persistence,
        ..
    } = request;
    if write_request(head, *framing, *persistence, &mut sink.pending).is_err() {
        return Carried::Unwritable;
    }
    let sending = Sending::default();
    let upload = upload(
        &mut client.source,
        body,
        &mut sink,
        &sending,
        ((*framing).into(), progress),
    );
    let download = Download {
        source: &mut source,
        sink: &mut client.sink,
        request,
        most,
        sending: &sending,
        progress,
    };
    let carried = tokio::select! {
        () = grant.revoked() => return Carried::Revoked,
        failed = upload => return failed,
        carried = download.run() => carried,
    };
    match carried {
        Answered::Carried(carried) => carried,
        Answered::Switched => {
            let raw = relay_raw(client, &mut source, &mut sink, progress);
            tokio::select! {
                () = grant.revoked() => Carried::Revoked,
                ended = raw => match ended {
                    Ok(()) => Carried::Last,
                    Err(Broken::Client) => Carried::ClientLeft,
                    Err(Broken::Application) => Carried::ApplicationFailed,
                },
            }
        }
    }
}

/// How far the request has been sent.
#[derive(Debug, Default)]
struct Sending {
    state: Cell<Sent>,
    changed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Sent {
    #[default]
    Partly,
    Wholly,
    /// The application takes no more of it.
    NotTaken,
}

impl Sending {
    fn set(&self, sent: Sent) {
        self.state.set(sent);
        self.changed.notify_one();
    }

    /// How it ended.
    async fn ended(&self) -> Sent {
        while self.state.get() == Sent::Partly {
            self.changed.notified().await;
        }
        self.state.get()
    }
}

/// Sends the request, and then watches the client. Resolves only when the client fails.
async fn upload<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    body: Body,
    sink: &mut Sink<W>,
    sending: &Sending,
    (coding, progress): (Coding, &Progress<'_>),
) -> Carried {
    match pump(source, body, sink, coding, (progress, MessageKind::Request)).await {
        Ok(()) => sending.set(Sent::Wholly),
        // It may have answered all the same.
        Err(PumpError::NotTaken(_)) => {
            sending.set(Sent::NotTaken);
            return pending().await;
        }
        Err(PumpError::Malformed(malformed)) => return Carried::Malformed(malformed),
        Err(PumpError::CutShort) => return Carried::ClientLeft,
    }
    // A client that has ended its side may still wait for the answer.
    while source.buffer.len() < LOOK_AHEAD && !source.has_ended() {
        if source.fill().await.is_err() {
            return Carried::ClientLeft;
        }
    }
    pending().await
}

/// The answer's way.
struct Download<'a, R, W> {
    source: &'a mut Source<R>,
    sink: &'a mut Sink<W>,
    request: &'a ParsedRequest,
    most: usize,
    sending: &'a Sending,
    progress: &'a Progress<'a>,
}

/// What came of an answer.
enum Answered {
    Carried(Carried),
    /// The application agreed to another protocol, and has all of the request.
    Switched,
}

impl From<Carried> for Answered {
    fn from(carried: Carried) -> Self {
        Self::Carried(carried)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Download<'_, R, W> {
    async fn run(mut self) -> Answered {
        let (response, persistence) = loop {
            let mut response = match self.head().await {
                Ok(response) => response,
                Err(failed) => return failed.into(),
            };
            if !response.head.status.is_informational() {
                self.progress.amend(&mut response.head.headers);
            }
            let persistence = self.write(&response);
            match response.head.status {
                StatusCode::SWITCHING_PROTOCOLS => return self.switch(&response).await,
                status if status.is_informational() => {
                    if self.sink.flush().await.is_err() {
                        return Carried::ClientLeft.into();
                    }
                }
                status => {
                    self.progress.answered(status);
                    break (response, persistence);
                }
            }
        };
        let body = BodyDecoder::new(response.framing, self.most);
        let coding = self.framing(&response).into();
        let counted = (self.progress, MessageKind::Response);
        match pump(self.source, body.into(), self.sink, coding, counted).await {
            Ok(()) => self.rest(persistence).await.into(),
            Err(PumpError::NotTaken(_)) => Carried::ClientLeft.into(),
            Err(PumpError::Malformed(_) | PumpError::CutShort) => Carried::ApplicationFailed.into(),
        }
    }

    async fn head(&mut self) -> Result<ParsedResponse, Carried> {
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
                    tracing::debug!(%malformed, "an application's answer was refused");
                    return Err(Carried::ApplicationFailed);
                }
            }
            match self.source.fill().await {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.source.buffer.is_empty() => return Err(Carried::Unheard),
                Ok(0) | Err(_) => return Err(Carried::ApplicationFailed),
            }
        }
    }

    /// Writes a head, and whether another request may follow.
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
        // HTTP/1.0 has no interim answers.
        let is_final = !response.head.status.is_informational();
        if is_final || version != Version::HTTP_10 {
            write_response(&response.head, framing, persistence, version, pending);
        }
        persistence
    }

    /// How the body is framed for the client: HTTP/1.0 has no chunks.
    fn framing(&self, response: &ParsedResponse) -> Framing {
        match (response.framing, self.request.head.version) {
            (Framing::Chunked, Version::HTTP_10) => Framing::UntilClose,
            (framing, _) => framing,
        }
    }

    /// The application has agreed to what the client offered.
    async fn switch(self, response: &ParsedResponse) -> Answered {
        let offered: &HeaderMap = &self.request.head.headers;
        if !offered.contains_key(UPGRADE) || !was_offered(&response.head.headers, offered) {
            self.sink.pending.clear();
            return Carried::ApplicationFailed.into();
        }
        self.progress.answered(response.head.status);
        if self.sink.flush().await.is_err() {
            return Carried::ClientLeft.into();
        }
        match self.sending.ended().await {
            Sent::Wholly => Answered::Switched,
            Sent::Partly | Sent::NotTaken => Carried::ApplicationFailed.into(),
        }
    }

    /// After the answer: the rest of the request, as long as the application wants it.
    async fn rest(self, persistence: ConnectionPersistence) -> Carried {
        let is_whole = self.sending.state.get() == Sent::Wholly;
        if !self.source.buffer.is_empty() {
            // What it was not asked for would be taken for the next answer.
            return Carried::Early;
        }
        match (persistence, is_whole) {
            (ConnectionPersistence::Close, true) => return Carried::Last,
            (ConnectionPersistence::Close, false) => return Carried::Early,
            (ConnectionPersistence::KeepAlive, true) => return Carried::Next,
            (ConnectionPersistence::KeepAlive, false) => {}
        }
        tokio::select! {
            sent = self.sending.ended() => match sent {
                Sent::Wholly => Carried::Next,
                Sent::Partly | Sent::NotTaken => Carried::Early,
            },
            _ = self.source.fill() => Carried::Early,
        }
    }
}
