//! Creates new CAs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, SerialNumber};

use super::error::{CaFilesError, file, invalid};
use super::files::{CA_FILES, CERTIFICATE, CHAIN, CaFileSet, KEY, ROOTS, read_file, read_key};
use super::issue::{BACKDATED, IssueError, authority_params, new_serial, signing, whole_seconds};
use super::pem;
use super::subject_key::SubjectKey;
use crate::authority::CertificateAuthority;
use crate::authority::{signing_certificate, signing_key};
use crate::chain::CaCertificate;
use crate::ensure_creatable;
use crate::files::{Readers, Store};
use ambit_model::TrustDomain;

/// How long a root is valid by default.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long an intermediate is valid by default.
pub const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// How many CAs a new root allows below it. It can sign workloads' certificates itself, or go offline
/// later and leave that to an intermediate.
const BELOW_A_ROOT: u8 = 1;

/// Creates a root that signs workloads' certificates itself.
///
/// # Errors
/// [`CaFilesError`]. An existing CA is never overwritten.
pub fn make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<CertificateAuthority, CaFilesError> {
    let store = Store::lock(directory)?;
    ensure_new(&store)?;
    write_root(&store, &new_key(&store)?, trust_domain, lifetime)?;
    CertificateAuthority::open(directory, trust_domain)
}

/// Creates an intermediate CA below `above`, which may go offline afterwards.
///
/// # Errors
/// [`CaFilesError`]. An existing CA is never overwritten.
pub fn make_intermediate(
    directory: &Path,
    above: &CertificateAuthority,
    lifetime: Duration,
) -> Result<CertificateAuthority, CaFilesError> {
    let store = Store::lock(directory)?;
    ensure_new(&store)?;
    let failed = |error: IssueError| invalid(&store.path(CERTIFICATE), error);
    let key = new_key(&store)?;
    let issued = above
        .issue_intermediate(&name("intermediate"), &SubjectKey::of(&key), lifetime)
        .map_err(failed)?;
    let own = issued.chain.first().map(std::slice::from_ref);
    let files = CaFileSet {
        directory: directory.to_owned(),
        certificate: pem::encode(own.unwrap_or_default()).into_bytes(),
        key: key.serialize_pem().into_bytes(),
        chain: Some(pem::encode(&issued.chain).into_bytes()),
        roots: pem::encode(above.roots()).into_bytes(),
    };
    // Checked before anything is written: `above` may not allow a CA below it.
    let made = CertificateAuthority::from_files(&files, above.trust_domain())?;
    store.write_new(KEY, &files.key, Readers::Owner)?;
    store.write_new(CERTIFICATE, &files.certificate, Readers::All)?;
    store.write_new(
        CHAIN,
        files.chain.as_deref().unwrap_or_default(),
        Readers::All,
    )?;
    store.write_new(ROOTS, &files.roots, Readers::All)?;
    Ok(made)
}

/// Opens the CA in a directory, or creates a root if there is none. Several processes may do this at
/// the same time, and what a process that died has begun is completed.
///
/// # Errors
/// [`CaFilesError`]. Existing files are never replaced.
pub fn open_or_make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
) -> Result<CertificateAuthority, CaFilesError> {
    let store = Store::lock(directory)?;
    match (store.has(KEY), store.has(CERTIFICATE), store.has(ROOTS)) {
        (true, true, true) => {}
        (true, true, false) => finish_root(&store)?,
        // The key is written first. A process that died right after that left only the key.
        (true, false, false) => {
            let path = store.path(KEY);
            let key = signing_key(&read_key(&path)?, &path)?;
            write_root(&store, &key, trust_domain, ROOT_LIFETIME)?;
        }
        (false, false, false) => {
            write_root(&store, &new_key(&store)?, trust_domain, ROOT_LIFETIME)?;
        }
        (false, true, _) => return Err(half(directory, CERTIFICATE, KEY)),
        (false, false, true) => return Err(half(directory, ROOTS, KEY)),
        (true, false, true) => return Err(half(directory, KEY, CERTIFICATE)),
    }
    CertificateAuthority::open(directory, trust_domain)
}

