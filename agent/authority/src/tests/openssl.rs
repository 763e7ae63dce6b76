//! Checked against another implementation, if it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{HOUR, domain, identity};
use crate::{
    CaCertificateFlaw, CaFilesError, CertificateAuthority, INTERMEDIATE_LIFETIME, ROOT_LIFETIME,
    SubjectKey, encode_pem, make_intermediate, make_root,
};
use ambit_testing::skip;

/// What openssl prints; `None` if it is not installed.
fn openssl(directory: &Path, arguments: &str) -> Option<String> {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(arguments.split(' '));
    let output = command.output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "openssl {arguments}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn openssl_verifies_what_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    if openssl(at, "version").is_none() {
        return skip("openssl is not installed");
    }
    let root = make_root(&at.join("root"), &domain(), ROOT_LIFETIME).unwrap();
    let below = make_intermediate(&at.join("ca"), &root, INTERMEDIATE_LIFETIME).unwrap();
    openssl(
        at,
        "req -new -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=evil -addext basicConstraints=CA:TRUE -addext subjectAltName=DNS:evil.example",
    );
    let key = SubjectKey::from_csr_pem(&fs::read(at.join("csr.pem")).unwrap()).unwrap();
    for (authority, name) in [(&root, "root"), (&below, "ca")] {
        let issued = authority.issue_workload(&identity(), &key, HOUR).unwrap();
        let (leaf, above) = issued.chain.split_at(1);
        fs::write(at.join("leaf.pem"), encode_pem(leaf)).unwrap();
        fs::write(at.join("above.pem"), encode_pem(above)).unwrap();
        let untrusted = match above {
            [] => "",
            _ => "-untrusted above.pem ",
        };
        for purpose in ["sslserver", "sslclient"] {
            openssl(
                at,
                &format!(
                    "verify -x509_strict -purpose {purpose} -CAfile {name}/root-cert.pem {untrusted}leaf.pem"
                ),
            );
        }
        let text = openssl(at, "x509 -in leaf.pem -noout -text").unwrap();
        assert!(text.contains("URI:spiffe://cluster.local/ns/web/sa/frontend"));
        assert!(
            text.contains("CA:FALSE") && !text.contains("evil"),
            "{text}"
        );
    }
}

#[test]
fn keys_and_certificates_from_openssl_are_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    if openssl(at, "version").is_none() {
        return skip("openssl is not installed");
    }
    for generate in [
        "ecparam -name prime256v1 -genkey -out ca-key.pem",
        "ecparam -name secp384r1 -genkey -noout -out ca-key.pem",
        "genrsa -traditional -out ca-key.pem 2048",
        "genrsa -out ca-key.pem 2048",
        "genpkey -algorithm ed25519 -out ca-key.pem",
    ] {
        openssl(at, generate);
        openssl(
            at,
            "req -x509 -new -key ca-key.pem -out ca-cert.pem -days 2 -subj /O=Istio/OU=a/CN=Root -addext keyUsage=critical,keyCertSign",
        );
        fs::copy(at.join("ca-cert.pem"), at.join("root-cert.pem")).unwrap();
        let opened = CertificateAuthority::open(at, &domain());
        assert!(opened.is_ok(), "{generate}: {}", opened.unwrap_err());
    }
    for name in ["/DC=example/DC=mesh/CN=Root", "/O=Istio+CN=Root"] {
        openssl(
            at,
            &format!(
                "req -x509 -new -key ca-key.pem -out ca-cert.pem -multivalue-rdn -subj {name}"
            ),
        );
        fs::copy(at.join("ca-cert.pem"), at.join("root-cert.pem")).unwrap();
        let error = CertificateAuthority::open(at, &domain()).unwrap_err();
        let is_name = matches!(
            error,
            CaFilesError::Certificate {
                flaw: CaCertificateFlaw::Name,
                ..
            }
        );
        assert!(is_name, "{error}");
    }
}
