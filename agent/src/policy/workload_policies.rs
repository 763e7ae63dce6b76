//! Everything that decides who may reach a workload.

use std::sync::Arc;

use super::authorization::Authorization;
use super::decision::Decider;
use super::peer_authentication::Strictness;
use crate::model::ObjectName;

/// The policies of a workload, resolved. Equal ones share a set in the kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct WorkloadPolicies {
    pub(super) strictness: Strictness,
    pub(super) policies: Vec<(ObjectName, Arc<Authorization>)>,
    /// Objects that select the workload and cannot be enforced: all is refused.
    pub(super) not_enforced: Vec<Decider>,
}
