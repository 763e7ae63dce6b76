//! Serves one call: authenticates the caller, checks what it may have, and signs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::audit::{Audit, Call};
use crate::caller::{AuthenticatedCaller, BearerToken, CallerError, ReviewError, TokenReviewer};
use crate::issuance::{IssuanceDenied, IssuancePolicy, RequestedIdentity};
use crate::pods::{PodDirectory, PodsUnknown};
use crate::rate_limit::{RateLimited, RateLimiter};
use ambit_authority::{
    CertificateAuthority, CsrError, IssueError, SignedCertificate, SubjectKey, encode_pem,
};
use ambit_ca_protocol::{CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY};
use ambit_model::{IdentityError, WorkloadIdentity};

/// The longest message of a refusal, in characters. Each may take several bytes of a header.
const MAX_SENTENCE: usize = 1024;

/// The longest SPIFFE ID, in bytes. The longest trust domain, namespace and account fit.
const MAX_IDENTITY: usize = 1024;

/// What all calls share.
#[derive(Debug)]
pub struct CertificateService {
    /// Authenticates callers.
    pub reviewer: TokenReviewer,
    /// Decides who may have which identity.
    pub authorization: IssuancePolicy,
    /// Knows which pods run where.
    pub pods: PodDirectory,
    /// Limits the requests of each caller.
    pub limits: RateLimiter,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
    /// The CA that signs, always the newest version.
    pub authority: watch::Receiver<Arc<CertificateAuthority>>,
    /// The audit log.
    pub audit: Audit,
}

impl CertificateService {
    /// Serves a call. `authenticated` is called once the caller is known.
    ///
    /// # Errors
    /// [`IssuanceRefusal`], which is already in the audit log.
    pub async fn create_certificate(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        request: &CertificateRequest,
        authenticated: &(dyn Fn(&AuthenticatedCaller) + Sync),
    ) -> Result<CertificateResponse, IssuanceRefusal> {
        let mut call = Call {
            peer,
            caller: None,
            identity: None,
        };
        let result = self
            .answer(&mut call, headers, request, authenticated)
            .await;
        if let Err(refusal) = &result {
            self.audit.refused(&call, refusal);
        }
        result
    }

    async fn answer(
        &self,
        call: &mut Call,
        headers: &HeaderMap,
        request: &CertificateRequest,
        authenticated: &(dyn Fn(&AuthenticatedCaller) + Sync),
    ) -> Result<CertificateResponse, IssuanceRefusal> {
        let token = BearerToken::of(headers)?;
        let caller = call.caller.insert(self.reviewer.review(&token).await?);
        authenticated(caller);
        // Requests that are refused below count too, since each one costs work.
        self.limits.take(caller, Instant::now())?;
        let asked = requested_identity(request)?;
        if let RequestedIdentity::Of(identity) = &asked {
            call.identity = Some(identity.clone());
        }
        let authorize = |pods: &_| self.authorization.authorize(caller, &asked, pods);
        let identity = self.pods.look(authorize)??;
        let key = requested_key(request)?;
        let authority = Arc::clone(&self.authority.borrow());
        let lifetime = self.lifetimes.of(request.validity_duration);
        let issued = authority.issue_workload(&identity, &key, lifetime)?;
        self.audit.issued(call, &identity, &key, &issued);
        Ok(response(&authority, &issued))
    }
}

/// The chain as istiod sends it: one certificate per element, and all roots in the last one.
fn response(authority: &CertificateAuthority, issued: &SignedCertificate) -> CertificateResponse {
    let chain = issued.chain.iter();
    let chain = chain.map(|certificate| encode_pem(std::slice::from_ref(certificate)));
    CertificateResponse {
        cert_chain: chain.chain([encode_pem(authority.roots())]).collect(),
    }
}

/// Why a call gets no certificate. Displays as a sentence for the caller and the audit log. Of the
/// caller's token it contains the issuer and the account only.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuanceRefusal {
    /// The caller is not authenticated.
    #[error(transparent)]
    Caller(CallerError),
    /// The caller's token could not be checked.
    #[error("{0}")]
    Reviewer(ReviewError),
    /// The caller exceeded its rate limit.
    #[error(transparent)]
    Limited(#[from] RateLimited),
    /// The request is malformed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It is not known which pods run where.
    #[error(transparent)]
    Pods(#[from] PodsUnknown),
    /// The caller may not have the identity.
    #[error(transparent)]
    Denied(#[from] IssuanceDenied),
    /// The CA cannot sign the certificate.
    #[error(transparent)]
    Authority(#[from] IssueError),
}

impl From<ReviewError> for IssuanceRefusal {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Caller(error) => Self::Caller(error),
            unavailable @ ReviewError::Unavailable(_) => Self::Reviewer(unavailable),
        }
    }
}

impl From<CallerError> for IssuanceRefusal {
    fn from(error: CallerError) -> Self {
        Self::Caller(error)
    }
}

impl IssuanceRefusal {
    /// The gRPC status code.
    pub fn code(&self) -> Code {
        match self {
            Self::Caller(_) => Code::Unauthenticated,
            Self::Reviewer(_) | Self::Pods(_) | Self::Authority(_) => Code::Unavailable,
            Self::Limited(_) => Code::ResourceExhausted,
            Self::Request(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
        }
    }

    /// The gRPC status. Its message may repeat what the caller sent, so it is cut to fit into a header.
    pub fn status(&self) -> Status {
        let sentence = self
            .to_string()
            .chars()
            .take(MAX_SENTENCE)
            .collect::<String>();
        Status::new(self.code(), sentence)
    }
}

/// Why a request is malformed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// The impersonated identity is not a string.
    #[error("{IMPERSONATED_IDENTITY} of the request's metadata is not a string; send a SPIFFE ID")]
    NotAText,
    /// The impersonated identity is too long.
    #[error(
        "{IMPERSONATED_IDENTITY} of the request's metadata has {0} bytes; send a SPIFFE ID of at \
         most {MAX_IDENTITY}"
    )]
    TooLong(usize),
    /// The impersonated identity is not a SPIFFE ID.
    #[error("{IMPERSONATED_IDENTITY} of the request's metadata: {0}")]
    Identity(#[from] IdentityError),
    /// The certificate signing request is refused.
    #[error(transparent)]
    Csr(#[from] CsrError),
}

/// How long certificates are valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// If the caller does not say.
    pub default: Duration,
    /// Whatever the caller says.
    pub longest: Duration,
}

