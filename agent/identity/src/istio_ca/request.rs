//! A request for a certificate, and its way to the authority.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::config::IstioCaConfig;
use super::connection::CaConnection;
use super::failure::of_call;
use crate::provider::IssueFailure;
use ambit_ca_protocol::{
    CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Struct,
};
use ambit_input::without_mark;
use ambit_model::WorkloadIdentity;

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// How long the authority is told that it has.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is asked for an identity.
///
/// # Errors
/// Where the request cannot be signed.
pub(super) fn message(
    identity: &WorkloadIdentity,
    key: &KeyPair,
    lifetime: Duration,
) -> Result<CertificateRequest, rcgen::Error> {
    let id = identity.spiffe_id();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    Ok(CertificateRequest {
        csr: params.serialize_request(key)?.pem()?,
        validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(Struct::with_string(IMPERSONATED_IDENTITY, id)),
    })
}

/// Sends a request, with the agent's token.
///
/// # Errors
/// [`IssueFailure`].
pub(super) async fn send(
    config: &IstioCaConfig,
    connection: &CaConnection,
    message: CertificateRequest,
) -> Result<CertificateResponse, IssueFailure> {
    let mut called = attempt(config, connection, &message).await?;
    if called.as_ref().is_err_and(is_of_transport) {
        // It may have ended of old age before this request came to it.
        connection.give_up().await;
        called = attempt(config, connection, &message).await?;
    }
    if called.is_err() {
        connection.give_up().await;
    }
    called.map_err(|status| of_call(config, &status))
}

async fn attempt(
    config: &IstioCaConfig,
    connection: &CaConnection,
    message: &CertificateRequest,
) -> Result<Result<CertificateResponse, Status>, IssueFailure> {
    let channel = connection.channel(config).await?;
    let request = authorized(config, message.clone()).await?;
    Ok(call(channel, request).await)
}

/// Whether a call failed on this side, for want of a connection: the authority said nothing.
fn is_of_transport(status: &Status) -> bool {
    status
        .source()
        .is_some_and(|cause| cause.is::<tonic::transport::Error>())
}

async fn authorized(
    config: &IstioCaConfig,
    message: CertificateRequest,
) -> Result<Request<CertificateRequest>, IssueFailure> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    let cluster = config.cluster_id.parse().map_err(|_| {
        let id = &config.cluster_id;
        IssueFailure::Unavailable(format!("{id:?} is no name of a cluster (--cluster-id)"))
    })?;
    let metadata = request.metadata_mut();
    metadata.insert("clusterid", cluster);
    metadata.insert("authorization", bearer(&config.token).await?);
    Ok(request)
}

/// The agent's token, read anew.
async fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, IssueFailure> {
    let unusable = |problem: &str| {
        let path = path.display();
        IssueFailure::Unavailable(format!(
            "there is no token for the CA in {path} (--ca-token): {problem}; mount a service \
             account token of the audience istio-ca there"
        ))
    };
    let token = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| unusable(&error.to_string()))?;
    let token = without_mark(&token).trim();
    if token.is_empty() {
        return Err(unusable("the file is empty"));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| unusable("it has characters that a token does not have"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn call(
    channel: Channel,
    request: Request<CertificateRequest>,
) -> Result<CertificateResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    Ok(client.unary(request, path, codec).await?.into_inner())
}
