//! A handshake between two configurations, and a byte in each direction.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::verify::explain_handshake;
use crate::verify::peer_identity;
use ambit_model::WorkloadIdentity;

/// What both sides know about each other after the handshake.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) client: WorkloadIdentity,
    pub(super) server: WorkloadIdentity,
    pub(super) kind: HandshakeKind,
    pub(super) group: NamedGroup,
    /// Tickets from the server for later resumption.
    pub(super) tickets: u32,
}

pub(super) async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> io::Result<Met> {
    let (near, far) = duplex(64 * 1024);
    let accept = async {
        let mut tls = TlsAcceptor::from(server)
            .accept(far)
            .await
            .map_err(explain_handshake)?;
        tls.write_all(b"x").await?;
        tls.read_u8().await?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        peer_identity(chain).map_err(io::Error::other)
    };
    let connect = async {
        let name = ServerName::try_from("mesh.invalid").map_err(io::Error::other)?;
        let mut tls = TlsConnector::from(client)
            .connect(name, near)
            .await
            .map_err(explain_handshake)?;
        tls.read_u8().await?;
        tls.write_all(b"x").await?;
        let session = tls.get_ref().1;
        let identity = peer_identity(session.peer_certificates().unwrap_or_default());
        let kind = session.handshake_kind().ok_or(io::ErrorKind::Other)?;
        let group = session
            .negotiated_key_exchange_group()
            .map(|group| group.name());
        let group = group.ok_or(io::ErrorKind::Other)?;
        let tickets = session.tls13_tickets_received();
        io::Result::Ok((identity.map_err(io::Error::other)?, kind, group, tickets))
    };
    let (client, met) = tokio::join!(accept, connect);
    let (client, (server, kind, group, tickets)) = match (client, met) {
        (Ok(client), Ok(met)) => (client, met),
        // One side refused; the other received an alert.
        (Err(why), Err(told)) if told.to_string().contains("alert") => return Err(why),
        (_, Err(why)) | (Err(why), _) => return Err(why),
    };
    Ok(Met {
        client,
        server,
        kind,
        group,
        tickets,
    })
}