impl Lifetimes {
    /// The lifetime for a request's `validity_duration`, in seconds. As with istiod, zero and less mean
    /// the default. Longer lifetimes are cut to the longest.
    pub fn of(self, seconds: i64) -> Duration {
        let asked = match u64::try_from(seconds) {
            Err(_) | Ok(0) => self.default,
            Ok(seconds) => Duration::from_secs(seconds),
        };
        asked.min(self.longest)
    }
}

/// The identity that a request is for.
///
/// # Errors
/// [`RequestError`]. An empty identity does not count as the caller's own.
fn requested_identity(request: &CertificateRequest) -> Result<RequestedIdentity, RequestError> {
    let metadata = request.metadata.as_ref();
    let Some(value) = metadata.and_then(|all| all.fields.get(IMPERSONATED_IDENTITY)) else {
        return Ok(RequestedIdentity::Own);
    };
    let id = value
        .string_value
        .as_deref()
        .ok_or(RequestError::NotAText)?;
    if id.len() > MAX_IDENTITY {
        return Err(RequestError::TooLong(id.len()));
    }
    Ok(RequestedIdentity::Of(WorkloadIdentity::from_spiffe_id(id)?))
}

/// The key to certify. Verifying the request's signature is the expensive part.
///
/// # Errors
/// [`RequestError::Csr`].
fn requested_key(request: &CertificateRequest) -> Result<SubjectKey, RequestError> {
    Ok(SubjectKey::from_csr_pem(request.csr.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use ambit_ca_protocol::{Struct, Value};

    use super::*;

    fn asking(identity: &str) -> CertificateRequest {
        CertificateRequest {
            metadata: Some(Struct::with_string(
                IMPERSONATED_IDENTITY,
                identity.to_owned(),
            )),
            ..CertificateRequest::default()
        }
    }

    #[test]
    fn requested_lifetimes_apply_up_to_the_longest() {
        let lifetimes = Lifetimes {
            default: Duration::from_secs(100),
            longest: Duration::from_secs(1000),
        };
        for (asked, given) in [
            (i64::MIN, 100),
            (-1, 100),
            (0, 100),
            (1, 1),
            (999, 999),
            (1001, 1000),
            (i64::MAX, 1000),
        ] {
            assert_eq!(lifetimes.of(asked).as_secs(), given, "{asked}");
        }
    }

    #[test]
    fn a_request_without_identity_is_for_the_callers_own() {
        let mut request = CertificateRequest::default();
        assert_eq!(requested_identity(&request), Ok(RequestedIdentity::Own));
        request.metadata = Some(Struct::with_string("CertSigner", String::new()));
        assert_eq!(requested_identity(&request), Ok(RequestedIdentity::Own));
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let identity = WorkloadIdentity::from_spiffe_id(id).expect("valid");
        assert_eq!(
            requested_identity(&asking(id)),
            Ok(RequestedIdentity::Of(identity))
        );
    }

    #[test]
    fn an_invalid_identity_is_an_error() {
        for id in [
            "",
            "cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web/extra",
            "spiffe://cluster.local/ns/shop/sa/web\0",
            "spiffe://cluster.local/ns/shop%2f/sa/web",
            "spiffe://Cluster.local/ns/shop/sa/web",
            "SPIFFE://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/../sa/web",
            " spiffe://cluster.local/ns/shop/sa/web",
        ] {
            let error = requested_identity(&asking(id));
            assert!(matches!(error, Err(RequestError::Identity(_))), "{id:?}");
        }
        let long = asking(&"a".repeat(MAX_IDENTITY + 1));
        assert_eq!(
            requested_identity(&long),
            Err(RequestError::TooLong(MAX_IDENTITY + 1))
        );
        let mut other_kind = asking("");
        if let Some(metadata) = &mut other_kind.metadata {
            let value = Value { string_value: None };
            metadata
                .fields
                .insert(IMPERSONATED_IDENTITY.to_owned(), value);
        }
        assert_eq!(requested_identity(&other_kind), Err(RequestError::NotAText));
    }
}
