use std::io;
use std::path::{Path, PathBuf};

use ambit_model::TrustDomain;

/// Why a CA's files cannot be used or created.
#[derive(Debug, thiserror::Error)]
pub enum CaFilesError {
    /// A file cannot be read or written.
    #[error("the CA's file {path} cannot be used: {source}")]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// One of two files that need each other is missing.
    #[error(
        "of the CA's files, {present} exists but {missing} does not; restore the missing one, or \
         remove all of them for a new root, which no certificate of the old one will be accepted by"
    )]
    Half {
        /// The one that exists.
        present: PathBuf,
        /// The one that does not.
        missing: PathBuf,
    },
    /// A new CA was to be created in a directory that already contains one.
    #[error("{0} already exists and is never overwritten; choose another directory")]
    Exists(PathBuf),
    /// The files changed between each two attempts to read them.
    #[error("the CA's files in {0} are changing while they are read; they will be read again soon")]
    Changing(PathBuf),
    /// Others can read or write the key.
    #[error(
        "the CA's key {path} can be read or written by others (mode {mode:03o}); make it \
         `chmod 600`, or `defaultMode: 0400` in the volume of a Secret, and consider it known"
    )]
    KeyExposed {
        /// The path of the file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not contain what it should.
    #[error("the CA's file {path} is not valid: {reason}")]
    Invalid {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The key does not belong to the signing certificate.
    #[error(
        "the CA's certificate {certificate} does not belong to the key {key} beside it; put both \
         files of one CA there"
    )]
    KeyOfAnother {
        /// The path of the key.
        key: PathBuf,
        /// The path of the signing certificate.
        certificate: PathBuf,
    },
    /// A certificate may not sign, or not for this mesh.
    #[error("the certificate of \"{subject}\" in {path} {flaw}")]
    Certificate {
        /// The path of the file.
        path: PathBuf,
        /// The certificate's subject.
        subject: String,
        /// Why it cannot be used.
        flaw: CaCertificateFlaw,
    },
    /// A certificate of the chain was not signed by the one after it.
    #[error(
        "the certificate of \"{subject}\" was not signed by \"{next}\", which follows it in {path}; \
         order the file from the signing certificate up towards the root, without others"
    )]
    Chain {
        /// The path of the file.
        path: PathBuf,
        /// The certificate that the next one did not sign.
        subject: String,
        /// The one that follows it.
        next: String,
    },
    /// The chain does not end at a root of the bundle.
    #[error(
        "no root in {path} signed the certificate of \"{subject}\"; add the root that did, or the \
         intermediates that are missing between them to cert-chain.pem"
    )]
    OtherRoot {
        /// The file of roots.
        path: PathBuf,
        /// The last certificate below the roots.
        subject: String,
    },
    /// Verifiers in the mesh would refuse what the CA signs.
    #[error(
        "certificates that the CA in {directory} signs would be refused: {reason}; inspect its \
         certificates with `openssl x509 -text`"
    )]
    Refused {
        /// The CA's directory.
        directory: PathBuf,
        /// What the verifier says.
        reason: String,
    },
}

/// Why a CA's certificate cannot be used. Displays as a predicate, without a subject.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaCertificateFlaw {
    /// It has expired.
    #[error("expired at {0}; renew it")]
    Expired(String),
    /// It is not valid yet.
    #[error("is not valid before {0}; check this machine's clock")]
    NotYetValid(String),
    /// Its basic constraints do not include `CA:TRUE` (RFC 5280, 4.2.1.9).
    #[error("is not a CA certificate (basic constraint CA:TRUE); have a CA certificate made")]
    NoCa,
    /// Its key usage lacks `keyCertSign` (RFC 5280, 4.2.1.3).
    #[error("may not sign certificates (key usage keyCertSign); have one made with it")]
    NoCertSign,
    /// Its path length is shorter than the path below it (RFC 5280, 4.2.1.9).
    #[error(
        "allows {allowed} CAs below it (path length), but there are {below}; sign with one that \
         is nearer to the root, or have a root made that allows more"
    )]
    PathLength {
        /// How many CAs it allows below it.
        allowed: u32,
        /// How many CAs are below it.
        below: u32,
    },
    /// It belongs to another trust domain.
    #[error("is of {found} and not of spiffe://{expected}; set the trust domain that it is of")]
    TrustDomain {
        /// Its URI name.
        found: String,
        /// The configured trust domain.
        expected: TrustDomain,
    },
    /// It is among the roots, but another certificate signed it.
    #[error("is not a root: \"{0}\" signed it; move it to cert-chain.pem")]
    NotSelfIssued(String),
    /// A part of its subject has no attribute or several, or an attribute occurs twice.
    #[error(
        "has a subject that cannot sign here: each part must be one attribute, and each attribute \
         must occur once; have one made with another subject"
    )]
    Name,
    /// It cannot be decoded.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Returns a function that wraps a system error about a file.
pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> CaFilesError {
    move |source| CaFilesError::File {
        path: path.to_owned(),
        source,
    }
}

/// A file does not contain what it should.
pub(super) fn invalid(path: &Path, reason: impl ToString) -> CaFilesError {
    CaFilesError::Invalid {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
