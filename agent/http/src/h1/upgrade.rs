//! A connection that has left HTTP (101): bytes both ways, until both have ended.

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::client::Downstream;
use super::super::progress::{MessageKind, Progress};
use super::body::{BodyDecoder, Coding};
use super::client::BufferedClient;
use super::framing::Framing;
use super::pump::{PumpError, pump};
use super::wire::{Sink, Source};

/// Who broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in super::super) enum Broken {
    /// The client.
    #[error("the client broke off")]
    Client,
    /// The application.
    #[error("the application broke off")]
    Application,
}

/// Relays until both directions have ended; the end of one leaves the other running.
///
/// # Errors
/// [`Broken`].
pub(in super::super) async fn relay_raw<D, R, W>(
    client: &mut BufferedClient<D>,
    source: &mut Source<R>,
    sink: &mut Sink<W>,
    progress: &Progress<'_>,
) -> Result<(), Broken>
where
    D: Downstream,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let to_application = async {
        let sent = raw(&mut client.source, sink, (progress, MessageKind::Request)).await;
        sent.map_err(|is_source| match is_source {
            End::Source => Broken::Client,
            End::Sink => Broken::Application,
        })
    };
    let to_client = async {
        let sent = raw(source, &mut client.sink, (progress, MessageKind::Response)).await;
        sent.map_err(|is_source| match is_source {
            End::Source => Broken::Application,
            End::Sink => Broken::Client,
        })
    };
    tokio::try_join!(to_application, to_client).map(|_| ())
}

/// Which end of a direction failed.
enum End {
    Source,
    Sink,
}

async fn raw<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    sink: &mut Sink<W>,
    counted: (&Progress<'_>, MessageKind),
) -> Result<(), End> {
    let all = BodyDecoder::new(Framing::UntilClose, 0);
    match pump(source, all.into(), sink, Coding::Plain, counted).await {
        Ok(()) => sink.shutdown().await.map_err(|_| End::Sink),
        Err(PumpError::NotTaken(_)) => Err(End::Sink),
        Err(PumpError::Malformed(_) | PumpError::CutShort) => Err(End::Source),
    }
}
