//! A client's connection: its requests one after the other.

use std::future::pending;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::client::{Client, Downstream};
use super::super::gate::{Gate, PermittedRequest, Rejection, RequestOutcome};
use super::super::progress::Progress;
use super::super::serve::HttpLimits;
use super::body::{Body, BodyDecoder, Framing, Reading};
use super::exchange::{Carried, carry};
use super::fields::Malformed;
use super::hop::{ConnectionPersistence, remove_all};
use super::request::{HeadParser, ParsedRequest};
use super::response::{ResponseHead, write_response};
use super::wire::{BufferedClient, discard};
use ambit_datapath::RequestStream;
use ambit_relay::Meter;

/// Bytes of a refused request's body that are read so that the connection can be kept.
const DISCARDED: u64 = 64 << 10;

/// Serves a connection of which `read` was read already.
pub(in super::super) async fn serve<D: Downstream>(
    client: Client<D>,
    read: BytesMut,
    application: RequestStream,
    gate: &impl Gate,
    limits: HttpLimits,
    meter: &Meter,
) {
    let mut session = Session {
        peer: BufferedClient::new(&client, read),
        application,
        gate,
        limits,
        meter,
        is_first: true,
    };
    let last = loop {
        match session.next().await {
            Next::Request => session.is_first = false,
            Next::End(last) => break last,
        }
    };
    session.end(last, client).await;
}

struct Session<'a, D, G> {
    peer: BufferedClient<D>,
    application: RequestStream,
    gate: &'a G,
    limits: HttpLimits,
    meter: &'a Meter,
    /// Whether no request has been served yet.
    is_first: bool,
}

/// What follows a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Request,
    End(Last),
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Last {
    /// In order on both sides.
    InOrder,
    /// The client in order, with an answer; the application with a reset.
    ApplicationReset,
    /// Both with a reset.
    Reset,
}

/// Why there is no next request.
enum NoRequest {
    Malformed(Malformed),
    TimedOut,
    /// The client has ended, or the application.
    Ended,
    /// In the middle of a head.
    BrokenOff,
}

impl From<Malformed> for NoRequest {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<D: Downstream, G: Gate> Session<'_, D, G> {
    async fn next(&mut self) -> Next {
        let mut request = match self.head().await {
            Ok(request) => request,
            Err(NoRequest::Malformed(malformed)) => {
                tracing::debug!(%malformed, "a request was refused");
                return self.refuse(malformed.status()).await;
            }
            Err(NoRequest::TimedOut) => return self.refuse(StatusCode::REQUEST_TIMEOUT).await,
            Err(NoRequest::Ended) => return Next::End(Last::InOrder),
            Err(NoRequest::BrokenOff) => return Next::End(Last::Reset),
        };
        let mut body = Body::from(BodyDecoder::new(request.framing, self.limits.head_size));
        let mut reading = Reading {
            peer: &mut self.peer,
            body: &mut body,
            framing: request.framing,
        };
        match self.gate.decide(&mut request.head, &mut reading).await {
            Ok(grant) => self.permitted(&request, body, grant).await,
            Err(rejection) => self.reject(&request, body, rejection).await,
        }
    }

    /// The next request's head.
    async fn head(&mut self) -> Result<ParsedRequest, NoRequest> {
        let source = &mut self.peer.source;
        let mut parser = HeadParser::new(self.limits.head_size);
        let mut may_skip = !self.is_first;
        let mut deadline = None;
        loop {
            // RFC 9112, section 2.2: a client may send an empty line after a body.
            if may_skip && source.buffer.starts_with(b"\r\n") {
                let _ = source.buffer.split_to(2);
                may_skip = false;
            }
            may_skip = may_skip && b"\r\n".starts_with(&source.buffer);
            if !may_skip && let Some(request) = parser.parse(&source.buffer)? {
                let _ = source.buffer.split_to(request.consumed);
                return Ok(request);
            }
            if source.has_ended() {
                return Err(match source.buffer.is_empty() {
                    true => NoRequest::Ended,
                    false => NoRequest::BrokenOff,
                });
            }
            if deadline.is_none() && !source.buffer.is_empty() {
                deadline = Some(Instant::now() + self.limits.head_timeout);
            }
            tokio::select! {
                read = source.fill() => if read.is_err() {
                    return Err(NoRequest::BrokenOff);
                },
                _ = self.application.unasked() => return Err(NoRequest::Ended),
                () = until(deadline) => return Err(NoRequest::TimedOut),
            }
        }
    }

