//! A connection that turned out not to be HTTP, and is allowed as a whole.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::relay::{Close, Meter, on_close};
use super::client::{Client, Downstream};
use crate::datapath::AuthorizedStream;

/// What is read at once.
const CHUNK: usize = 64 << 10;

/// Carries bytes both ways until both directions have ended. `read` was read from the client before.
/// Dropped before, both sides see a reset.
pub(crate) async fn carry_opaque<D: Downstream>(
    downstream: D,
    read: Bytes,
    application: AuthorizedStream,
    meter: &Meter,
) {
    let mut application = application.into_stream();
    on_close(&application, Close::Reset);
    let client = Client::new(downstream, BytesMut::from(read));
    let (from_application, to_application) = application.split();
    let both = async {
        tokio::try_join!(
            copy(client.clone(), to_application, |bytes| meter
                .add_sent(bytes)),
            copy(from_application, client.clone(), |bytes| meter
                .add_received(bytes)),
        )
    };
    if client.driving(both).await.is_ok() {
        on_close(&application, Close::Orderly);
    } else {
        client.abort();
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: impl Fn(u64),
) -> io::Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if from.read_buf(&mut chunk).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk).await?;
        to.flush().await?;
        count(chunk.len() as u64);
    }
}
