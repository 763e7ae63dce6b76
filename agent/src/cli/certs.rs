//! `ambit certs`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::output::{Format, Output};
use super::show::ask;

/// Where to ask, and what to print.
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
            let chains = ask(&self.socket, "certificate-chains")?;
            return Output::lines(pem(&chains, identity)?.lines()).print();
        }
        let answer = ask(&self.socket, "certificates")?;
        let shown = match self.output {
            Format::Table => rows(&answer),
            Format::Json | Format::Yaml => answer,
        };
        Output::of(&shown, self.output)?.print()
    }
}

/// The chains of one identity, or of all, each under the name of its identity.
fn pem(chains: &Value, identity: &str) -> anyhow::Result<String> {
    let wanted = identity.strip_prefix("spiffe://").unwrap_or(identity);
    let chains = chains
        .as_array()
        .context("the agent did not answer with a list")?;
    let mut text = String::new();
    for chain in chains {
        let (Some(name), Some(pem)) = (chain["identity"].as_str(), chain["pem"].as_str()) else {
            continue;
        };
        if wanted.is_empty() || wanted == name {
            text.push_str(&format!("# spiffe://{name}\n{pem}"));
        }
    }
    if text.is_empty() && !wanted.is_empty() {
        bail!("this node has no certificate of {wanted}; `ambit certs` lists those that it has");
    }
    Ok(text)
}

/// The columns for people.
fn rows(certificates: &Value) -> Value {
    let rows = certificates.as_array().into_iter().flatten().map(|one| {
        let mut row = Map::new();
        let mut column = |name: &str, value: Value| row.insert(name.to_owned(), value);
        column("identity", one["identity"].clone());
        column("state", one["state"].clone());
        column("serial", one["serial"].clone());
        column("valid_from", moment(&one["not_before"]));
        column("valid_until", moment(&one["not_after"]));
        column("issuer", one["issuer"].clone());
        column("next_renewal", moment(&one["renews_at"]));
        Value::Object(row)
    });
    rows.collect()
}

/// Seconds since 1970 in RFC 3339.
fn moment(seconds: &Value) -> Value {
    let moment = seconds
        .as_i64()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map_or(Value::Null, |moment| json!(moment.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn people_read_dates() {
        let certificates = json!([
            {"identity": "a/ns/b/sa/c", "state": "valid", "serial": "0a", "not_before": 0,
             "not_after": 86400, "issuer": "CN=root", "renews_at": 43200, "error": null,
             "chain": []},
            {"identity": "a/ns/b/sa/d", "state": "pending", "serial": null, "not_before": null,
             "not_after": null, "issuer": null, "renews_at": null, "error": null, "chain": []},
        ]);
        let text = table(&rows(&certificates)).join("\n");
        assert!(
            text.contains("VALID UNTIL") && text.contains("NEXT RENEWAL"),
            "{text}"
        );
        assert!(text.contains("1970-01-02T00:00:00Z"), "{text}");
        assert!(text.lines().last().unwrap().contains("pending"), "{text}");
    }

    #[test]
    fn chains_are_found_by_either_form_of_a_name() {
        let chains = json!([
            {"identity": "a/ns/b/sa/c", "pem": "one\n"},
            {"identity": "a/ns/b/sa/d", "pem": "two\n"},
        ]);
        let one = "# spiffe://a/ns/b/sa/c\none\n";
        assert_eq!(pem(&chains, "spiffe://a/ns/b/sa/c").unwrap(), one);
        assert_eq!(pem(&chains, "a/ns/b/sa/c").unwrap(), one);
        assert!(pem(&chains, "").unwrap().ends_with("sa/d\ntwo\n"));
        let error = pem(&chains, "a/ns/b/sa").unwrap_err().to_string();
        assert!(error.contains("no certificate of a/ns/b/sa"), "{error}");
    }
}
