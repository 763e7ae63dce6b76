//! What an earlier agent left on disk, or somebody else put there: a root that is taken is one that
//! issues certificates of our trust domain.

#![no_main]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::Duration;

use ambit::identity::{CertificateProvider, EmbeddedCa, peer_identity};
use ambit::model::{TrustDomain, WorkloadIdentity};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

/// Emptied by every input, and one for all of them.
static DIRECTORY: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

#[derive(Arbitrary, Debug)]
struct Files<'a> {
    /// A genuine one where there is none.
    certificate: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
}

fuzz_target!(|files: Files<'_>| {
    let domain = TrustDomain::new("cluster.local").expect("a domain");
    let directory = DIRECTORY.path();
    let genuine = || EmbeddedCa::open(directory, &domain).expect("a new root");
    for (name, contents) in [
        ("root-key.pem", files.key),
        ("root-cert.pem", files.certificate),
    ] {
        let path = directory.join(name);
        match contents {
            Some(contents) => {
                fs::write(&path, contents).expect("written");
                fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("private");
            }
            None => drop(fs::remove_file(&path)),
        }
    }
    if files.key.is_none() && files.certificate.is_none() {
        genuine();
    }
    let Ok(ca) = EmbeddedCa::open(directory, &domain) else {
        return;
    };
    let identity = WorkloadIdentity::new(domain.clone(), "prod", "web").expect("an identity");
    let issued = RUNTIME
        .block_on(ca.issue(&identity, Duration::from_secs(60)))
        .expect("issued");
    assert_eq!(peer_identity(&issued.chain).as_ref().ok(), Some(&identity));
});
