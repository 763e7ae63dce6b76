//! One call: who asks, what for, may it, sign.

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

/// What all calls share.
#[derive(Debug)]
pub struct CertificateService {
    /// Tells who calls.
    pub reviewer: TokenReviewer,
    /// Tells who may have what.
    pub authorization: IssuancePolicy,
    /// Tells which pods run where.
    pub pods: PodDirectory,
    /// How much each caller may ask for.
    pub limits: RateLimiter,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
    /// What signs; always the newest.
    pub authority: watch::Receiver<Arc<CertificateAuthority>>,
    /// What has been done.
    pub audit: Audit,
}

impl CertificateService {
    /// Answers a call. `authenticated` is told who calls as soon as that is known.
    ///
    /// # Errors
    /// [`IssuanceRefusal`], which has been written to the audit log.
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
        // What is refused later counts too: asking is what costs.
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

/// The chain as istiod sends it: a certificate each, and all roots in the last one.
fn response(authority: &CertificateAuthority, issued: &SignedCertificate) -> CertificateResponse {
    let chain = issued.chain.iter();
    let chain = chain.map(|certificate| encode_pem(std::slice::from_ref(certificate)));
    CertificateResponse {
        cert_chain: chain.chain([encode_pem(authority.roots())]).collect(),
    }
}

/// The longest sentence of an answer, in characters. Each may take several bytes of its header.
const MAX_SENTENCE: usize = 1024;

/// Why a call gets no certificate. Displays as a sentence for the caller and the audit log, which
/// has no part of a token but its issuer and account.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuanceRefusal {
    /// Nobody knows who calls.
    #[error(transparent)]
    Caller(CallerError),
    /// It cannot be found out who calls.
    #[error("{0}")]
    Reviewer(ReviewError),
    /// The caller has asked too often.
    #[error(transparent)]
    Limited(#[from] RateLimited),
    /// What is asked for cannot be told.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It cannot be told which pods run where.
    #[error(transparent)]
    Pods(#[from] PodsUnknown),
    /// The caller may not have it.
    #[error(transparent)]
    Denied(#[from] IssuanceDenied),
    /// The authority cannot sign it.
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
    /// The code of the answer.
    pub fn code(&self) -> Code {
        match self {
            Self::Caller(_) => Code::Unauthenticated,
            Self::Reviewer(_) | Self::Pods(_) | Self::Authority(_) => Code::Unavailable,
            Self::Limited(_) => Code::ResourceExhausted,
            Self::Request(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
        }
    }

    /// The answer. What the caller has sent comes back in it, so that it is cut off where a header
    /// would be too long.
    pub fn status(&self) -> Status {
        let sentence = self
            .to_string()
            .chars()
            .take(MAX_SENTENCE)
            .collect::<String>();
        Status::new(self.code(), sentence)
    }
}

/// The longest SPIFFE ID, in bytes: that of a trust domain, a namespace and an account of the
/// longest names.
const MAX_IDENTITY: usize = 1024;

/// Why it cannot be told what a call asks for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// The impersonated identity is no text.
    #[error("{IMPERSONATED_IDENTITY} of the request's metadata is not a text; send a SPIFFE ID")]
    NotAText,
    /// The impersonated identity is too long.
    #[error(
        "{IMPERSONATED_IDENTITY} of the request's metadata has {0} bytes; send a SPIFFE ID of at \
         most {MAX_IDENTITY}"
    )]
    TooLong(usize),
    /// The impersonated identity is none.
    #[error("{IMPERSONATED_IDENTITY} of the request's metadata: {0}")]
    Identity(#[from] IdentityError),
    /// The certificate signing request cannot be taken.
    #[error(transparent)]
    Csr(#[from] CsrError),
}

/// How long certificates are valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// Where the caller does not say.
    pub default: Duration,
    /// Whatever the caller says.
    pub longest: Duration,
}

impl Lifetimes {
    /// The lifetime for a request's `validity_duration`, in seconds. As with istiod, zero and less
    /// leave it to the CA; more than the longest is the longest.
    pub fn of(self, seconds: i64) -> Duration {
        let asked = match u64::try_from(seconds) {
            Err(_) | Ok(0) => self.default,
            Ok(seconds) => Duration::from_secs(seconds),
        };
        asked.min(self.longest)
    }
}

/// The identity that a request asks for.
///
/// # Errors
/// [`RequestError`]. An empty one is not taken for the caller's own.
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

/// The key that a request wants certified. Costs a verification of its signature.
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
    fn lifetimes_are_the_callers_within_the_longest() {
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
    fn without_an_identity_it_is_the_callers_own() {
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
    fn what_is_no_identity_is_not_taken_for_one_or_for_none() {
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
