use std::io;
use std::path::{Path, PathBuf};

use ambit_model::TrustDomain;

/// Why an authority's files cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum CaFilesError {
    /// A file could not be read or written.
    #[error("the CA's file {path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file is there that is nothing without another one.
    #[error(
        "of the CA's files, {present} is there and {missing} is not; restore the missing one, or \
         remove all of them for a new root, which no certificate of the old one will be accepted by"
    )]
    Half {
        /// The one that is there.
        present: PathBuf,
        /// The one that is not.
        missing: PathBuf,
    },
    /// A new authority was to be made where there is one.
    #[error("{0} is there already, and is never overwritten; choose another directory")]
    Exists(PathBuf),
    /// The files never were the same for as long as it takes to read them twice.
    #[error("the CA's files in {0} change while they are read; they are read again soon")]
    Changing(PathBuf),
    /// Others can read or write the key.
    #[error(
        "the CA's key {path} can be read or written by others (mode {mode:03o}); make it \
         `chmod 600`, or `defaultMode: 0400` in the volume of a Secret, and consider it known"
    )]
    KeyExposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("the CA's file {path} is not valid: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is the matter, and what to do.
        reason: String,
    },
    /// The key and the signing certificate are not of one authority.
    #[error(
        "the CA's certificate {certificate} does not belong to the key {key} beside it; put both \
         files of one CA there"
    )]
    KeyOfAnother {
        /// The key.
        key: PathBuf,
        /// The signing certificate.
        certificate: PathBuf,
    },
    /// A certificate may not sign, or not for this mesh.
    #[error("the certificate of \"{subject}\" in {path} {flaw}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Its subject.
        subject: String,
        /// What is wrong with it.
        flaw: CaCertificateFlaw,
    },
    /// A certificate of the chain was not signed by the one after it.
    #[error(
        "the certificate of \"{subject}\" was not signed by \"{next}\", which follows it in {path}; \
         order the file from the signing certificate up towards the root, without others"
    )]
    Chain {
        /// The chain's file.
        path: PathBuf,
        /// The certificate that was not signed by the next.
        subject: String,
        /// The next one.
        next: String,
    },
    /// The chain ends at no root of the bundle.
    #[error(
        "no root in {path} signed the certificate of \"{subject}\"; add the root that did, or the \
         intermediates that are missing between them to cert-chain.pem"
    )]
    OtherRoot {
        /// The bundle.
        path: PathBuf,
        /// The last certificate below the roots.
        subject: String,
    },
    /// What it would sign would be refused by a verifier of the mesh.
    #[error(
        "certificates that the CA in {directory} signs would be refused: {reason}; see its \
         certificates with `openssl x509 -text`"
    )]
    Refused {
        /// The authority's directory.
        directory: PathBuf,
        /// What the verifier says.
        reason: String,
    },
}

/// What is wrong with a certificate of an authority.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaCertificateFlaw {
    /// Its time is over.
    #[error("has expired at {0}; renew it")]
    Expired(String),
    /// Its time has not come.
    #[error("is not valid before {0}; see this machine's clock")]
    NotYetValid(String),
    /// Its basic constraints do not say `CA:TRUE` (RFC 5280, 4.2.1.9).
    #[error("is not a CA's (basic constraint CA:TRUE); have one made that is")]
    NoCa,
    /// Its key usage lacks `keyCertSign` (RFC 5280, 4.2.1.3).
    #[error("may not sign certificates (key usage keyCertSign); have one made that may")]
    NoCertSign,
    /// Its path length is shorter than the path below it (RFC 5280, 4.2.1.9).
    #[error(
        "allows {allowed} CAs below it (path length), and there are {below}; sign with one that \
         is nearer to the root, or have a root made that allows more"
    )]
    PathLength {
        /// What it allows.
        allowed: u32,
        /// What there is.
        below: u32,
    },
    /// It is of another trust domain.
    #[error("is of {found} and not of spiffe://{expected}; set the trust domain that it is of")]
    TrustDomain {
        /// The URI name that it has.
        found: String,
        /// What was asked for.
        expected: TrustDomain,
    },
    /// It is in the bundle of roots, and another signed it.
    #[error("is no root: \"{0}\" signed it; put it into cert-chain.pem")]
    NotSelfIssued(String),
    /// Its subject has an attribute twice, or several or none in one part.
    #[error(
        "has a subject that cannot sign here: each part must be one attribute, and each attribute \
         occur once; have one made with another subject"
    )]
    Name,
    /// It cannot be decoded far enough to judge it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// An error of the system about a file.
pub(super) fn file(path: &Path) -> impl Fn(io::Error) -> CaFilesError {
    move |source| CaFilesError::File {
        path: path.to_owned(),
        source,
    }
}

/// A file that does not hold what it should.
pub(super) fn invalid(path: &Path, reason: impl ToString) -> CaFilesError {
    CaFilesError::Invalid {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
