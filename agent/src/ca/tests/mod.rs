//! Authorization in full, and the whole service over TLS.

mod authorization;

use super::account::ServiceAccount;
use super::caller::{BoundPod, Caller};
use super::pods::PodEntry;
use crate::model::ObjectName;

/// The service account `namespace/name`.
pub(super) fn account(name: &str) -> ServiceAccount {
    name.parse().expect("an account")
}

/// The UID that pods of this name have here.
pub(super) fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

/// A caller: an account's pod, by its name, on a node.
pub(super) fn caller(of: &str, pod: &str, node: Option<&str>) -> Caller {
    let account = account(of);
    Caller {
        pod: BoundPod {
            name: ObjectName::new(account.namespace(), pod),
            uid: uid(pod).into(),
        },
        node: node.map(Into::into),
        account,
    }
}

/// A pod of an account on a node.
pub(super) fn pod(of: &str, name: &str, node: &str) -> PodEntry {
    let account = account(of);
    PodEntry {
        name: ObjectName::new(account.namespace(), name),
        uid: Some(uid(name).into()),
        node: Some(node.into()),
        account,
    }
}
