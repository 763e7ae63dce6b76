//! Who issues certificates: the options of `ambit run`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::run::IssuerConfig;
use ambit_identity::{CaAddress, IstioCaConfig};

/// The default directory of the embedded CA's files.
const DEFAULT_DIRECTORY: &str = "/var/lib/ambit/ca";

/// The embedded CA, or another one.
#[derive(clap::Args)]
#[command(next_help_heading = "Certificates")]
pub(super) struct IssuerArguments {
    /// The embedded CA's files, made at first start [default: /var/lib/ambit/ca].
    #[arg(long, env = "AMBIT_CA_DIR", conflicts_with = "ca_address")]
    ca_dir: Option<PathBuf>,
    /// A CA that speaks Istio's protocol, such as istiod, instead of the embedded one:
    /// https://HOST:PORT (default port 15012).
    #[arg(long, env = "AMBIT_CA_ADDRESS", requires = "ca_root")]
    ca_address: Option<CaAddress>,
    /// The roots (PEM) that the CA's own certificate must chain to.
    #[arg(long, env = "AMBIT_CA_ROOT", requires = "ca_address")]
    ca_root: Option<PathBuf>,
    /// The name that the CA's own certificate must have [default: the host of --ca-address].
    #[arg(long, env = "AMBIT_CA_SERVER_NAME", requires = "ca_address")]
    ca_server_name: Option<String>,
    /// The agent's token for the CA.
    #[arg(
        long,
        env = "AMBIT_CA_TOKEN",
        default_value = "/var/run/secrets/tokens/istio-token"
    )]
    ca_token: PathBuf,
    /// The cluster's name, as the CA knows it.
    #[arg(long, env = "AMBIT_CLUSTER_ID", default_value = "Kubernetes")]
    cluster_id: String,
    /// The mesh's roots (PEM) [default: those of the CA's latest answer].
    #[arg(long, env = "AMBIT_TRUST_ROOTS", requires = "ca_address")]
    trust_roots: Option<PathBuf>,
    /// How long certificates are valid, in seconds.
    #[arg(long, env = "AMBIT_CERTIFICATE_LIFETIME", default_value_t = 86_400,
          value_parser = clap::value_parser!(u64).range(2..=31_536_000))]
    certificate_lifetime: u64,
}

impl IssuerArguments {
    /// How long certificates are valid.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.certificate_lifetime)
    }

    /// Who issues them.
    ///
    /// # Errors
    /// If `--ca-server-name` is not a name.
    pub(super) fn authority(self) -> anyhow::Result<IssuerConfig> {
        let (Some(address), Some(root)) = (self.ca_address, self.ca_root) else {
            let directory = self.ca_dir.unwrap_or_else(|| DEFAULT_DIRECTORY.into());
            return Ok(IssuerConfig::Embedded { directory });
        };
        let address = match self.ca_server_name {
            Some(name) => address.verified_as(&name).context("--ca-server-name")?,
            None => address,
        };
        Ok(IssuerConfig::Istio(IstioCaConfig {
            address,
            root,
            token: self.ca_token,
            cluster_id: self.cluster_id,
            trust_roots: self.trust_roots,
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        ca: IssuerArguments,
    }

    fn parse(arguments: &[&str]) -> Result<IssuerConfig, String> {
        let parsed = Command::try_parse_from(std::iter::once(&"ambit").chain(arguments));
        let authority = parsed.map_err(|error| error.to_string())?.ca.authority();
        authority.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_embedded_ca_is_the_default() {
        let IssuerConfig::Embedded { directory } = parse(&[]).unwrap() else {
            panic!("another CA")
        };
        assert_eq!(directory, PathBuf::from(DEFAULT_DIRECTORY));
    }

    #[test]
    fn another_ca_comes_with_its_root_and_excludes_the_embedded_one() {
        let other = ["--ca-address", "https://istiod", "--ca-root", "/root.pem"];
        assert!(matches!(parse(&other), Ok(IssuerConfig::Istio(_))));
        assert!(parse(&other[..2]).unwrap_err().contains("--ca-root"));
        assert!(parse(&other[2..]).unwrap_err().contains("--ca-address"));
        let both = [&other[..], &["--ca-dir", "/ca"]].concat();
        assert!(parse(&both).unwrap_err().contains("cannot be used with"));
        let plain = ["--ca-address", "http://istiod", "--ca-root", "/root.pem"];
        assert!(parse(&plain).unwrap_err().contains("over TLS only"));
    }
}
