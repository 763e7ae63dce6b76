//! A request's two streams, with both directions under way at once.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};

use super::super::h1::remove_connection_headers;
use super::super::progress::{MessageKind, Progress};
use super::body::Body;
use super::pump::{PumpError, pump};
use ambit_datapath::SentRequest;

/// Why an exchange broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ExchangeFailure {
    /// The client left, which the application has been told.
    Client,
    /// The application reset the stream.
    Reset(Reason),
    /// The application's connection is lost, or is no HTTP/2.
    Lost,
}

/// Relays until both directions have ended, or the application wants no more of the request.
pub(super) async fn relay(
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

/// The request's body. An application that takes no more of it may answer all the same.
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
        (progress, MessageKind::Request),
    )
    .await
    {
        Ok(()) | Err(PumpError::Sink(_)) => Ok(()),
        Err(PumpError::Source(error)) => Err(error.reason().unwrap_or(Reason::CANCEL)),
    }
}

/// The answer, and with a failure what the application is to be told.
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
        (progress, MessageKind::Response),
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

/// What an application's failure is for the client.
fn failure(error: &h2::Error) -> ExchangeFailure {
    match error.reason() {
        // It was not looked at, and may be sent again.
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
