//! How an authority is reached.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::plan::NodeName;

/// Its address, the name that its certificate has, and the file of the roots of that.
#[derive(Clone, Debug)]
pub struct CaEndpoint {
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The DNS name that it proves to have.
    pub server_name: &'static str,
    /// The roots that it uses.
    pub roots: PathBuf,
}

/// An authority, and each agent's token for it.
#[derive(Clone, Debug)]
pub(crate) struct CaAccess {
    pub(crate) endpoint: CaEndpoint,
    pub(crate) tokens: [PathBuf; 2],
}

impl CaAccess {
    /// The options of the agent of a node.
    pub(crate) fn options(&self, node: NodeName) -> Vec<String> {
        let [of_a, of_b] = &self.tokens;
        let token = match node {
            NodeName::A => of_a,
            NodeName::B => of_b,
        };
        let CaEndpoint {
            address,
            server_name,
            roots,
        } = &self.endpoint;
        let option = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        [
            option("--ca-address", &format!("https://{address}")),
            option("--ca-server-name", server_name),
            option("--ca-root", &roots.to_string_lossy()),
            option("--ca-token", &token.to_string_lossy()),
        ]
        .concat()
    }
}
