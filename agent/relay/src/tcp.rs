//! Relays between two connections.

use std::cell::Cell;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::{Aborted, CloseMode, Meter, Party, RelayEnd, next_chunk, on_close};

/// Relays between the source's connection and the destination's, until both directions have ended.
pub async fn relay_tcp(
    mut source: TcpStream,
    mut destination: TcpStream,
    meter: &Meter,
) -> RelayEnd {
    on_close(&source, CloseMode::Reset);
    on_close(&destination, CloseMode::Reset);
    let (source_read, source_write) = source.split();
    let (destination_read, destination_write) = destination.split();
    let ended = tokio::try_join!(
        async {
            let copied = copy(source_read, destination_write, &meter.sent).await;
            copied.map_err(|_| Party::Client)
        },
        async {
            let copied = copy(destination_read, source_write, &meter.received).await;
            copied.map_err(|_| Party::Server)
        },
    );
    match ended {
        Ok(_) => {
            on_close(&source, CloseMode::Orderly);
            on_close(&destination, CloseMode::Orderly);
            RelayEnd::Orderly
        }
        Err(party) => RelayEnd::Reset(party),
    }
}

async fn copy(
    mut read: ReadHalf<'_>,
    mut write: WriteHalf<'_>,
    count: &Cell<u64>,
) -> Result<(), Aborted> {
    while let Some(chunk) = next_chunk(&mut read).await? {
        write.write_all(&chunk).await?;
        count.set(count.get() + chunk.len() as u64);
    }
    write.shutdown().await?;
    Ok(())
}
