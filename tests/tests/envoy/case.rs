//! What is compared.

use ambit::model::PathNormalization;
use serde_json::Value;

use crate::differences::is_disputed;
use crate::request::Request;

/// Every mode of path normalisation.
pub(crate) const MODES: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

/// The AuthorizationPolicies of a workload, and requests to hold against them.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Specs of policies in the namespace `prod`, ALLOW and DENY.
    pub(crate) policies: Vec<Value>,
    /// The mesh's.
    pub(crate) mode: PathNormalization,
    /// What the workload is asked.
    pub(crate) requests: Vec<Request>,
}

impl Case {
    /// One of those requests that nothing in [`crate::differences`] is about.
    pub(crate) fn undisputed(
        policies: Vec<Value>,
        mode: PathNormalization,
        mut requests: Vec<Request>,
    ) -> Self {
        requests.retain(|request| !is_disputed(&policies, mode, &request.target));
        Self {
            policies,
            mode,
            requests,
        }
    }
}
