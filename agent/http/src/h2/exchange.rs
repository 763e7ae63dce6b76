//! One request of an HTTP/2 client and its response, with a stream on each side.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use ambit_account::AccountExhausted;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::super::gate::{Gate, PermittedRequest, Rejection, RequestOutcome};
use super::super::h1::remove_connection_headers;
use super::super::progress::{MessageKind, Progress, PumpError};
use super::Admitted;
use super::application::{Application, Need, NotSent};
use super::body::{Body, ReadableBody, end_written, pump, written};
use super::payload::Payload;
use super::request::{ReadRequest, read, write};
use super::windows::Windows;
use ambit_datapath::{BodyPresence, ReadyRequests, SentRequest};
use ambit_relay::Meter;

/// What all exchanges of a connection share.
pub(super) struct Shared<'a, G> {
    pub(super) application: Application<'a, G>,
    pub(super) windows: Windows,
    pub(super) gate: &'a G,
    pub(super) meter: &'a Meter,
}

/// Judges a request, and carries it to its end if it is permitted.
pub(super) async fn exchange<G: Gate>(
    shared: &Shared<'_, G>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Payload>,
    _admitted: Admitted,
) {
    let (parts, stream) = request.into_parts();
    let mut request = match read(parts) {
        Ok(request) => request,
        Err(refused) => {
            tracing::debug!(%refused, "a request was refused");
            return answer(&mut respond, refused.status());
        }
    };
    let head = &mut request.head;
    let mut body = Body::new(stream, head.headers.get(CONTENT_LENGTH));
    let decided = {
        let answering = RefCell::new(&mut respond);
        let mut reading = ReadableBody {
            body: &mut body,
            respond: &answering,
        };
        tokio::select! {
            decided = shared.gate.decide(head, &mut reading) => decided,
            _ = poll_fn(|context| answering.borrow_mut().poll_reset(context)) => return,
        }
    };
    match decided {
        Ok(mut grant) => {
            let progress = Progress::new(shared.meter, grant.response_mutations());
            let progress = progress.withholding(grant.injected_headers());
            let carrying = permitted(shared, request, body, &mut respond, &mut grant, &progress);
            let outcome = carrying.await;
            grant.finish(&progress.summary(outcome));
        }
        Err(rejection) => reject(&mut respond, &head.method, rejection),
    }
}

