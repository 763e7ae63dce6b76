//! Calls of the Istio CA protocol by curl, right or wrong.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;
use rcgen::{CertificateParams, KeyPair, SanType};

use super::access::CaEndpoint;
use super::answer::CaAnswer;
use super::protocol::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, frame};
use super::protocol::{IMPERSONATED_IDENTITY, Struct, Value};
use crate::lab::Lab;
use crate::place::Place;
use crate::process::output;

/// The request.
#[derive(Clone, Copy, Debug)]
pub struct CaCall<'a> {
    /// Headers in addition to those of any gRPC call, for example `authorization: Bearer …`.
    pub headers: &'a [String],
    /// The certificate signing request, in PEM.
    pub request: &'a str,
    /// The requested lifetime, in seconds.
    pub seconds: i64,
    /// The requested identity, if it is not the caller's own.
    pub identity: Option<&'a str>,
}

impl CaCall<'_> {
    /// Makes the call from somewhere, by curl, which trusts only the authority's roots.
    ///
    /// # Errors
    ///
    /// If there is no answer.
    pub fn make(&self, lab: &Lab, from: &Place, ca: &CaEndpoint) -> Result<CaAnswer> {
        let directory = tempfile::tempdir_in(lab.directory())?;
        let file = |name: &str| directory.path().join(name);
        fs::write(file("request"), self.encode())?;
        let (name, port) = (ca.server_name, ca.address.port());
        let mut curl = from.command("curl")?;
        curl.args(["--silent", "--show-error", "--http2", "--noproxy", "*"])
            .args(["--max-time", "10", "--request", "POST"])
            .args(["--header", "content-type: application/grpc"])
            .args(["--header", "te: trailers"])
            .args(["--resolve", &format!("{name}:{port}:{}", ca.address.ip())])
            .arg("--cacert")
            .arg(&ca.roots)
            .arg("--data-binary")
            .arg(format!("@{}", file("request").display()))
            .arg("--dump-header")
            .arg(file("head"))
            .arg("--output")
            .arg(file("answer"));
        for header in self.headers {
            curl.args(["--header", header]);
        }
        let outcome = output(curl.arg(format!("https://{name}:{port}{CREATE_CERTIFICATE}")))?;
        ensure!(outcome.status.success(), "curl: {}", outcome.stderr);
        answer(&fs::read_to_string(file("head"))?, &file("answer"))
    }

    fn encode(&self) -> Vec<u8> {
        let metadata = self.identity.map(|identity| {
            let value = Value {
                text: Some(identity.to_owned()),
            };
            Struct {
                fields: HashMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]),
            }
        });
        frame(&CertificateRequest {
            csr: self.request.to_owned(),
            seconds: self.seconds,
            metadata,
        })
    }
}

/// A request for a certificate with a new key, which names these URIs.
///
/// # Errors
///
/// If it cannot be made.
pub fn signing_request(uris: &[&str]) -> Result<String> {
    let mut params = CertificateParams::default();
    for uri in uris {
        let name = SanType::URI((*uri).try_into()?);
        params.subject_alt_names.push(name);
    }
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

fn answer(head: &str, body: &Path) -> Result<CaAnswer> {
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(own, value)| own.eq_ignore_ascii_case(name).then_some(value.trim()))
    };
    let status = header("grpc-status").with_context(|| format!("no grpc-status in {head}"))?;
    match status.parse()? {
        0 => {
            let bytes = fs::read(body)?;
            let message = bytes.get(5..).context("no message")?;
            let response = CertificateResponse::decode(message)?;
            Ok(CaAnswer::Chain(response.chain))
        }
        status => {
            let message = header("grpc-message").unwrap_or_default();
            Ok(CaAnswer::Refusal(status, message.replace("%20", " ")))
        }
    }
}
