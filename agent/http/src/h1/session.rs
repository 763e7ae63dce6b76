//! A client's connection: one request after the other. The crate's documentation has the diagram.

use std::future::pending;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::client::Client;
use super::super::downstream::Downstream;
use super::super::gate::{Gate, PermittedRequest, Rejection, RequestOutcome};
use super::super::progress::Progress;
use super::super::serve::HttpLimits;
use super::super::sniff::MOST_EMPTY_LINES;
use super::body::{Body, BodyDecoder, Framing, ReadableBody, Sender};
use super::exchange::{Exchange, ExchangeEnd};
use super::fields::Malformed;
use super::hop::{ConnectionPersistence, remove_all};
use super::request::{HeadParser, ParsedRequest};
use super::response::{ResponseHead, write_response};
use super::spelling::Spelling;
use super::wire::{BufferedClient, discard};
use ambit_datapath::RequestStream;
use ambit_relay::{Ahead, Meter, Party, RelayEnd};

/// The longest body of a rejected request that is read and discarded to keep the connection.
const DISCARDED: u64 = 64 << 10;

/// Serves a connection from which `read` has been read already.
pub(in super::super) async fn serve<D: Downstream>(
    client: Client<D>,
    read: BytesMut,
    application: RequestStream,
    gate: &impl Gate,
    limits: HttpLimits,
    meter: &Meter,
) {
    let mut session = Session {
        client: BufferedClient::new(client, read),
        application,
        gate,
        limits,
        meter,
        is_first: true,
    };
    session.client.source.draw_from(&gate.memory());
    loop {
        match session.step().await {
            Step::Http(Next::Request) => session.is_first = false,
            Step::Http(Next::End(last)) => return session.end(last).await,
            // On the heap: few connections leave HTTP.
            Step::Switched(switched) => return Box::pin(session.relay(switched)).await,
        }
    }
}

struct Session<'a, D, G> {
    client: BufferedClient<D>,
    application: RequestStream,
    gate: &'a G,
    limits: HttpLimits,
    meter: &'a Meter,
    /// Whether no request has been served yet.
    is_first: bool,
}

/// What follows a request.
enum Step<'a, P> {
    Http(Next),
    /// The client and the application have left HTTP.
    Switched(Switched<'a, P>),
}

/// A request with which the client and the application have left HTTP.
struct Switched<'a, P> {
    grant: P,
    progress: Progress<'a>,
    /// What the application has sent since.
    from_application: Bytes,
}

/// What follows a request, if it was not the last of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Request,
    End(SessionEnd),
}

/// How a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionEnd {
    /// Both connections end in order.
    InOrder,
    /// The client's connection ends in order, after a response; the application's is reset.
    ApplicationReset,
    /// Both connections are reset: the application's at once, the client's when it has all that was sent to it.
    BrokenOff,
    /// Both connections are reset at once.
    Cut,
}

/// Why there is no next request.
enum NoRequest {
    Malformed(Malformed),
    TimedOut,
    /// Memory is too short for its head. This has been reported.
    NoMemory,
    /// The client has ended its side, or the application did something unrequested.
    Ended,
    /// The client broke off, or ended within a head.
    BrokenOff,
}

impl From<Malformed> for NoRequest {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<'a, D: Downstream, G: Gate> Session<'a, D, G> {
    async fn step(&mut self) -> Step<'a, G::Permitted> {
        let (request, body, grant) = match self.granted().await {
            Ok(granted) => granted,
            Err(next) => return Step::Http(next),
        };
        self.permitted(request, body, grant).await
    }

