//! The state of certificates as operators see it. Times are seconds since 1970.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::certificate::{Timeliness, parse, rfc3339, seconds, serial};
use crate::managed::ManagedCertificate;
use ambit_model::{Fault, WorkloadIdentity};

/// How many faults are listed individually. The rest is counted.
const TOLD: usize = 10;

/// One identity's certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Whose certificate it is.
    pub identity: WorkloadIdentity,
    /// Whether it is valid and could be renewed.
    pub state: CertificateState,
    /// Its serial number, in hexadecimal digits.
    pub serial: Option<String>,
    /// `notBefore`.
    pub not_before: Option<u64>,
    /// `notAfter`.
    pub not_after: Option<u64>,
    /// The issuer's distinguished name.
    pub issuer: Option<String>,
    /// When it will be renewed, or when the next attempt is due after a failed one.
    pub renews_at: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// How many attempts have failed since the identity came into use.
    pub failures: u64,
    /// The chain that is presented, leaf first.
    pub chain: Vec<ChainCertificate>,
}

/// One certificate of a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainCertificate {
    /// The subject's distinguished name. A workload's is empty.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// `notAfter`.
    pub not_after: u64,
}

/// The certificates of a node in summary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CertificateSummary {
    /// The worst state among them.
    pub state: NodeCertificateState,
    /// Identities of this node's pods.
    pub held: usize,
    /// Those that have no certificate yet.
    pub missing: usize,
    /// Those whose certificate is valid but could not be renewed.
    pub failing: usize,
    /// Those whose certificate is not valid any more.
    pub expired: usize,
    /// While degraded, until when all valid certificates stay valid if none can be renewed.
    pub degraded_until: Option<u64>,
}

/// The state of all certificates of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCertificateState {
    /// Each one that was issued is valid and could be renewed.
    #[default]
    Good,
    /// Some could not be obtained or renewed. Those that exist are valid.
    Degraded,
    /// Some have expired.
    Expired,
}

impl CertificateInfo {
    pub(super) fn of(held: &ManagedCertificate, now: SystemTime) -> Self {
        let progress = held.progress();
        let current = held.current();
        let current = current.as_deref();
        let certificate = current.map(|current| &*current.certificate);
        let validity = certificate.map(|certificate| certificate.validity);
        let timeliness = validity.map(|validity| Timeliness::of(validity, now));
        let renews_at = progress
            .retry_at
            .or(current.map(|current| current.renews_at));
        let chain = certificate.map(|certificate| certificate.issued.chain.as_slice());
        Self {
            identity: held.identity.clone(),
            state: CertificateState::of(timeliness, progress.failure.is_some()),
            serial: certificate.map(|certificate| certificate.serial.clone()),
            not_before: validity.map(|validity| seconds(validity.from)),
            not_after: validity.map(|validity| seconds(validity.until)),
            issuer: certificate.map(|certificate| certificate.issuer.clone()),
            renews_at: renews_at.map(seconds),
            error: progress.failure.clone(),
            failures: progress.failures,
            chain: chain.unwrap_or_default().iter().filter_map(link).collect(),
        }
    }
}

impl CertificateSummary {
    /// Summarises a list of certificates.
    pub fn of(certificates: &[CertificateInfo]) -> Self {
        use CertificateState::{Expired, Failing, Missing, Pending};
        let count = |states: &[CertificateState]| {
            let counted = certificates
                .iter()
                .filter(|one| states.contains(&one.state));
            counted.count()
        };
        let failing = certificates.iter().filter(|one| one.state == Failing);
        let state = match (count(&[Expired]), count(&[Failing, Missing])) {
            (0, 0) => NodeCertificateState::Good,
            (0, _) => NodeCertificateState::Degraded,
            _ => NodeCertificateState::Expired,
        };
        Self {
            state,
            held: certificates.len(),
            missing: count(&[Pending, Missing]),
            failing: count(&[Failing]),
            expired: count(&[Expired]),
            degraded_until: failing.filter_map(|one| one.not_after).min(),
        }
    }
}

/// A fault for each certificate that is missing, expired or cannot be renewed, up to a bound.
pub(super) fn faults(certificates: &[CertificateInfo]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = certificates.iter().filter_map(fault).collect();
    let more = faults.len().saturating_sub(TOLD);
    faults.truncate(TOLD);
    if more > 0 {
        faults.push(Fault {
            subject: "certificates".to_owned(),
            message: format!("{more} more certificates have faults; see `ambit certs`"),
            last_good_in_force: false,
        });
    }
    faults
}

fn fault(certificate: &CertificateInfo) -> Option<Fault> {
    let until = certificate
        .not_after
        .map(|until| rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(until)));
    let until = until.unwrap_or_default();
    let error = certificate
        .error
        .as_deref()
        .unwrap_or("it is being requested");
    let message = match certificate.state {
        CertificateState::Pending | CertificateState::Valid => return None,
        CertificateState::Missing => format!("It has not been issued yet: {error}"),
        CertificateState::Failing => {
            format!("It is valid until {until}, but could not be renewed: {error}")
        }
        CertificateState::Expired => {
            format!("It expired at {until}, and new connections are refused: {error}")
        }
    };
    Some(Fault {
        subject: format!("the certificate of {}", certificate.identity),
        message,
        last_good_in_force: certificate.state == CertificateState::Failing,
    })
}

fn link(certificate: &CertificateDer<'static>) -> Option<ChainCertificate> {
    let parsed = parse(certificate).ok()?;
    Some(ChainCertificate {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        serial: serial(&parsed),
        not_after: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
    })
}

/// The state of one identity's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// The first one is being requested.
    #[default]
    Pending,
    /// The first one could not be obtained, and is requested again.
    Missing,
    /// It is valid.
    Valid,
    /// It is valid, but could not be renewed.
    Failing,
    /// It is not valid now. New connections are refused.
    Expired,
}

impl CertificateState {
    /// The state that follows from the certificate's timeliness, if there is a certificate, and from
    /// whether the last attempt to get another failed.
    pub(super) const fn of(timeliness: Option<Timeliness>, has_failed: bool) -> Self {
        match (timeliness, has_failed) {
            (None, false) => Self::Pending,
            (None, true) => Self::Missing,
            (Some(Timeliness::Valid), false) => Self::Valid,
            (Some(Timeliness::Valid), true) => Self::Failing,
            (Some(Timeliness::Expired | Timeliness::TooEarly), _) => Self::Expired,
        }
    }
}
