//! An HBONE client that sends whatever it is told, right or wrong.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::impostor::Credentials;
use crate::place::Place;
use crate::process::output;
use crate::server::tool;

/// The call that a `lab-hbone` makes.
#[derive(Clone, Debug)]
pub struct HboneCall<'a> {
    /// The tunnel's destination.
    pub to: SocketAddr,
    /// The credentials; none if `None`.
    pub credentials: Option<&'a Credentials>,
    /// The request's method.
    pub method: &'a str,
    /// The request's authority.
    pub authority: &'a str,
    /// More headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// What it sends through the tunnel.
    pub data: TunnelData<'a>,
}

/// What a call sends through its tunnel. After it, the client ends its side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelData<'a> {
    /// `GET /`, after the answer to the CONNECT.
    Request,
    /// This, right behind the CONNECT.
    Early(&'a str),
}

/// Its result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HboneReply {
    /// The tunnel could not be established: TCP, TLS or HTTP/2 failed.
    NoTunnel(String),
    /// A status, and the JSON that the application answered through the tunnel.
    Status(u16, Value),
}

impl<'a> HboneCall<'a> {
    /// A CONNECT without more headers.
    pub fn connect(to: SocketAddr, credentials: &'a Credentials, authority: &'a str) -> Self {
        Self {
            to,
            credentials: Some(credentials),
            method: "CONNECT",
            authority,
            headers: &[],
            data: TunnelData::Request,
        }
    }

    /// Makes the call from somewhere.
    ///
    /// # Errors
    ///
    /// If the client cannot be run or does not end.
    pub fn make(&self, from: &Place) -> Result<HboneReply> {
        let told = json!({
            "to": self.to.to_string(),
            "certificate": self.credentials.map(|own| &own.certificate),
            "key": self.credentials.map(|own| &own.key),
            "method": self.method,
            "authority": self.authority,
            "headers": self.headers,
            "early": match self.data {
                TunnelData::Request => None,
                TunnelData::Early(data) => Some(data),
            },
        });
        let outcome = output(from.command(tool("lab-hbone")?)?.arg(told.to_string()))?;
        ensure!(outcome.status.success(), "lab-hbone: {}", outcome.stderr);
        let said: Value = serde_json::from_str(&outcome.stdout)?;
        Ok(match said["status"].as_u64() {
            Some(status) => HboneReply::Status(status.try_into()?, said["answer"].clone()),
            None => {
                let failure = said["failure"].as_str();
                HboneReply::NoTunnel(failure.context("neither status nor failure")?.to_owned())
            }
        })
    }
}
