//! What a CA signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, ServerName};

use super::subject_key::SubjectKey;
use crate::authority::CertificateAuthority;
use crate::chain::Validity;
use ambit_model::{TrustDomain, WorkloadIdentity};

/// The shortest lifetime. Certificates count in whole seconds.
pub const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// How far certificates are backdated, for peers whose clocks are behind.
pub(super) const BACKDATED: Duration = Duration::from_secs(60);

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct SignedCertificate {
    /// Leaf first, then the intermediates, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// `notBefore`.
    pub not_before: SystemTime,
    /// `notAfter`: the requested end, or that of the CA's own chain if it is earlier.
    pub not_after: SystemTime,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
}

/// Why nothing was signed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssueError {
    /// The requested lifetime is shorter than [`MIN_LIFETIME`].
    #[error("a certificate cannot be valid for {0:?}; request at least one second")]
    Lifetime(Duration),
    /// The CA's own certificates are about to expire.
    #[error("the CA's own certificates are valid for less than a second; renew them")]
    AuthorityExpired,
    /// The CA does not certify identities of this trust domain.
    #[error("the CA certifies identities of {own} only, not {identity}")]
    ForeignTrustDomain {
        /// The requested identity.
        identity: WorkloadIdentity,
        /// The CA's trust domain.
        own: TrustDomain,
    },
    /// A server's certificate was requested without a name.
    #[error("a server's certificate needs a DNS name or an address; give one")]
    NoName,
    /// The certificate cannot be encoded or signed.
    #[error("the certificate cannot be signed: {0}")]
    Signing(String),
}

impl CertificateAuthority {
    /// Signs a workload's certificate for both sides of TLS. The identity is its only name.
    ///
    /// # Errors
    /// [`IssueError`]. A CA that expires earlier shortens the lifetime; that is not an error.
    pub fn issue_workload(
        &self,
        identity: &WorkloadIdentity,
        key: &SubjectKey,
        lifetime: Duration,
    ) -> Result<SignedCertificate, IssueError> {
        if identity.trust_domain() != self.trust_domain() {
            return Err(IssueError::ForeignTrustDomain {
                identity: identity.clone(),
                own: self.trust_domain().clone(),
            });
        }
        let id = identity.spiffe_id().try_into().map_err(signing)?;
        let mut params = self.leaf(key);
        params.subject_alt_names = vec![SanType::URI(id)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(params, key, lifetime)
    }

    /// Signs the certificate of a server outside the mesh, for its DNS names and addresses.
    ///
    /// # Errors
    /// [`IssueError`]. A CA that expires earlier shortens the lifetime; that is not an error.
    pub fn issue_server(
        &self,
        names: &[ServerName<'_>],
        key: &SubjectKey,
        lifetime: Duration,
    ) -> Result<SignedCertificate, IssueError> {
        if names.is_empty() {
            return Err(IssueError::NoName);
        }
        let mut params = self.leaf(key);
        params.subject_alt_names = names.iter().map(subject_name).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, lifetime)
    }

    /// Signs the certificate of a CA that signs workloads' certificates but not those of further CAs.
    pub(super) fn issue_intermediate(
        &self,
        name: &str,
        key: &SubjectKey,
        lifetime: Duration,
    ) -> Result<SignedCertificate, IssueError> {
        let mut params = authority_params(name, self.trust_domain(), 0)?;
        params.use_authority_key_identifier_extension = true;
        self.sign(params, key, lifetime)
    }

    /// The parameters of all leaf certificates. The subject is empty, so that the alternative names are
    /// critical (RFC 5280, 4.2.1.6).
    fn leaf(&self, key: &SubjectKey) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if key.is_rsa() {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &SubjectKey,
        lifetime: Duration,
    ) -> Result<SignedCertificate, IssueError> {
        let Validity { from, until } = within(self.validity, SystemTime::now(), lifetime)?;
        let serial = new_serial();
        params.not_before = from.into();
        params.not_after = until.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let leaf = params.signed_by(key, &self.issuer).map_err(signing)?;
        let mut chain = vec![leaf.into()];
        chain.extend_from_slice(&self.intermediates);
        Ok(SignedCertificate {
            chain,
            not_before: from,
            not_after: until,
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// The parameters of a CA's certificate, root or intermediate, with `below` CAs allowed below it.
pub(super) fn authority_params(
    name: &str,
    trust_domain: &TrustDomain,
    below: u8,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let id = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(signing)?)];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    Ok(params)
}

/// A certificate's validity in whole seconds, within that of the CA.
fn within(
    authority: Validity,
    now: SystemTime,
    lifetime: Duration,
) -> Result<Validity, IssueError> {
    if lifetime < MIN_LIFETIME {
        return Err(IssueError::Lifetime(lifetime));
    }
    let now = whole_seconds(now);
    // A lifetime past the largest representable time is past the CA's end too.
    let asked = now
        .checked_add(lifetime)
        .map_or(authority.until, whole_seconds);
    let until = asked.min(authority.until);
    if until < now + MIN_LIFETIME {
        return Err(IssueError::AuthorityExpired);
    }
    let from = now - BACKDATED;
    Ok(Validity {
        from: from.max(authority.from),
        until,
    })
}

/// 128 random bits. They are encoded as a positive number.
pub(super) fn new_serial() -> [u8; 16] {
    rand::random()
}

/// Cuts off fractions of a second, which certificates cannot express.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn subject_name(name: &ServerName<'_>) -> Result<SanType, IssueError> {
    match name {
        ServerName::DnsName(name) => {
            let name = name.as_ref().try_into().map_err(signing)?;
            Ok(SanType::DnsName(name))
        }
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(*address))),
        other => Err(IssueError::Signing(format!(
            "{other:?} is not the name of a server"
        ))),
    }
}

pub(super) fn signing(error: rcgen::Error) -> IssueError {
    IssueError::Signing(error.to_string())
}
