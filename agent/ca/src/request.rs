//! What a call asks for.

use std::time::Duration;

use super::authorization::RequestedIdentity;
use ambit_authority::{CsrError, SubjectKey};
use ambit_ca_protocol::{CertificateRequest, IMPERSONATED_IDENTITY};
use ambit_model::{IdentityError, WorkloadIdentity};

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
pub(super) fn asked(request: &CertificateRequest) -> Result<RequestedIdentity, RequestError> {
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
pub(super) fn key(request: &CertificateRequest) -> Result<SubjectKey, RequestError> {
    Ok(SubjectKey::from_csr_pem(request.csr.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ambit_ca_protocol::{Struct, Value};

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
        assert_eq!(asked(&request), Ok(RequestedIdentity::Own));
        request.metadata = Some(Struct::with_string("CertSigner", String::new()));
        assert_eq!(asked(&request), Ok(RequestedIdentity::Own));
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let identity = WorkloadIdentity::from_spiffe_id(id).expect("valid");
        assert_eq!(asked(&asking(id)), Ok(RequestedIdentity::Of(identity)));
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
            let error = asked(&asking(id));
            assert!(matches!(error, Err(RequestError::Identity(_))), "{id:?}");
        }
        let long = asking(&"a".repeat(MAX_IDENTITY + 1));
        assert_eq!(asked(&long), Err(RequestError::TooLong(MAX_IDENTITY + 1)));
        let mut other_kind = asking("");
        if let Some(metadata) = &mut other_kind.metadata {
            let value = Value { string_value: None };
            metadata
                .fields
                .insert(IMPERSONATED_IDENTITY.to_owned(), value);
        }
        assert_eq!(asked(&other_kind), Err(RequestError::NotAText));
    }
}
