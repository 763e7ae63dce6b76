//! One request of an HTTP/2 client and its response, with a stream on each side.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::super::gate::{Gate, PermittedRequest, Rejection, RequestOutcome};
use super::super::h1::remove_connection_headers;
use super::super::head::RequestHead;
use super::super::progress::{MessageKind, Progress, PumpError};
use super::application::{Application, NotSent};
use super::body::{Body, ReadableBody, pump};
use super::request::{read, write};
use ambit_datapath::{BodyPresence, ReadyRequests, SentRequest};
use ambit_relay::Meter;

/// What all exchanges of a connection share.
pub(super) struct Shared<'a, G> {
    pub(super) application: Application,
    pub(super) gate: &'a G,
    pub(super) meter: &'a Meter,
}

/// Judges a request, and carries it to its end if it is permitted.
pub(super) async fn exchange<G: Gate>(
    shared: &Shared<'_, G>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, stream) = request.into_parts();
    let mut head = match read(parts) {
        Ok(head) => head,
        Err(refused) => {
            tracing::debug!(%refused, "a request was refused");
            return answer(&mut respond, refused.status());
        }
    };
    let mut body = Body::new(stream, head.headers.get(CONTENT_LENGTH));
    let decided = {
        let answering = RefCell::new(&mut respond);
        let mut reading = ReadableBody {
            body: &mut body,
            respond: &answering,
        };
        tokio::select! {
            decided = shared.gate.decide(&mut head, &mut reading) => decided,
            _ = poll_fn(|context| answering.borrow_mut().poll_reset(context)) => return,
        }
    };
    match decided {
        Ok(mut grant) => {
            let progress = Progress::new(shared.meter, grant.response_mutations());
            let progress = progress.withholding(grant.injected_headers());
            let carrying = permitted(shared, &head, body, &mut respond, &mut grant, &progress);
            let outcome = carrying.await;
            grant.finish(&progress.summary(outcome));
        }
        Err(rejection) => reject(&mut respond, &head.method, rejection),
    }
}

async fn permitted<G: Gate>(
    shared: &Shared<'_, G>,
    head: &RequestHead,
    body: Body,
    respond: &mut SendResponse<Bytes>,
    grant: &mut G::Permitted,
    progress: &Progress<'_>,
) -> RequestOutcome {
    let Some(request) = write(head) else {
        progress.answered(StatusCode::INTERNAL_SERVER_ERROR);
        answer(respond, StatusCode::INTERNAL_SERVER_ERROR);
        return RequestOutcome::ClientFailed;
    };
    let application = &shared.application;
    let requests = match application.open(grant.permit()).await {
        Ok(requests) => requests,
        Err(reason) => return not_sent(respond, progress, &reason),
    };
    let ready = tokio::select! {
        biased;
        () = grant.revoked() => return revoke(respond),
        ready = application.ready(requests) => ready,
        _ = poll_fn(|context| respond.poll_reset(context)) => return RequestOutcome::ClientFailed,
    };
    let sent = ready.and_then(|ready: ReadyRequests| {
        let follows = match body.is_empty() {
            true => BodyPresence::Empty,
            false => BodyPresence::Follows,
        };
        Ok(ready.send(grant.permit(), request, follows)?)
    });
    let sent = match sent {
        Ok(sent) => sent,
        Err(reason) => return not_sent(respond, progress, &reason),
    };
    let relayed = tokio::select! {
        biased;
        () = grant.revoked() => return revoke(respond),
        relayed = relay(body, sent, respond, progress) => relayed,
    };
    match relayed {
        Ok(()) => RequestOutcome::Finished,
        Err(ExchangeFailure::Client) => RequestOutcome::ClientFailed,
        Err(ExchangeFailure::Reset(reason)) => {
            respond.send_reset(reason);
            RequestOutcome::ApplicationFailed
        }
        Err(ExchangeFailure::Lost) if progress.is_answered() => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            RequestOutcome::ApplicationFailed
        }
        Err(ExchangeFailure::Lost) => {
            progress.answered(StatusCode::BAD_GATEWAY);
            answer(respond, StatusCode::BAD_GATEWAY);
            RequestOutcome::ApplicationFailed
        }
    }
}

/// Ends a request that is no longer permitted. Its stream to the application is reset when it is
/// dropped.
fn revoke(respond: &mut SendResponse<Bytes>) -> RequestOutcome {
    respond.send_reset(Reason::CANCEL);
    RequestOutcome::Revoked
}

fn not_sent(
    respond: &mut SendResponse<Bytes>,
    progress: &Progress<'_>,
    reason: &NotSent,
) -> RequestOutcome {
    tracing::debug!(%reason, "a permitted request was not sent");
    match reason {
        NotSent::Drains => respond.send_reset(Reason::REFUSED_STREAM),
        NotSent::Failed(_) => {
            progress.answered(StatusCode::BAD_GATEWAY);
            answer(respond, StatusCode::BAD_GATEWAY);
        }
    }
    RequestOutcome::ApplicationFailed
}

fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let rejection = Rejection {
        status,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    reject(respond, &Method::GET, rejection);
}

