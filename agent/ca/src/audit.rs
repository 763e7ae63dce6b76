//! The audit log: a line for each call, and counts of the results.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::PublicKeyData;
use tonic::Code;

use super::caller::AuthenticatedCaller;
use crate::service::IssuanceRefusal;
use ambit_authority::{SignedCertificate, SubjectKey};
use ambit_model::WorkloadIdentity;
use ambit_observe::logging::AUDIT_TARGET;

/// Writes the audit log and counts results.
#[derive(Debug, Default)]
pub struct Audit {
    issued: AtomicU64,
    unauthenticated: AtomicU64,
    denied: AtomicU64,
    malformed: AtomicU64,
    limited: AtomicU64,
    unavailable: AtomicU64,
}

/// How many calls had which result since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct CaCounts {
    /// A certificate was issued.
    pub issued: u64,
    /// The caller was not authenticated.
    pub unauthenticated: u64,
    /// The caller may not have the identity.
    pub denied: u64,
    /// The request was malformed.
    pub malformed: u64,
    /// The caller exceeded its rate limit.
    pub limited: u64,
    /// The API server, the pods or the CA's key were not available.
    pub unavailable: u64,
}

/// What is known about a call so far.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) peer: SocketAddr,
    pub(super) caller: Option<AuthenticatedCaller>,
    /// The requested identity, once it is known.
    pub(super) identity: Option<WorkloadIdentity>,
}

impl Audit {
    /// The counts so far.
    pub fn counts(&self) -> CaCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CaCounts {
            issued: read(&self.issued),
            unauthenticated: read(&self.unauthenticated),
            denied: read(&self.denied),
            malformed: read(&self.malformed),
            limited: read(&self.limited),
            unavailable: read(&self.unavailable),
        }
    }

    /// Records that a certificate was signed. It is sent to the caller afterwards.
    pub(super) fn issued(
        &self,
        call: &Call,
        identity: &WorkloadIdentity,
        key: &SubjectKey,
        issued: &SignedCertificate,
    ) {
        self.issued.fetch_add(1, Ordering::Relaxed);
        let Fields {
            peer,
            account,
            pod,
            uid,
            node,
        } = Fields::of(call);
        tracing::info!(
            target: AUDIT_TARGET,
            %peer,
            account,
            pod,
            uid,
            node,
            %identity,
            serial = issued.serial,
            not_after = seconds(issued.not_after),
            key = fingerprint(key),
            "certificate issued"
        );
    }

    /// Records that a call was refused.
    pub(super) fn refused(&self, call: &Call, refusal: &IssuanceRefusal) {
        self.count(refusal.code()).fetch_add(1, Ordering::Relaxed);
        let Fields {
            peer,
            account,
            pod,
            uid,
            node,
        } = Fields::of(call);
        let identity = call.identity.as_ref().map(ToString::to_string);
        tracing::warn!(
            target: AUDIT_TARGET,
            %peer,
            account,
            pod,
            uid,
            node,
            identity,
            code = ?refusal.code(),
            reason = %refusal,
            "certificate refused"
        );
    }

    fn count(&self, code: Code) -> &AtomicU64 {
        match code {
            Code::Unauthenticated => &self.unauthenticated,
            Code::PermissionDenied => &self.denied,
            Code::InvalidArgument => &self.malformed,
            Code::ResourceExhausted => &self.limited,
            _ => &self.unavailable,
        }
    }
}

/// The fields that describe a call.
struct Fields<'a> {
    peer: SocketAddr,
    account: Option<String>,
    pod: Option<String>,
    uid: Option<&'a str>,
    node: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn of(call: &'a Call) -> Self {
        let caller = call.caller.as_ref();
        Self {
            peer: call.peer,
            account: caller.map(|caller| caller.account.to_string()),
            pod: caller.map(|caller| caller.pod.name.to_string()),
            uid: caller.map(|caller| &*caller.pod.uid),
            node: caller.and_then(|caller| caller.node.as_deref()),
        }
    }
}

/// SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal digits.
fn fingerprint(key: &SubjectKey) -> String {
    let info = key.subject_public_key_info();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &info);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
