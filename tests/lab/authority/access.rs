//! How agents reach an authority.

use std::path::PathBuf;

use crate::plan::NodeName;

/// Its address, name and root, and each agent's token.
#[derive(Clone, Debug)]
pub(crate) struct CaAccess {
    pub(super) address: String,
    pub(super) server_name: &'static str,
    pub(super) root: PathBuf,
    pub(super) tokens: [PathBuf; 2],
}

impl CaAccess {
    /// The options of the agent of a node.
    pub(crate) fn options(&self, node: NodeName) -> Vec<String> {
        let [of_a, of_b] = &self.tokens;
        let token = match node {
            NodeName::A => of_a,
            NodeName::B => of_b,
        };
        let option = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
        [
            option("--ca-address", &self.address),
            option("--ca-server-name", self.server_name),
            option("--ca-root", &self.root.to_string_lossy()),
            option("--ca-token", &token.to_string_lossy()),
        ]
        .concat()
    }
}