    async fn permitted(
        &mut self,
        request: &ParsedRequest,
        body: Body,
        mut grant: G::Permitted,
    ) -> Next {
        let progress = Progress::new(self.meter, grant.response_mutations());
        let progress = progress.withholding(grant.injected_headers());
        let most = self.limits.head_size;
        let carrying = carry(
            &mut self.peer,
            &mut self.application,
            (request, body, most),
            &mut grant,
            &progress,
        );
        let carried = carrying.await;
        let (next, outcome) = match carried {
            Carried::Next => (Next::Request, RequestOutcome::Finished),
            Carried::Last => (Next::End(Last::InOrder), RequestOutcome::Finished),
            Carried::Early => (Next::End(Last::ApplicationReset), RequestOutcome::Finished),
            Carried::Revoked => (Next::End(Last::Reset), RequestOutcome::Revoked),
            Carried::ClientLeft => (Next::End(Last::Reset), RequestOutcome::ClientFailed),
            Carried::Malformed(malformed) => {
                let status = malformed.status();
                (
                    self.answer(&progress, status).await,
                    RequestOutcome::ClientFailed,
                )
            }
            Carried::Unwritable => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                (
                    self.answer(&progress, status).await,
                    RequestOutcome::ClientFailed,
                )
            }
            // A client knows this race, and tries again; 502 it would not.
            Carried::Unheard if !self.is_first => {
                (Next::End(Last::Reset), RequestOutcome::ApplicationFailed)
            }
            Carried::Unheard | Carried::ApplicationFailed => {
                let status = StatusCode::BAD_GATEWAY;
                let next = self.answer(&progress, status).await;
                (next, RequestOutcome::ApplicationFailed)
            }
        };
        grant.finish(&progress.exchange(outcome));
        next
    }

    /// Answers a request that failed, if it can be answered still.
    async fn answer(&mut self, progress: &Progress<'_>, status: StatusCode) -> Next {
        if progress.is_answered() {
            return Next::End(Last::Reset);
        }
        progress.answered(status);
        match self.refuse(status).await {
            Next::End(Last::InOrder) => Next::End(Last::ApplicationReset),
            next => next,
        }
    }

    /// Answers without a body, and ends.
    async fn refuse(&mut self, status: StatusCode) -> Next {
        let rejection = Rejection {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let (method, version) = (&Method::GET, Version::HTTP_11);
        self.write(rejection, method, version, ConnectionPersistence::Close)
            .await
    }

    /// Answers a request that is not permitted. Its body is read and forgotten where it is known to
    /// be short and on its way; otherwise the connection ends, so that no part of the body can be
    /// taken for a request.
    async fn reject(&mut self, request: &ParsedRequest, body: Body, rejection: Rejection) -> Next {
        let head = &request.head;
        let is_short = match request.framing {
            _ if body.is_read() => true,
            _ if rejection.status == StatusCode::REQUEST_TIMEOUT => false,
            Framing::None => true,
            Framing::Length(length) => {
                length <= DISCARDED && !head.headers.contains_key(http::header::EXPECT)
            }
            Framing::Chunked | Framing::UntilClose => false,
        };
        let persistence = match is_short {
            true => request.persistence,
            false => ConnectionPersistence::Close,
        };
        let written = self.write(rejection, &head.method, head.version, persistence);
        let next = written.await;
        if next != Next::Request {
            return next;
        }
        match discard(&mut self.peer.source, body).await {
            Ok(()) => Next::Request,
            Err(_) => Next::End(Last::Reset),
        }
    }

    async fn write(
        &mut self,
        rejection: Rejection,
        method: &Method,
        version: Version,
        persistence: ConnectionPersistence,
    ) -> Next {
        let Rejection {
            status,
            mut headers,
            body,
        } = rejection;
        remove_all(&mut headers);
        let reason = status.canonical_reason().unwrap_or_default();
        let head = ResponseHead {
            status,
            reason: Bytes::from_static(reason.as_bytes()),
            headers,
        };
        let framing = Framing::Length(body.len() as u64);
        let sink = &mut self.peer.sink;
        write_response(&head, framing, persistence, version, &mut sink.pending);
        if *method != Method::HEAD {
            sink.pending.extend_from_slice(&body);
        }
        match (sink.flush().await, persistence) {
            (Ok(()), ConnectionPersistence::KeepAlive) => Next::Request,
            (Ok(()), ConnectionPersistence::Close) => Next::End(Last::InOrder),
            (Err(_), _) => Next::End(Last::Reset),
        }
    }

    async fn end(mut self, last: Last, client: Client<D>) {
        match last {
            Last::Reset => return client.abort(),
            Last::InOrder => self.application.end(),
            Last::ApplicationReset => drop(self.application),
        }
        let ending = async {
            if self.peer.sink.flush().await.is_ok() {
                client.end().await;
            }
        };
        let _ = timeout(self.limits.linger, ending).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
