//! One call: who asks, what for, may it, sign.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use tokio::sync::watch;

use super::audit::{Audit, Call};
use super::authorization::{IssuancePolicy, RequestedIdentity};
use super::caller::{AuthenticatedCaller, BearerToken, TokenReviewer};
use super::limits::RateLimiter;
use super::pods::PodDirectory;
use super::refusal::IssuanceRefusal;
use super::request::{self, Lifetimes};
use ambit_authority::{CertificateAuthority, SignedCertificate, encode_pem};
use ambit_ca_protocol::{CertificateRequest, CertificateResponse};

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
        let asked = request::asked(request)?;
        if let RequestedIdentity::Of(identity) = &asked {
            call.identity = Some(identity.clone());
        }
        let authorize = |pods: &_| self.authorization.authorize(caller, &asked, pods);
        let identity = self.pods.look(authorize)??;
        let key = request::key(request)?;
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
