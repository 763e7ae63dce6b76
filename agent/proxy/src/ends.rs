//! Who calls whom.

use std::net::SocketAddr;

use ambit_datapath::DeliveryCaller;
use ambit_policy::ConnectionAttributes;

/// The ends of a connection to the pod's application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    pub(crate) caller: &'a DeliveryCaller,
    pub(crate) to: SocketAddr,
}

impl Ends<'_> {
    /// What policy knows of the connection.
    pub(crate) fn attributes(self) -> ConnectionAttributes {
        ConnectionAttributes {
            identity: self.caller.identity.clone(),
            source: self.caller.address.ip(),
            destination: self.to,
        }
    }
}