    /// Reads a request and has it judged. Fails with what follows if it is not carried.
    async fn granted(&mut self) -> Result<(ParsedRequest, Body, G::Permitted), Next> {
        let mut request = match self.head().await {
            Ok(request) => request,
            Err(NoRequest::Malformed(malformed)) => {
                tracing::debug!(%malformed, "a request was refused");
                return Err(self.refuse(malformed.status()).await);
            }
            Err(NoRequest::TimedOut) => {
                return Err(self.refuse(StatusCode::REQUEST_TIMEOUT).await);
            }
            Err(NoRequest::NoMemory) => {
                return Err(self.refuse(StatusCode::SERVICE_UNAVAILABLE).await);
            }
            Err(NoRequest::Ended) => return Err(Next::End(SessionEnd::InOrder)),
            Err(NoRequest::BrokenOff) => return Err(Next::End(SessionEnd::BrokenOff)),
        };
        let most = self.limits.head_size;
        let mut body = Body::from(BodyDecoder::new(request.framing, most, Sender::Client));
        let mut reading = ReadableBody {
            client: &mut self.client,
            body: &mut body,
            framing: request.framing,
        };
        match self.gate.decide(&mut request.head, &mut reading).await {
            Ok(grant) => Ok((request, body, grant)),
            Err(rejection) => Err(self.reject(&request, body, rejection).await),
        }
    }

    /// Reads the next request's head.
    async fn head(&mut self) -> Result<ParsedRequest, NoRequest> {
        let source = &mut self.client.source;
        let mut parser = HeadParser::new(self.limits.head_size);
        let mut may_skip = MOST_EMPTY_LINES;
        let mut deadline = None;
        loop {
            // RFC 9112, section 2.2: a client may send empty lines.
            while may_skip > 0 && source.buffer.starts_with(b"\r\n") {
                let _ = source.buffer.split_to(2);
                may_skip -= 1;
            }
            let is_begun = may_skip == 0 || !b"\r\n".starts_with(&source.buffer);
            if is_begun && let Some(request) = parser.parse(&source.buffer)? {
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
            if let Err(exhausted) = source.hold() {
                self.gate.out_of_memory(exhausted);
                return Err(NoRequest::NoMemory);
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
        request: ParsedRequest,
        body: Body,
        mut grant: G::Permitted,
    ) -> Step<'a, G::Permitted> {
        let progress = Progress::new(self.meter, grant.response_mutations());
        let progress = progress.withholding(grant.injected_headers());
        let exchange = Exchange {
            client: &mut self.client,
            application: &mut self.application,
            gate: self.gate,
            grant: &mut grant,
            progress: &progress,
            most: self.limits.head_size,
        };
        let (next, outcome) = match exchange.carry(request, body).await {
            ExchangeEnd::Switched(from_application) => {
                return Step::Switched(Switched {
                    grant,
                    progress,
                    from_application,
                });
            }
            ExchangeEnd::Next => (Next::Request, RequestOutcome::Finished),
            ExchangeEnd::Last => (Next::End(SessionEnd::InOrder), RequestOutcome::Finished),
            ExchangeEnd::Early => (
                Next::End(SessionEnd::ApplicationReset),
                RequestOutcome::Finished,
            ),
            ExchangeEnd::Revoked => (Next::End(SessionEnd::Cut), RequestOutcome::Revoked),
            // The client sees the application's end, as it does without a mesh.
            ExchangeEnd::GivenUp => (Next::End(SessionEnd::InOrder), RequestOutcome::ClientFailed),
            ExchangeEnd::ClientLeft => (
                Next::End(SessionEnd::BrokenOff),
                RequestOutcome::ClientFailed,
            ),
            ExchangeEnd::ClientStalled => {
                tracing::debug!("a client took nothing of what an application had sent and left");
                (Next::End(SessionEnd::Cut), RequestOutcome::ClientFailed)
            }
            ExchangeEnd::Malformed(status) => (
                self.answer(&progress, status).await,
                RequestOutcome::ClientFailed,
            ),
            ExchangeEnd::Unwritable => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                (
                    self.answer(&progress, status).await,
                    RequestOutcome::ClientFailed,
                )
            }
            ExchangeEnd::CutShort => (
                Next::End(SessionEnd::ApplicationReset),
                RequestOutcome::ApplicationFailed,
            ),
            // The application may have closed an idle connection. Clients know this race and retry
            // after a reset, but not after 502.
            ExchangeEnd::NoResponse if !self.is_first => (
                Next::End(SessionEnd::BrokenOff),
                RequestOutcome::ApplicationFailed,
            ),
            ExchangeEnd::NoResponse | ExchangeEnd::ApplicationFailed => {
                let status = StatusCode::BAD_GATEWAY;
                let next = self.answer(&progress, status).await;
                (next, RequestOutcome::ApplicationFailed)
            }
        };
        grant.finish(&progress.summary(outcome));
        Step::Http(next)
    }

    /// Responds to a request that failed, if its response has not begun.
    async fn answer(&mut self, progress: &Progress<'_>, status: StatusCode) -> Next {
        if progress.is_answered() {
            return Next::End(SessionEnd::BrokenOff);
        }
        progress.answered(status);
        match self.refuse(status).await {
            Next::End(SessionEnd::InOrder) => Next::End(SessionEnd::ApplicationReset),
            next => next,
        }
    }

    /// Responds without a body, and ends.
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

    /// Responds to a request that is not permitted. If its body is known to be short and on its way,
    /// it is read and discarded. Otherwise the connection ends, so that no part of the body is taken
    /// for a request.
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
        match discard(&mut self.client.source, body).await {
            Ok(()) => Next::Request,
            Err(_) => Next::End(SessionEnd::BrokenOff),
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
            spelling: Spelling::default(),
        };
        let framing = Framing::Length(body.len() as u64);
        let sink = &mut self.client.sink;
        write_response(&head, framing, persistence, version, &mut sink.pending);
        if *method != Method::HEAD {
            sink.pending.extend_from_slice(&body);
        }
        match (sink.flush().await, persistence) {
            (Ok(()), ConnectionPersistence::KeepAlive) => Next::Request,
            (Ok(()), ConnectionPersistence::Close) => Next::End(SessionEnd::InOrder),
            (Err(_), _) => Next::End(SessionEnd::BrokenOff),
        }
    }

