//! The question on the command line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use ambit_input::without_mark;
use ambit_policy::explain::{
    AccessQuestion, CallerName, CallerTransport, DestinationName, HypotheticalRequest,
};

/// Whether a caller may reach a destination.
#[derive(clap::Args)]
pub(super) struct QuestionArguments {
    /// The caller: namespace/service-account, pod:namespace/name, an IP address, or a principal.
    #[arg(long)]
    from: CallerName,
    /// The caller's address, if --from is not one.
    #[arg(long, value_name = "IP")]
    from_address: Option<IpAddr>,
    /// In plaintext, without an identity.
    #[arg(long)]
    plaintext: bool,
    /// The destination: namespace/pod, service.namespace, an IP address, or, if a pod and a Service
    /// have the same name, pod:namespace/name or service:namespace/name.
    #[arg(long)]
    to: DestinationName,
    /// The pod's port, or the Service's.
    #[arg(long)]
    port: u16,
    /// The request's method [default: GET, if it has anything else].
    #[arg(long)]
    method: Option<String>,
    /// The request's path, with its query [default: /].
    #[arg(long)]
    path: Option<String>,
    /// The request's host [default: the destination's name].
    #[arg(long)]
    host: Option<String>,
    /// A header of the request. May be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A file with the request's token, or with its payload as JSON. It is not verified.
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
}

impl QuestionArguments {
    pub(super) fn question(&self) -> anyhow::Result<AccessQuestion> {
        Ok(AccessQuestion {
            from: self.from.clone(),
            from_address: self.from_address,
            transport: match self.plaintext {
                true => CallerTransport::Plaintext,
                false => CallerTransport::Tunnel,
            },
            to: self.to.clone(),
            port: self.port,
            request: self.request()?,
        })
    }

    fn request(&self) -> anyhow::Result<Option<HypotheticalRequest>> {
        let request = HypotheticalRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            claims: self.jwt.as_deref().map(claims_of_file).transpose()?,
        };
        Ok((request != HypotheticalRequest::default()).then_some(request))
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not a header; write name=value"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn claims_of_file(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the token {} cannot be read", path.display()))?;
    claims(without_mark(&text).trim()).with_context(|| format!("{} has no token", path.display()))
}

/// The payload of a token in the compact form (RFC 7519, section 3), or one that is written out.
fn claims(text: &str) -> anyhow::Result<Map<String, Value>> {
    let payload = match text.starts_with('{') {
        true => text.as_bytes().to_vec(),
        false => match text.split('.').collect::<Vec<_>>().as_slice() {
            [_, payload, _] => URL_SAFE_NO_PAD
                .decode(payload)
                .context("its payload is not base64url")?,
            _ => bail!("a token has three parts, separated by dots"),
        },
    };
    serde_json::from_slice(&payload).context("its payload is not a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_token_and_one_that_is_written_out_are_the_same() {
        let payload = r#"{"iss":"issuer","sub":"subject"}"#;
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let claims_of = |text: &str| claims(text).expect(text);
        assert_eq!(claims_of(&token), claims_of(payload));
        assert_eq!(claims_of(&token)["iss"], "issuer");
    }

    #[test]
    fn other_text_than_a_token_is_refused() {
        for text in ["", "abc", "a.b", "a.!.c", "a.e30", "[]", "{", "a.W10.c"] {
            claims(text).expect_err(text);
        }
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        assert_eq!(header("x-a=b=c"), Ok(("x-a".into(), "b=c".into())));
        header("x-a").expect_err("no value");
    }
}
