use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};

use ambit_model::WorkloadIdentity;

/// What an authorizer is asked about.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// The caller.
    pub source: CheckPeer<'a>,
    /// The pod that is called.
    pub destination: CheckPeer<'a>,
    /// The request; `None` for a connection that is not looked into.
    pub request: Option<CheckedRequest<'a>>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct CheckPeer<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// Its verified identity; `None` for plaintext.
    pub principal: Option<&'a WorkloadIdentity>,
}

/// A request, as it will be passed on.
#[derive(Clone, Debug)]
pub struct CheckedRequest<'a> {
    /// What tells this request from others, such as `x-request-id`.
    pub id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority`, or the Host header.
    pub authority: &'a str,
    /// The path, with the query.
    pub path: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
    /// The version in which it came.
    pub version: Version,
    /// The body as far as the provider may see it; `None` where it shall see none.
    pub body: Option<BodyPart>,
}

/// As much of a body as the provider may see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyPart {
    /// The bytes, at most `maxRequestBytes`.
    pub bytes: Bytes,
    /// Whether there is more.
    pub extent: BodyExtent,
}

/// How much of a body there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyExtent {
    /// All of it.
    Whole,
    /// The beginning.
    Beginning,
}

/// The header with which an authorizer is told whether it sees all of a body.
pub(super) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

impl BodyExtent {
    /// The value of the header [`PARTIAL_BODY`].
    pub(super) fn as_partial(self) -> &'static str {
        match self {
            Self::Whole => "false",
            Self::Beginning => "true",
        }
    }
}