    /// Relays what follows an upgrade, while the request is permitted.
    async fn relay(self, switched: Switched<'a, G::Permitted>) {
        let Switched {
            mut grant,
            progress,
            from_application,
        } = switched;
        let Some((stream, from_client)) = self.client.into_stream() else {
            return;
        };
        let application = self.application.leave_http(grant.permit());
        let ahead = Ahead {
            from_client,
            from_server: from_application,
        };
        let meter = self.meter;
        let (sent, received) = (meter.sent(), meter.received());
        let has_closed = |party: Party, socket: &TcpStream| self.gate.has_closed(party, socket);
        let outcome = tokio::select! {
            () = grant.revoked() => RequestOutcome::Revoked,
            end = stream.relay(application, ahead, meter, has_closed) => outcome_of(end),
        };
        progress.relayed(meter.sent() - sent, meter.received() - received);
        grant.finish(&progress.summary(outcome));
    }

    async fn end(self, last: SessionEnd) {
        match last {
            SessionEnd::Cut => return self.client.connection.abort(),
            SessionEnd::BrokenOff => {
                drop(self.application);
                if let Some((stream, _)) = self.client.into_stream() {
                    stream.reset_in_order().await;
                }
                return;
            }
            SessionEnd::InOrder => self.application.end(),
            SessionEnd::ApplicationReset => drop(self.application),
        }
        let BufferedClient {
            connection,
            mut sink,
            ..
        } = self.client;
        let ending = async {
            if sink.flush().await.is_ok() {
                connection.end().await;
            }
        };
        let _ = timeout(self.limits.linger, ending).await;
    }
}

/// What became of a request whose connection has left HTTP, and was relayed to this end.
const fn outcome_of(end: RelayEnd) -> RequestOutcome {
    match end {
        RelayEnd::Orderly | RelayEnd::Closed(_) => RequestOutcome::Finished,
        RelayEnd::Reset(Party::Server)
        | RelayEnd::Lost(Party::Server)
        | RelayEnd::Stalled(Party::Server) => RequestOutcome::ApplicationFailed,
        RelayEnd::Reset(Party::Client)
        | RelayEnd::Lost(Party::Client)
        | RelayEnd::Stalled(Party::Client)
        | RelayEnd::StreamReset(_)
        | RelayEnd::TunnelLost => RequestOutcome::ClientFailed,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
