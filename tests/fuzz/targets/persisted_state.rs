//! Files that an earlier agent left on disk, or that someone else put there: an authority that is
//! accepted issues certificates of our trust domain, which chain to one of its roots.

#![no_main]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;
use std::time::Duration;

use ambit_authority::{ROOT_LIFETIME, make_root};
use ambit_identity::{CertificateProvider, EmbeddedCa, peer_identity};
use ambit_model::{TrustDomain, WorkloadIdentity};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

/// One directory for all inputs, which each input empties.
static DIRECTORY: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

/// The files of a valid authority.
static GENUINE: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    make_root(directory.path(), &domain(), ROOT_LIFETIME).expect("a root");
    directory
});

#[derive(Arbitrary, Debug)]
enum Contents<'a> {
    Missing,
    Genuine,
    Other(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Files<'a> {
    certificate: Contents<'a>,
    key: Contents<'a>,
    chain: Contents<'a>,
    roots: Contents<'a>,
}

fn domain() -> TrustDomain {
    TrustDomain::new("cluster.local").expect("a domain")
}

fuzz_target!(|files: Files<'_>| {
    let directory = DIRECTORY.path();
    for (name, contents) in [
        ("ca-cert.pem", files.certificate),
        ("ca-key.pem", files.key),
        ("cert-chain.pem", files.chain),
        ("root-cert.pem", files.roots),
    ] {
        let path = directory.join(name);
        let contents = match contents {
            Contents::Missing => None,
            Contents::Genuine => fs::read(GENUINE.path().join(name)).ok(),
            Contents::Other(contents) => Some(contents.to_vec()),
        };
        match contents {
            Some(contents) => {
                fs::write(&path, contents).expect("written");
                fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("private");
            }
            None => drop(fs::remove_file(&path)),
        }
    }
    let Ok(ca) = EmbeddedCa::open(directory, &domain()) else {
        return;
    };
    let identity = WorkloadIdentity::new(domain(), "prod", "web").expect("an identity");
    let issued = RUNTIME
        .block_on(ca.issue(&identity, Duration::from_secs(60)))
        .expect("issued");
    assert_eq!(peer_identity(&issued.chain).as_ref().ok(), Some(&identity));
});
