//! The requests to an agent. The method and the path of each are defined here only.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use ambit_policy::explain::AccessQuestion;

/// The beginning of all paths.
pub(super) const PREFIX: &str = "/v1/";

/// A request to the agent.
#[derive(Clone, PartialEq, Debug)]
pub enum AdminRequest {
    /// What the agent does, and how well: [`StatusAnswer`](super::answer::StatusAnswer).
    Status,
    /// The workloads that the agent knows: [`WorkloadAnswer`](super::answer::WorkloadAnswer)s.
    Workloads,
    /// The policy objects, and whether each is enforced:
    /// [`PolicyCondition`](ambit_policy::PolicyCondition)s.
    Policies,
    /// The connections that the proxy carries: [`ConnectionInfo`](ambit_proxy::ConnectionInfo)s.
    Connections,
    /// The certificates of this node's workloads: [`CertificateInfo`](ambit_identity::CertificateInfo)s.
    Certificates,
    /// The chains that they present, in PEM: [`PresentedChain`](ambit_identity::PresentedChain)s.
    CertificateChains,
    /// Recent denials and notes: [`RecentEvent`](ambit_observe::event::RecentEvent)s.
    Events,
    /// Whether a caller may reach a destination, and which policy decides:
    /// [`AccessExplanation`](ambit_policy::explain::AccessExplanation).
    Explain(Box<AccessQuestion>),
}

/// Why a request cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// No request has this method and path.
    #[error("there is no {PREFIX}{0}")]
    Unknown(String),
    /// The body is not what the request takes.
    #[error("the question is not understood: {0}")]
    Question(String),
}

impl AdminRequest {
    /// The requests without a body.
    const PLAIN: [Self; 7] = [
        Self::Status,
        Self::Workloads,
        Self::Policies,
        Self::Connections,
        Self::Certificates,
        Self::CertificateChains,
        Self::Events,
    ];

    /// The request with this name that has no body.
    ///
    /// # Errors
    /// [`RequestError::Unknown`].
    pub fn get(name: &str) -> Result<Self, RequestError> {
        let mut plain = Self::PLAIN.into_iter();
        plain
            .find(|request| request.name() == name)
            .ok_or_else(|| RequestError::Unknown(name.to_owned()))
    }

    /// The request with this name that has a body.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn post(name: &str, body: Value) -> Result<Self, RequestError> {
        if name != EXPLAIN {
            return Err(RequestError::Unknown(name.to_owned()));
        }
        let question = serde_json::from_value(body);
        let question = question.map_err(|error| RequestError::Question(error.to_string()))?;
        Ok(Self::Explain(Box::new(question)))
    }

    /// The method.
    pub const fn method(&self) -> Method {
        match self {
            Self::Status
            | Self::Workloads
            | Self::Policies
            | Self::Connections
            | Self::Certificates
            | Self::CertificateChains
            | Self::Events => Method::GET,
            Self::Explain(_) => Method::POST,
        }
    }

    /// The path.
    pub fn path(&self) -> String {
        format!("{PREFIX}{}", self.name())
    }

    /// The body; empty if there is none.
    ///
    /// # Errors
    /// If it cannot be JSON.
    pub fn body(&self) -> serde_json::Result<Bytes> {
        match self {
            Self::Explain(question) => Ok(serde_json::to_vec(question)?.into()),
            Self::Status
            | Self::Workloads
            | Self::Policies
            | Self::Connections
            | Self::Certificates
            | Self::CertificateChains
            | Self::Events => Ok(Bytes::new()),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Workloads => "workloads",
            Self::Policies => "policies",
            Self::Connections => "connections",
            Self::Certificates => "certificates",
            Self::CertificateChains => "certificate-chains",
            Self::Events => "events",
            Self::Explain(_) => EXPLAIN,
        }
    }
}

/// The name of [`AdminRequest::Explain`].
const EXPLAIN: &str = "explain";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_request_is_found_by_its_own_method_and_path() {
        for request in AdminRequest::PLAIN {
            let path = request.path();
            let name = path.strip_prefix(PREFIX).unwrap();
            assert_eq!(AdminRequest::get(name).as_ref(), Ok(&request));
            assert_eq!(request.method(), Method::GET);
            let posted = AdminRequest::post(name, json!({}));
            assert_eq!(posted, Err(RequestError::Unknown(name.to_owned())));
        }
        let error = AdminRequest::get(EXPLAIN).unwrap_err();
        assert_eq!(error.to_string(), "there is no /v1/explain");
        let error = AdminRequest::post(EXPLAIN, json!(1)).unwrap_err();
        assert!(error.to_string().contains("is not understood"), "{error}");
    }
}
