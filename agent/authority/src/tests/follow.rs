use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::{Ca, Files, domain, pem};
use crate::{AuthorityFiles, CertificateAuthority};

/// How many times a test looks before it gives up.
const LOOKS: usize = 4000;

const INTERVAL: Duration = Duration::from_millis(5);

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let held = (0..LOOKS).any(|_| {
        std::thread::sleep(INTERVAL);
        holds()
    });
    assert!(held, "{what}");
}

/// Switches the volume to a version, as a Secret's volume does: all files in one step.
fn link(volume: &Path, version: &str) {
    let next = volume.join("..data_tmp");
    symlink(version, &next).unwrap();
    fs::rename(next, volume.join("..data")).unwrap();
}

fn volume(versions: &[(&str, &Files)]) -> tempfile::TempDir {
    let volume = tempfile::tempdir().unwrap();
    for (name, files) in versions {
        let directory = volume.path().join(name);
        fs::create_dir(&directory).unwrap();
        files.write(&directory);
    }
    for name in [
        "ca-cert.pem",
        "ca-key.pem",
        "cert-chain.pem",
        "root-cert.pem",
    ] {
        symlink(Path::new("..data").join(name), volume.path().join(name)).unwrap();
    }
    link(volume.path(), versions[0].0);
    volume
}

#[test]
fn a_secret_that_is_replaced_as_a_whole_is_followed() {
    let (old, new) = (Ca::named("root"), Ca::named("root"));
    let below = new.signs(&Ca::params("below"));
    let volume = volume(&[
        ("..1", &Files::of(&old, &[], &[&old])),
        ("..2", &Files::of(&below, &[&below], &[&old, &new])),
    ]);
    let told: Arc<Mutex<Vec<CertificateDer<'static>>>> = Arc::default();
    let tells = Arc::clone(&told);
    let changed = move |authority: &CertificateAuthority| {
        tells.lock().unwrap().push(authority.root().clone());
    };
    let files = AuthorityFiles::follow_with(volume.path(), &domain(), INTERVAL, changed).unwrap();
    let first = files.latest();
    assert_eq!(*first.root(), old.certificate);
    link(volume.path(), "..2");
    eventually("the new root", || *files.latest().root() == new.certificate);
    assert_eq!(files.latest().roots().len(), 2);
    assert_eq!(files.fault(), None);
    link(volume.path(), "..1");
    eventually("the old root", || *files.latest().root() == old.certificate);
    let (old, new) = (old.certificate, new.certificate);
    assert_eq!(*told.lock().unwrap(), [old.clone(), new, old]);
}

#[test]
fn a_partly_replaced_set_comes_into_force_only_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Ca::named("old"), Ca::named("new"));
    Files::of(&old, &[], &[&old]).write(directory.path());
    let files = AuthorityFiles::follow(directory.path(), &domain(), INTERVAL).unwrap();
    let write = |name: &str, contents: &str| {
        fs::write(directory.path().join(name), contents).unwrap();
    };
    let fault = |part: &'static str| {
        eventually(part, || {
            files.fault().is_some_and(|fault| fault.contains(part))
        });
        assert_eq!(*files.latest().root(), old.certificate);
    };
    write("ca-key.pem", &new.key.serialize_pem());
    fault("does not belong to the key");
    write("ca-cert.pem", &pem(&[&new]));
    fault("no root in");
    write("root-cert.pem", "-----BEGIN CERTIFICATE-----\n");
    fault("root-cert.pem is not valid");
    write("root-cert.pem", &pem(&[&old, &new]));
    eventually("the new root", || *files.latest().root() == new.certificate);
    eventually("no fault", || files.fault().is_none());
}

#[test]
fn restoring_the_files_clears_the_fault() {
    let directory = tempfile::tempdir().unwrap();
    let root = Ca::named("root");
    let good = Files::of(&root, &[], &[&root]);
    good.write(directory.path());
    let files = AuthorityFiles::follow(directory.path(), &domain(), INTERVAL).unwrap();
    fs::remove_file(directory.path().join("ca-key.pem")).unwrap();
    eventually("a fault", || files.fault().is_some());
    good.write(directory.path());
    eventually("no fault", || files.fault().is_none());
}

#[test]
fn the_files_are_not_followed_after_a_drop() {
    let directory = tempfile::tempdir().unwrap();
    let root = Ca::named("root");
    Files::of(&root, &[], &[&root]).write(directory.path());
    let files = AuthorityFiles::follow(directory.path(), &domain(), INTERVAL).unwrap();
    let latest = files.subscribe();
    drop(files);
    eventually("the end of the thread", || latest.has_changed().is_err());
}