fn reject(respond: &mut SendResponse<Bytes>, method: &Method, rejection: Rejection) {
    let Rejection {
        status,
        headers,
        body,
    } = rejection;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    remove_connection_headers(response.headers_mut());
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, body.len().into());
    let is_last = body.is_empty() || *method == Method::HEAD;
    // If the client has left, the response is lost.
    if let Ok(mut send) = respond.send_response(response, is_last)
        && !is_last
    {
        let _ = send.send_data(body, true);
    }
}

/// Why an exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ExchangeFailure {
    /// The client left; the application's stream has been reset.
    Client,
    /// The application reset the stream.
    Reset(Reason),
    /// The application's connection is lost, or does not speak HTTP/2.
    Lost,
}

/// Carries the request's body and the response until both have ended, or one fails.
async fn relay(
    mut body: Body,
    sent: SentRequest,
    respond: &mut SendResponse<Bytes>,
    progress: &Progress<'_>,
) -> Result<(), ExchangeFailure> {
    let SentRequest {
        response,
        body: mut send,
    } = sent;
    let mut download = pin!(download(response, respond, progress));
    let mut is_down = false;
    let relayed = {
        let mut upload = pin!(upload(&mut body, &mut send, progress));
        let mut is_up = false;
        loop {
            tokio::select! {
                up = &mut upload, if !is_up => match up {
                    Ok(()) => is_up = true,
                    Err(reason) => break Err((ExchangeFailure::Client, Some(reason))),
                },
                down = &mut download, if !is_down => match down {
                    Ok(()) => is_down = true,
                    Err((failure, reason)) => break Err((failure, reason)),
                },
            }
            if is_up && is_down {
                break Ok(());
            }
        }
    };
    relayed.map_err(|(failure, reason)| {
        if let Some(reason) = reason {
            send.send_reset(reason);
        }
        failure
    })
}

/// Carries the request's body. An application that takes no more of it may respond all the same.
async fn upload(
    body: &mut Body,
    send: &mut SendStream<Bytes>,
    progress: &Progress<'_>,
) -> Result<(), Reason> {
    if body.is_empty() {
        return Ok(());
    }
    let held = std::mem::take(&mut body.held);
    match pump(
        held,
        &mut body.stream,
        send,
        progress.body(MessageKind::Request),
    )
    .await
    {
        Ok(()) | Err(PumpError::Sink(_)) => Ok(()),
        Err(PumpError::Source(error)) => Err(error.reason().unwrap_or(Reason::CANCEL)),
    }
}

/// Carries the response. A failure comes with the reason to reset the application's stream with.
async fn download(
    mut response: ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    progress: &Progress<'_>,
) -> Result<(), (ExchangeFailure, Option<Reason>)> {
    let lost = |error| (failure(&error), None);
    let mut response = loop {
        let answer = tokio::select! {
            answer = poll_fn(|context| poll_answer(&mut response, context)) => answer,
            reset = poll_fn(|context| respond.poll_reset(context)) => {
                return Err(client_left(reset.ok()));
            }
        };
        match answer.map_err(lost)? {
            ApplicationResponse::Final(response) => break response,
            ApplicationResponse::Interim(mut interim) => {
                remove_connection_headers(interim.headers_mut());
                if interim.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let told = respond.send_informational(interim);
                    told.map_err(|error| client_left(error.reason()))?;
                }
            }
        }
    };
    remove_connection_headers(response.headers_mut());
    progress.amend(response.headers_mut());
    let (parts, mut body) = response.into_parts();
    let is_last = body.is_end_stream();
    progress.answered(parts.status);
    let begun = respond.send_response(Response::from_parts(parts, ()), is_last);
    let mut send = begun.map_err(|error| client_left(error.reason()))?;
    if is_last {
        return Ok(());
    }
    match pump(
        Bytes::new(),
        &mut body,
        &mut send,
        progress.body(MessageKind::Response),
    )
    .await
    {
        Ok(()) => Ok(()),
        Err(PumpError::Sink(reason)) => Err(client_left(Some(reason))),
        Err(PumpError::Source(error)) => Err(lost(error)),
    }
}

fn client_left(reason: Option<Reason>) -> (ExchangeFailure, Option<Reason>) {
    (
        ExchangeFailure::Client,
        Some(reason.unwrap_or(Reason::CANCEL)),
    )
}

/// Returns what an application's error means for the client.
fn failure(error: &h2::Error) -> ExchangeFailure {
    match error.reason() {
        // The request was not processed, and may be sent again.
        Some(_) if error.is_go_away() && error.is_remote() => {
            ExchangeFailure::Reset(Reason::REFUSED_STREAM)
        }
        Some(reason) if error.is_reset() && error.is_remote() => ExchangeFailure::Reset(reason),
        _ => ExchangeFailure::Lost,
    }
}

enum ApplicationResponse {
    Interim(Response<()>),
    Final(Response<RecvStream>),
}

fn poll_answer(
    response: &mut ResponseFuture,
    context: &mut Context<'_>,
) -> Poll<Result<ApplicationResponse, h2::Error>> {
    if let Poll::Ready(Some(interim)) = response.poll_informational(context) {
        return Poll::Ready(interim.map(ApplicationResponse::Interim));
    }
    Pin::new(response)
        .poll(context)
        .map_ok(ApplicationResponse::Final)
}
