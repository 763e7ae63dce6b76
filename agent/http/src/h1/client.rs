//! Both sides of a client's connection.

use bytes::BytesMut;

use super::super::client::{Client, Downstream};
use super::wire::{Sink, Source};

/// The client.
pub(in super::super) struct BufferedClient<D> {
    pub(super) source: Source<Client<D>>,
    pub(super) sink: Sink<Client<D>>,
}

impl<D: Downstream> BufferedClient<D> {
    /// Both sides of a connection of which `read` was read already.
    pub(in super::super) fn new(client: &Client<D>, read: BytesMut) -> Self {
        let mut source = Source::new(client.clone());
        source.buffer = read;
        Self {
            source,
            sink: Sink::new(client.clone()),
        }
    }
}