/// Checks whether [`open_or_make_root`] would succeed, as far as possible without changing anything.
///
/// # Errors
/// [`CaFilesError`].
pub fn check_open_or_make_root(
    directory: &Path,
    trust_domain: &TrustDomain,
) -> Result<(), CaFilesError> {
    let path = |name: &str| directory.join(name);
    let has = |name: &str| path(name).symlink_metadata().is_ok();
    // In the reverse order of writing, since another process may be writing them.
    let (roots, certificate, key) = (has(ROOTS), has(CERTIFICATE), has(KEY));
    match (key, certificate, roots) {
        (true, true, true) => CertificateAuthority::open(directory, trust_domain).map(drop),
        (true, _, false) => {
            signing_key(&read_key(&path(KEY))?, &path(KEY))?;
            ensure_creatable(directory).map_err(file(directory))
        }
        (false, false, false) => ensure_creatable(directory).map_err(file(directory)),
        (false, true, _) => Err(half(directory, CERTIFICATE, KEY)),
        (false, false, true) => Err(half(directory, ROOTS, KEY)),
        (true, false, true) => Err(half(directory, KEY, CERTIFICATE)),
    }
}

fn half(directory: &Path, present: &str, missing: &str) -> CaFilesError {
    CaFilesError::Half {
        present: directory.join(present),
        missing: directory.join(missing),
    }
}

fn ensure_new(store: &Store) -> Result<(), CaFilesError> {
    let mut names = CA_FILES.into_iter();
    match names.find(|name| store.has(name)) {
        Some(name) => Err(CaFilesError::Exists(store.path(name))),
        None => Ok(()),
    }
}

fn new_key(store: &Store) -> Result<KeyPair, CaFilesError> {
    KeyPair::generate().map_err(|error| invalid(&store.path(KEY), error))
}

/// Writes a root for a key, and the key if it is not there yet.
fn write_root(
    store: &Store,
    key: &KeyPair,
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<(), CaFilesError> {
    let failed = |error: IssueError| invalid(&store.path(CERTIFICATE), error);
    let root = root_params(trust_domain, lifetime)
        .and_then(|params| params.self_signed(key).map_err(signing))
        .map_err(failed)?;
    let root = pem::encode(&[root.into()]);
    if !store.has(KEY) {
        store.write_new(KEY, key.serialize_pem().as_bytes(), Readers::Owner)?;
    }
    store.write_new(CERTIFICATE, root.as_bytes(), Readers::All)?;
    store.write_new(ROOTS, root.as_bytes(), Readers::All)
}

fn root_params(
    trust_domain: &TrustDomain,
    lifetime: Duration,
) -> Result<CertificateParams, IssueError> {
    let now = whole_seconds(SystemTime::now());
    let until = now.checked_add(lifetime);
    let mut params = authority_params(&name("root"), trust_domain, BELOW_A_ROOT)?;
    params.not_before = (now - BACKDATED).into();
    params.not_after = until.ok_or(IssueError::Lifetime(lifetime))?.into();
    params.serial_number = Some(SerialNumber::from_slice(&new_serial()));
    Ok(params)
}

/// Makes a self-issued signing certificate the only trusted root, if nothing else says what is trusted.
fn finish_root(store: &Store) -> Result<(), CaFilesError> {
    let path = store.path(CERTIFICATE);
    let der = signing_certificate(&read_file(&path)?).map_err(|reason| invalid(&path, reason))?;
    let certificate = CaCertificate::read(&der).map_err(|reason| invalid(&path, reason))?;
    if !certificate.is_self_issued() {
        return Err(CaFilesError::Half {
            present: path,
            missing: store.path(ROOTS),
        });
    }
    let root = pem::encode(std::slice::from_ref(&der));
    store.write_new(ROOTS, root.as_bytes(), Readers::All)
}

/// A unique name: some verifiers find an issuer by its name alone.
fn name(kind: &str) -> String {
    format!("Ambit {kind} {:08x}", rand::random::<u32>())
}