async fn permitted<G: Gate>(
    shared: &Shared<'_, G>,
    request: ReadRequest,
    body: Body,
    respond: &mut SendResponse<Payload>,
    grant: &mut G::Permitted,
    progress: &Progress<'_>,
) -> RequestOutcome {
    let need = match &request.protocol {
        Some(_) => Need::ExtendedConnect,
        None => Need::Stream,
    };
    let Some(request) = write(request) else {
        progress.answered(StatusCode::INTERNAL_SERVER_ERROR);
        answer(respond, StatusCode::INTERNAL_SERVER_ERROR);
        return RequestOutcome::ClientFailed;
    };
    let ready = match stream(shared, need, respond, grant).await {
        Ok(ready) => ready,
        Err(unsent) => return not_sent(respond, progress, unsent),
    };
    let follows = match body.is_empty() {
        true => BodyPresence::Empty,
        false => BodyPresence::Follows,
    };
    let sent = match ready.send(grant.permit(), request, follows) {
        Ok(sent) => sent,
        Err(error) => return not_sent(respond, progress, Unsent::Not(error.into())),
    };
    let relayed = tokio::select! {
        biased;
        () = grant.revoked() => return revoke(respond),
        relayed = relay(body, sent, respond, &shared.windows, progress) => relayed,
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
fn revoke(respond: &mut SendResponse<Payload>) -> RequestOutcome {
    respond.send_reset(Reason::CANCEL);
    RequestOutcome::Revoked
}

/// Why a permitted request was not sent.
enum Unsent {
    Not(NotSent),
    /// The application has connections, but none that has what the request needs.
    NotSupported,
    Revoked,
    ClientLeft,
}

/// Waits until the application takes another request.
async fn stream<G: Gate>(
    shared: &Shared<'_, G>,
    need: Need,
    respond: &mut SendResponse<Payload>,
    grant: &mut G::Permitted,
) -> Result<ReadyRequests, Unsent> {
    let application = &shared.application;
    loop {
        let open = tokio::select! {
            open = application.open(grant.permit()) => open.map_err(Unsent::Not)?,
            _ = poll_fn(|context| respond.poll_reset(context)) => return Err(Unsent::ClientLeft),
        };
        let number = open.number();
        let ready = tokio::select! {
            biased;
            () = grant.revoked() => return Err(Unsent::Revoked),
            ready = open.ready(need) => ready,
            _ = poll_fn(|context| respond.poll_reset(context)) => return Err(Unsent::ClientLeft),
        };
        match ready {
            Ok(ready) => return ready.ok_or(Unsent::NotSupported),
            Err(error) => {
                tracing::debug!(%error, "an application's connection takes no more requests");
                application.close(number);
            }
        }
    }
}

fn not_sent(
    respond: &mut SendResponse<Payload>,
    progress: &Progress<'_>,
    unsent: Unsent,
) -> RequestOutcome {
    let status = match unsent {
        Unsent::Revoked => return revoke(respond),
        Unsent::ClientLeft => return RequestOutcome::ClientFailed,
        Unsent::Not(NotSent::Drains) => {
            // The request was not processed, and may be sent again.
            respond.send_reset(Reason::REFUSED_STREAM);
            return RequestOutcome::ApplicationFailed;
        }
        Unsent::Not(NotSent::Failed(error)) => {
            tracing::debug!(%error, "a permitted request was not sent");
            StatusCode::BAD_GATEWAY
        }
        Unsent::NotSupported => {
            tracing::debug!("the application does not announce SETTINGS_ENABLE_CONNECT_PROTOCOL");
            StatusCode::NOT_IMPLEMENTED
        }
    };
    progress.answered(status);
    answer(respond, status);
    RequestOutcome::ApplicationFailed
}

fn answer(respond: &mut SendResponse<Payload>, status: StatusCode) {
    let rejection = Rejection {
        status,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    reject(respond, &Method::GET, rejection);
}

fn reject(respond: &mut SendResponse<Payload>, method: &Method, rejection: Rejection) {
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
        let _ = send.send_data(body.into(), true);
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
    respond: &mut SendResponse<Payload>,
    windows: &Windows,
    progress: &Progress<'_>,
) -> Result<(), ExchangeFailure> {
    let SentRequest {
        response,
        body: mut send,
    } = sent;
    let mut download = pin!(download(response, respond, windows, progress));
    let mut is_down = false;
    let relayed = {
        let mut upload = pin!(upload(&mut body, &mut send, windows, progress));
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
    windows: &Windows,
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
        &windows.requests,
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
    respond: &mut SendResponse<Payload>,
    windows: &Windows,
    progress: &Progress<'_>,
) -> Result<(), (ExchangeFailure, Option<Reason>)> {
    let lost = |error| (failure(&error), None);
    let mut heads = windows.response_heads();
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
                heads.add(interim.headers()).map_err(no_memory)?;
                if interim.status() != StatusCode::SWITCHING_PROTOCOLS {
                    let told = respond.send_informational(interim);
                    told.map_err(|error| client_left(error.reason()))?;
                }
            }
        }
    };
    remove_connection_headers(response.headers_mut());
    progress.amend(response.headers_mut());
    heads.add(response.headers()).map_err(no_memory)?;
    let (parts, mut body) = response.into_parts();
    let is_last = body.is_end_stream();
    progress.answered(parts.status);
    let is_whole = is_last && heads.are_short();
    let begun = respond.send_response(Response::from_parts(parts, ()), is_whole);
    let mut send = begun.map_err(|error| client_left(error.reason()))?;
    if is_whole {
        return Ok(());
    }
    if is_last {
        return end_written(&mut send).await.map_err(client_left);
    }
    match pump(
        Bytes::new(),
        &mut body,
        &mut send,
        &windows.responses,
        progress.body(MessageKind::Response),
    )
    .await
    {
        Ok(()) => Ok(()),
        Err(PumpError::Sink(reason)) => Err(client_left(Some(reason))),
        Err(PumpError::Source(error)) => {
            written(&mut send).await;
            Err(lost(error))
        }
    }
}

/// Refuses a response because memory is short. It counts as the application's failure.
fn no_memory(exhausted: AccountExhausted) -> (ExchangeFailure, Option<Reason>) {
    tracing::debug!(%exhausted, "a response was refused");
    (ExchangeFailure::Lost, Some(Reason::CANCEL))
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
