//! One comparison.

use ambit_model::PathNormalization;
use serde_json::Value;

use crate::differences::is_disputed;
use crate::http2::can_carry;
use crate::request::Request;

/// Every mode of path normalisation.
pub(crate) const MODES: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

/// The traffic of a case's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes that are not HTTP, on a port that is not declared as HTTP. Of a request, only peer and
    /// source count.
    Opaque,
}

/// The AuthorizationPolicies of a workload, and requests to hold against them.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Specs of policies in the namespace `prod`, ALLOW and DENY.
    pub(crate) policies: Vec<Value>,
    /// The mesh's.
    pub(crate) mode: PathNormalization,
    /// The protocol of its connections.
    pub(crate) protocol: Protocol,
    /// The requests to the workload.
    pub(crate) requests: Vec<Request>,
}

impl Case {
    /// One of the requests without a known difference ([`crate::differences`]).
    pub(crate) fn undisputed(
        policies: Vec<Value>,
        mode: PathNormalization,
        mut requests: Vec<Request>,
    ) -> Self {
        requests.retain(|request| !is_disputed(&policies, mode, &request.target));
        Self {
            policies,
            mode,
            protocol: Protocol::Http1,
            requests,
        }
    }

    /// Connections that do not carry HTTP, from the sources of requests.
    pub(crate) fn opaque(policies: Vec<Value>, requests: Vec<Request>) -> Self {
        Self {
            policies,
            mode: PathNormalization::Base,
            protocol: Protocol::Opaque,
            requests,
        }
    }

    /// The same requests over HTTP/2, as far as HTTP/2 can carry them.
    pub(crate) fn over_http2(mut self) -> Self {
        self.requests.retain(can_carry);
        Self {
            protocol: Protocol::Http2,
            ..self
        }
    }
}
