//! What was read before a relay began.

use bytes::Bytes;

use crate::Party;

/// Bytes that were read from the two parties before their connections are relayed, for example behind an upgrade.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ahead {
    /// Those that go to the server first.
    pub from_client: Bytes,
    /// Those that go to the client first.
    pub from_server: Bytes,
}

impl Ahead {
    /// Returns what was read from `party`, and from the other one.
    pub(crate) fn split_by(self, party: Party) -> (Bytes, Bytes) {
        match party {
            Party::Client => (self.from_client, self.from_server),
            Party::Server => (self.from_server, self.from_client),
        }
    }
}
