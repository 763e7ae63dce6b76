//! Assembles the CA from its settings, and runs it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::account::ServiceAccount;
use super::audit::Audit;
use super::caller::{JwksFile, OfflineReviewer, OnlineReviewer, TokenReviewer};
use super::pods::{PodDirectory, follow_cluster, follow_files};
use super::server::{CaServer, ServerCertificate, serve_health};
use super::service::CertificateService;
use crate::issuance::IssuancePolicy;
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::service::Lifetimes;
use ambit_authority::AuthorityFiles;
use ambit_daemon::descriptors::DescriptorLimit;
use ambit_daemon::signals;
use ambit_jwt::ExpectedToken;
use ambit_model::TrustDomain;

/// How often the CA's files are read.
const LOOK: Duration = Duration::from_secs(5);

/// The CA's settings.
#[derive(Clone, Debug)]
pub struct CaServerConfig {
    /// The directory of the CA's files.
    pub directory: PathBuf,
    /// The trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The address to answer health probes on, if any.
    pub health: Option<SocketAddr>,
    /// The names in the server's own certificate.
    pub names: Vec<ServerName<'static>>,
    /// How long issued certificates are valid.
    pub lifetimes: Lifetimes,
    /// The rate limit of each caller.
    pub rate: RateLimit,
    /// The service accounts of node agents.
    pub node_accounts: BTreeSet<ServiceAccount>,
    /// What checks callers' tokens.
    pub tokens: TokenSource,
    /// Where to learn which pods run where.
    pub pods: PodSource,
    /// How to reach the API server, if it is needed. `None`: as a pod of the cluster.
    pub kubeconfig: Option<PathBuf>,
}

/// What checks callers' tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenSource {
    /// The API server.
    ApiServer {
        /// The audience that tokens must be for.
        audience: String,
    },
    /// The cluster's public keys in a file.
    Jwks {
        /// The path of the file, a JWKS.
        file: PathBuf,
        /// The issuer and audience that tokens must have.
        expected: ExpectedToken,
    },
}

/// Where to learn which pods run where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PodSource {
    /// The API server.
    ApiServer,
    /// A directory of Kubernetes YAML.
    Files(PathBuf),
}

/// Tasks that must run while the CA serves.
type Background = JoinSet<()>;

/// Serves until the process receives SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start. The error says what to do.
pub fn run(config: CaServerConfig) -> Result<()> {
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("ambit-ca")
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: CaServerConfig) -> Result<()> {
    let files = AuthorityFiles::follow(&config.directory, &config.trust_domain, LOOK)?;
    let mut background = Background::new();
    let client = match (&config.tokens, &config.pods) {
        (TokenSource::Jwks { .. }, PodSource::Files(_)) => None,
        _ => Some(client(config.kubeconfig.as_deref()).await?),
    };
    let pods = PodDirectory::default();
    follow_pods(&config, client.clone(), &pods, &mut background)?;
    let certificate = Arc::new(ServerCertificate::new(
        files.subscribe(),
        config.names.clone(),
        config.lifetimes.longest,
    )?);
    let service = Arc::new(CertificateService {
        reviewer: reviewer(&config.tokens, client)?,
        authorization: IssuancePolicy {
            trust_domain: config.trust_domain.clone(),
            node_accounts: config.node_accounts.clone(),
        },
        pods: pods.clone(),
        limits: RateLimiter::new(config.rate),
        lifetimes: config.lifetimes,
        authority: files.subscribe(),
        audit: Audit::default(),
    });
    let server = CaServer::bind(config.listen, &certificate, Arc::clone(&service)).await?;
    if let Some(address) = config.health {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("cannot listen on --health {address}"))?;
        background.spawn(serve_health(listener, pods, Arc::clone(&certificate)));
    }
    background.spawn(async move { certificate.follow().await });
    let end = signals::termination()?;
    tracing::info!(address = %server.address(), "the CA serves");
    tokio::select! {
        () = server.serve(end) => {}
        _ = background.join_next() => bail!("a task of the CA has ended; see its log"),
    }
    tracing::info!(counts = ?service.audit.counts(), "the CA ends");
    Ok(())
}

fn follow_pods(
    config: &CaServerConfig,
    client: Option<kube::Client>,
    pods: &PodDirectory,
    background: &mut Background,
) -> Result<()> {
    match (&config.pods, client) {
        (PodSource::Files(directory), _) => {
            let files = follow_files(directory, &config.trust_domain, pods.clone())?;
            background.spawn(files.follow());
        }
        (PodSource::ApiServer, Some(client)) => {
            background.spawn(follow_cluster(client, pods.clone()));
        }
        (PodSource::ApiServer, None) => bail!("the API server is needed but has no client"),
    }
    Ok(())
}

fn reviewer(tokens: &TokenSource, client: Option<kube::Client>) -> Result<TokenReviewer> {
    match (tokens, client) {
        (TokenSource::Jwks { file, expected }, _) => {
            let keys = JwksFile::follow(file)?;
            let reviewer = OfflineReviewer::new(expected.clone(), keys);
            Ok(TokenReviewer::Offline(reviewer))
        }
        (TokenSource::ApiServer { audience }, Some(client)) => {
            let reviewer = OnlineReviewer::new(client, audience.clone());
            Ok(TokenReviewer::Online(reviewer))
        }
        (TokenSource::ApiServer { .. }, None) => {
            bail!("the API server is needed but has no client")
        }
    }
}

async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let read = kube::config::Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {} cannot be used", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &Default::default()).await?
        }
        None => kube::Config::incluster().context(
            "the API server cannot be reached as a pod of the cluster; give --kubeconfig, or both \
             --jwks and --config-dir to do without it",
        )?,
    };
    kube::Client::try_from(config).context("the API server's client cannot be set up")
}

/// Each connection needs a file descriptor.
fn raise_descriptors() {
    let raised = DescriptorLimit::read().and_then(|limit| DescriptorLimit::raise_to(limit.hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "RLIMIT_NOFILE cannot be raised");
    }
}
