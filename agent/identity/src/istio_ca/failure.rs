//! Why the authority gave no certificate, and what the operator can do about it.

use std::error::Error;
use std::io;

use tonic::{Code, Status};

use super::config::IstioCaConfig;
use crate::provider::IssueFailure;

/// The word by which istiod says that the account of this agent may not ask for others: it has no
/// status of its own for that.
const IMPERSONATION: &str = "impersonation";

/// Why there is no connection to the authority.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    /// Its name cannot be resolved.
    #[error("its name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// Nothing listens there.
    #[error("{0}")]
    Connect(io::Error),
    /// It does not prove who it is.
    #[error("{0}")]
    Tls(io::Error),
    /// It took too long.
    #[error("it does not answer")]
    TimedOut,
}

/// What a failed connect comes to.
pub(super) fn of_connect(config: &IstioCaConfig, failure: &ConnectFailure) -> IssueFailure {
    let address = &config.address;
    IssueFailure::Unavailable(match failure {
        ConnectFailure::Tls(error) => format!(
            "TLS with the CA at {address} failed: {error}; it has to prove that it is {} by a \
             certificate of a root in {} (--ca-root), and no token was sent to it",
            config.address.server_name().to_str(),
            config.root.display(),
        ),
        ConnectFailure::Resolve(_) | ConnectFailure::Connect(_) | ConnectFailure::TimedOut => {
            format!("the CA at {address} (--ca-address) cannot be reached: {failure}")
        }
    })
}

/// What a failed call comes to.
pub(super) fn of_call(config: &IstioCaConfig, status: &Status) -> IssueFailure {
    let (address, said) = (&config.address, describe(status));
    let refuses_others = status.message().contains(IMPERSONATION);
    match status.code() {
        Code::PermissionDenied => IssueFailure::Refused(not_for_others(config, &said)),
        Code::Unauthenticated if refuses_others => {
            IssueFailure::Refused(not_for_others(config, &said))
        }
        Code::Unauthenticated => IssueFailure::Unavailable(format!(
            "the CA at {address} does not accept this agent's token ({said}); the token in {} \
             (--ca-token) has to be of an audience that the CA accepts (istio-ca), and of the \
             cluster {} (--cluster-id)",
            config.token.display(),
            config.cluster_id,
        )),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => {
            IssueFailure::Unavailable(format!("the CA at {address} cannot issue now ({said})"))
        }
        _ => IssueFailure::Refused(format!("the CA at {address} refused ({said})")),
    }
}

fn not_for_others(config: &IstioCaConfig, said: &str) -> String {
    format!(
        "the CA at {} does not let this agent ask for this identity ({said}); the agent's \
         namespace and service account have to be in istiod's CA_TRUSTED_NODE_ACCOUNTS (of `ambit \
         ca`: --node-account), and a pod of that identity on this node",
        config.address
    )
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
