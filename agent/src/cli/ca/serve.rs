//! `ambit ca serve`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use ambit_ca::Lifetimes;
use ambit_ca::account::ServiceAccount;
use ambit_ca::rate_limit::RateLimit;
use ambit_ca::{CaServerConfig, PodSource, TokenSource};
use ambit_jwt::ExpectedToken;
use ambit_model::TrustDomain;
use ambit_observe::logging::{self, LogFormat};

/// The settings of `ambit ca serve`.
#[derive(clap::Args)]
pub(super) struct ServeArguments {
    /// The CA's files, in Istio's cacerts layout; read again when they change.
    #[arg(long, env = "AMBIT_CA_DIR")]
    dir: PathBuf,
    /// The mesh's SPIFFE trust domain.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_parser = TrustDomain::new)]
    trust_domain: TrustDomain,
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0:15012")]
    listen: SocketAddr,
    /// Where to answer GET /healthz over plain HTTP.
    #[arg(long)]
    health: Option<SocketAddr>,
    /// A DNS name or address of the server, for its own certificate. May be given several times.
    #[arg(long = "dns-name", value_parser = server_name, default_value = "ambit-ca.ambit-system.svc")]
    dns_names: Vec<ServerName<'static>>,
    /// How long certificates are valid at most, in seconds, whatever a caller asks for.
    #[arg(long, default_value = "86400")]
    max_lifetime: NonZeroU64,
    /// How long certificates are valid if a caller does not say, in seconds.
    #[arg(long, default_value = "86400")]
    default_lifetime: NonZeroU64,
    /// A service account of node agents, NAMESPACE/NAME: it may ask for the identities of pods on
    /// its own node. May be given several times.
    #[arg(long = "node-account")]
    node_accounts: Vec<ServiceAccount>,
    /// The required audience of tokens.
    #[arg(long, default_value = "istio-ca")]
    audience: String,
    /// A file with the cluster's JWKS, to check tokens without the API server; read again when it
    /// changes. A token is then good until it expires, even if its pod has ended.
    #[arg(long, requires = "issuer")]
    jwks: Option<PathBuf>,
    /// The issuer of the cluster's tokens, as they have it in `iss`.
    #[arg(long, requires = "jwks")]
    issuer: Option<String>,
    /// A directory of Kubernetes YAML that says where pods run, instead of the API server.
    #[arg(long, env = "AMBIT_CONFIG_DIR")]
    config_dir: Option<PathBuf>,
    /// How to reach the API server [default: as a pod of the cluster].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// How many certificates a caller may ask for in a burst.
    #[arg(long, default_value = "512")]
    burst: NonZeroU32,
    /// How many certificates a caller may ask for per second in the long run.
    #[arg(long, default_value = "10")]
    rate: NonZeroU32,
    /// What to log: a level, or a list of target=level. The audit log is always written.
    #[arg(long, env = "AMBIT_LOG", default_value = "info")]
    log: String,
    /// The format of log lines.
    #[arg(long, env = "AMBIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl ServeArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let _log = logging::init_audited(&self.log, self.log_format)?;
        ambit_ca::run(self.into())
    }
}

impl From<ServeArguments> for CaServerConfig {
    fn from(arguments: ServeArguments) -> Self {
        let audience = arguments.audience;
        // Each of the two requires the other.
        let tokens = match (arguments.jwks, arguments.issuer) {
            (Some(file), Some(issuer)) => TokenSource::Jwks {
                file,
                expected: ExpectedToken { issuer, audience },
            },
            _ => TokenSource::ApiServer { audience },
        };
        let seconds = |seconds: NonZeroU64| Duration::from_secs(seconds.get());
        Self {
            directory: arguments.dir,
            trust_domain: arguments.trust_domain,
            listen: arguments.listen,
            health: arguments.health,
            names: arguments.dns_names,
            lifetimes: Lifetimes {
                default: seconds(arguments.default_lifetime),
                longest: seconds(arguments.max_lifetime),
            },
            rate: RateLimit {
                burst: arguments.burst,
                per_second: arguments.rate,
            },
            node_accounts: arguments.node_accounts.into_iter().collect(),
            tokens,
            pods: arguments
                .config_dir
                .map_or(PodSource::ApiServer, PodSource::Files),
            kubeconfig: arguments.kubeconfig,
        }
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| format!("{text:?} is neither a DNS name nor an address"))
}
