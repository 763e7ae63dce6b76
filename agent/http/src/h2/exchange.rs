//! One request of an HTTP/2 client: a stream on each side.

use std::cell::RefCell;
use std::future::poll_fn;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode};

use super::super::gate::{Gate, PermittedRequest, Rejection, RequestOutcome};
use super::super::h1::remove_connection_headers;
use super::super::head::RequestHead;
use super::super::progress::Progress;
use super::application::{Application, NotSent};
use super::body::{Body, Reading};
use super::relay::{ExchangeFailure, relay};
use super::request::{read, write};
use ambit_datapath::{BodyPresence, ReadyRequests};
use ambit_relay::Meter;

/// What the streams of a connection share.
pub(super) struct Shared<'a, G> {
    pub(super) application: Application,
    pub(super) gate: &'a G,
    pub(super) meter: &'a Meter,
}

/// Judges a request and carries it to its end.
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
        let mut reading = Reading {
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
            let carrying = permitted(shared, &head, body, &mut respond, (&mut grant, &progress));
            let outcome = carrying.await;
            grant.finish(&progress.exchange(outcome));
        }
        Err(rejection) => reject(&mut respond, &head.method, rejection),
    }
}

async fn permitted<G: Gate>(
    shared: &Shared<'_, G>,
    head: &RequestHead,
    body: Body,
    respond: &mut SendResponse<Bytes>,
    (grant, progress): (&mut G::Permitted, &Progress<'_>),
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

/// Policy changed: what is left of the streams on the application's side is reset when dropped.
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
    // Where the client has left there is nobody to be answered.
    if let Ok(mut send) = respond.send_response(response, is_last)
        && !is_last
    {
        let _ = send.send_data(body, true);
    }
}
