//! The settings of a client.

use std::path::PathBuf;

use super::address::CaAddress;

/// How an authority is asked.
#[derive(Clone, Debug)]
pub struct IstioCaConfig {
    /// Where it is, and who it has to prove to be.
    pub address: CaAddress,
    /// The roots of its own certificate (PEM), read for each question.
    pub root: PathBuf,
    /// The agent's token, read for each question: the kubelet replaces it.
    pub token: PathBuf,
    /// The cluster that the token is of.
    pub cluster_id: String,
    /// The mesh's roots (PEM), as long as they are not those of the authority's newest answer.
    pub trust_roots: Option<PathBuf>,
}
