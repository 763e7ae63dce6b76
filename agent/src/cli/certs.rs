//! `ambit certs`.

use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::output::{Format, Output};
use super::show::ask;
use ambit_identity::{CertificateInfo, CertificateState, PresentedChain};
use ambit_model::WorkloadIdentity;

/// The agent to ask, and what to print.
#[derive(clap::Args)]
pub(super) struct CertsArguments {
    /// The agent's admin socket.
    #[arg(long, env = "AMBIT_SOCKET", default_value = super::run::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print the answer. JSON and YAML have the chains too, and times in seconds since 1970.
    #[arg(short, long, value_enum, default_value_t = Format::Table, conflicts_with = "pem")]
    output: Format,
    /// Print the chain that this identity presents, as PEM; without an identity, all of them. Keys
    /// are never printed.
    #[arg(long, value_name = "IDENTITY", num_args = 0..=1, default_missing_value = "")]
    pem: Option<String>,
}

impl CertsArguments {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        if let Some(identity) = &self.pem {
            let chains = ask(&self.socket, async |agent| agent.certificate_chains().await)?;
            return Output::lines(pem(&chains, identity)?.lines()).print();
        }
        let certificates = ask(&self.socket, async |agent| agent.certificates().await)?;
        let output = match self.output {
            Format::Table => Output::of(&rows(&certificates), self.output)?,
            Format::Json | Format::Yaml => Output::of(&certificates, self.output)?,
        };
        output.print()
    }
}

/// The chains of one identity, or of all, each under the name of its identity.
fn pem(chains: &[PresentedChain], identity: &str) -> anyhow::Result<String> {
    let wanted = identity.strip_prefix("spiffe://").unwrap_or(identity);
    let mut text = String::new();
    for PresentedChain { identity, pem } in chains {
        if wanted.is_empty() || wanted == identity.principal() {
            text.push_str(&format!("# spiffe://{identity}\n{pem}"));
        }
    }
    if text.is_empty() && !wanted.is_empty() {
        bail!("this node has no certificate of {wanted}; `ambit certs` lists those that it has");
    }
    Ok(text)
}

/// A certificate for people. The names of the fields are the table's header.
#[derive(Serialize)]
struct CertificateRow<'a> {
    identity: &'a WorkloadIdentity,
    state: CertificateState,
    serial: Option<&'a str>,
    valid_from: Option<String>,
    valid_until: Option<String>,
    issuer: Option<&'a str>,
    next_renewal: Option<String>,
}

fn rows(certificates: &[CertificateInfo]) -> Vec<CertificateRow<'_>> {
    let rows = certificates.iter().map(|one| CertificateRow {
        identity: &one.identity,
        state: one.state,
        serial: one.serial.as_deref(),
        valid_from: one.not_before.and_then(rfc3339),
        valid_until: one.not_after.and_then(rfc3339),
        issuer: one.issuer.as_deref(),
        next_renewal: one.renews_at.and_then(rfc3339),
    });
    rows.collect()
}

/// Seconds since 1970 as a date.
fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    let moment = jiff::Timestamp::from_second(seconds).ok()?;
    Some(moment.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::table;

    #[test]
    fn people_read_dates() {
        let certificates: Vec<CertificateInfo> = serde_json::from_value(json!([
            {"identity": "a/ns/b/sa/c", "state": "valid", "serial": "0a", "not_before": 0,
             "not_after": 86400, "issuer": "CN=root", "renews_at": 43200, "error": null,
             "failures": 0, "chain": []},
            {"identity": "a/ns/b/sa/d", "state": "pending", "serial": null, "not_before": null,
             "not_after": null, "issuer": null, "renews_at": null, "error": null, "failures": 0,
             "chain": []},
        ]))
        .unwrap();
        let text = table(&json!(rows(&certificates))).join("\n");
        assert!(
            text.contains("VALID UNTIL") && text.contains("NEXT RENEWAL"),
            "{text}"
        );
        assert!(text.contains("1970-01-02T00:00:00Z"), "{text}");
        assert!(text.lines().last().unwrap().contains("pending"), "{text}");
    }

    #[test]
    fn chains_are_found_by_either_form_of_a_name() {
        let chains: Vec<PresentedChain> = serde_json::from_value(json!([
            {"identity": "a/ns/b/sa/c", "pem": "one\n"},
            {"identity": "a/ns/b/sa/d", "pem": "two\n"},
        ]))
        .unwrap();
        let one = "# spiffe://a/ns/b/sa/c\none\n";
        assert_eq!(pem(&chains, "spiffe://a/ns/b/sa/c").unwrap(), one);
        assert_eq!(pem(&chains, "a/ns/b/sa/c").unwrap(), one);
        assert!(pem(&chains, "").unwrap().ends_with("sa/d\ntwo\n"));
        let error = pem(&chains, "a/ns/b/sa").unwrap_err().to_string();
        assert!(error.contains("no certificate of a/ns/b/sa"), "{error}");
    }
}
