//! The messages of `envoy.service.auth.v3.Authorization`, as far as they are used.
//!
//! What an authorizer sends as text is taken as bytes: one that is no UTF-8 must not make the rest
//! of a denial unreadable. Fields of a `oneof` are separate, so that a message that has several is
//! seen as such.

mod attributes;
mod response;

pub(super) use attributes::{
    Address, AttributeContext, CheckRequest, HttpRequest, Peer, Request, SocketAddress, Timestamp,
};
#[cfg(test)]
pub(super) use response::{BoolValue, HeaderValue, HttpStatus, QueryParameter, RpcStatus};
pub(super) use response::{CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse};

/// Where the call is made.
pub(super) const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
