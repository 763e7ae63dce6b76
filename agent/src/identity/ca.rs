//! The embedded CA: a root on disk, certificates for workloads in memory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use super::anchors::TrustAnchors;
use super::issued::IssuedCertificate;
use super::provider::{CertificateProvider, IssueFailure, IssueFuture};
use crate::model::{TrustDomain, WorkloadIdentity};

const CERTIFICATE: &str = "root-cert.pem";
const KEY: &str = "root-key.pem";

/// How far back certificates are dated, for peers whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// How long a root is valid.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error("the CA's file {path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The certificate is there, and the key is not.
    #[error(
        "of the CA's files, {present} is there and {missing} is not; restore the missing one, or \
         remove both for a new root, which no certificate of the old one will be accepted by"
    )]
    Half {
        /// The one that is there.
        present: PathBuf,
        /// The one that is not.
        missing: PathBuf,
    },
    /// Others can read the key.
    #[error("the CA's key {0} can be read by others; make it `chmod 600`, and consider it known")]
    KeyExposed(PathBuf),
    /// A file does not hold what it should.
    #[error("the CA's file {path} is not valid: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
}

/// A certificate authority inside the agent, for development and single clusters.
#[derive(Debug)]
pub struct EmbeddedCa {
    issuer: Issuer<'static, KeyPair>,
    anchors: watch::Sender<Arc<TrustAnchors>>,
}

impl EmbeddedCa {
    /// Opens the root in `directory`, or makes it at first start. Several agents may do so at once.
    ///
    /// # Errors
    /// [`CaError`]; an existing root is never replaced.
    pub fn open(directory: &Path, trust_domain: &TrustDomain) -> Result<Self, CaError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(file(directory))?;
        let opened = File::open(directory).map_err(file(directory))?;
        let _one_at_a_time = Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, error)| file(directory)(error.into()))?;
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::load(&certificate, &key, trust_domain),
            (true, false) => Err(CaError::Half {
                present: certificate,
                missing: key,
            }),
            (false, has_key) => {
                // The key is written first: an agent that died in between has left it alone.
                if !has_key {
                    make_key(&key)?;
                }
                make_root(&certificate, &read_key(&key)?, trust_domain)?;
                Self::load(&certificate, &key, trust_domain)
            }
        }
    }

    fn load(
        certificate: &Path,
        key_path: &Path,
        trust_domain: &TrustDomain,
    ) -> Result<Self, CaError> {
        let key = read_key(key_path)?;
        let invalid = invalid(certificate);
        let root = CertificateDer::from_pem_file(certificate)
            .map_err(|error| invalid(error.to_string()))?;
        check_root(&root, &key, trust_domain).map_err(&invalid)?;
        let issuer =
            Issuer::from_ca_cert_der(&root, key).map_err(|error| invalid(error.to_string()))?;
        let anchors = watch::Sender::new(Arc::new(TrustAnchors::new([root])));
        Ok(Self { issuer, anchors })
    }

    fn sign(
        &self,
        identity: &WorkloadIdentity,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let now = SystemTime::now();
        let serial: [u8; 16] = rand::random();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.spiffe_id().try_into()?)];
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + lifetime).into();
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(IssuedCertificate {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

impl CertificateProvider for EmbeddedCa {
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a> {
        let issued = self.sign(identity, lifetime);
        let issued = issued.map_err(|error| IssueFailure::Refused(error.to_string()));
        Box::pin(std::future::ready(issued))
    }

    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.anchors.subscribe()
    }
}

fn make_key(path: &Path) -> Result<(), CaError> {
    let key = KeyPair::generate().map_err(|error| invalid(path)(error.to_string()))?;
    write_new(path, key.serialize_pem().as_bytes(), 0o600)
}

/// Reads a key that nobody else can read.
fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    let metadata = fs::metadata(path).map_err(file(path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(CaError::KeyExposed(path.to_owned()));
    }
    let pem = fs::read_to_string(path).map_err(file(path))?;
    KeyPair::from_pem(&pem).map_err(|error| invalid(path)(error.to_string()))
}

fn make_root(certificate: &Path, key: &KeyPair, trust_domain: &TrustDomain) -> Result<(), CaError> {
    let failed = |error: rcgen::Error| invalid(certificate)(error.to_string());
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Ambit root");
    let id = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(id.try_into().map_err(failed)?)];
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = params.self_signed(key).map_err(failed)?;
    write_new(certificate, root.pem().as_bytes(), 0o644)
}

/// Writes a file whole or not at all.
fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), CaError> {
    let temporary = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut written = options.open(&temporary).map_err(file(path))?;
    written.write_all(contents).map_err(file(path))?;
    written.sync_all().map_err(file(path))?;
    fs::rename(&temporary, path).map_err(file(path))
}

fn check_root(
    root: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &TrustDomain,
) -> Result<(), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(root).map_err(|e| e.to_string())?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err("it does not belong to the key beside it".to_owned());
    }
    if !parsed.validity().is_valid() {
        return Err(format!(
            "it is valid until {} only",
            parsed.validity().not_after
        ));
    }
    let expected = format!("spiffe://{trust_domain}");
    let names = parsed.subject_alternative_name().ok().flatten();
    let uris = names.iter().flat_map(|names| &names.value.general_names);
    let foreign = uris.filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) if *uri != expected => Some(*uri),
        _ => None,
    });
    match foreign.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        other => Err(format!("it is of {other:?} and not of {expected}")),
    }
}

fn invalid(path: &Path) -> impl Fn(String) -> CaError {
    move |reason| CaError::Invalid {
        path: path.to_owned(),
        reason,
    }
}

fn file(path: &Path) -> impl Fn(io::Error) -> CaError {
    move |source| CaError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("cluster.local").unwrap()
    }

    fn root(ca: &EmbeddedCa) -> Arc<TrustAnchors> {
        Arc::clone(&ca.anchors().borrow())
    }

    #[test]
    fn agents_that_start_at_once_share_one_root() {
        let directory = tempfile::tempdir().unwrap();
        let open = || root(&EmbeddedCa::open(directory.path(), &domain()).unwrap());
        let roots = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn half_a_root_an_exposed_key_and_a_foreign_root_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open = |domain: &TrustDomain| EmbeddedCa::open(directory.path(), domain);
        open(&domain()).unwrap();
        let other = TrustDomain::new("other.example").unwrap();
        assert!(matches!(open(&other), Err(CaError::Invalid { .. })));
        let key = directory.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(&domain()), Err(CaError::KeyExposed(_))));
        fs::remove_file(&key).unwrap();
        assert!(matches!(open(&domain()), Err(CaError::Half { .. })));
    }

    #[test]
    fn a_root_that_was_being_made_when_its_agent_died_is_made_whole() {
        let directory = tempfile::tempdir().unwrap();
        make_key(&directory.path().join(KEY)).unwrap();
        let open = || root(&EmbeddedCa::open(directory.path(), &domain()).unwrap());
        let (made, again) = (open(), open());
        assert_eq!(made, again);
    }

    #[test]
    fn a_key_of_another_root_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        EmbeddedCa::open(directory.path(), &domain()).unwrap();
        make_key(&directory.path().join(KEY)).unwrap();
        let error = EmbeddedCa::open(directory.path(), &domain()).unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");
    }
}
