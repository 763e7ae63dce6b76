use std::collections::BTreeMap;

use prost::Message;

/// `envoy.service.auth.v3.CheckRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) attributes: Option<AttributeContext>,
}

/// `envoy.service.auth.v3.AttributeContext`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::authorizer) destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::authorizer) request: Option<Request>,
}

/// `envoy.service.auth.v3.AttributeContext.Peer`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct Peer {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) address: Option<Address>,
    #[prost(string, tag = "4")]
    pub(in crate::authorizer) principal: String,
}

/// `envoy.config.core.v3.Address`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`; its `protocol` is TCP, the default.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct SocketAddress {
    #[prost(string, tag = "2")]
    pub(in crate::authorizer) address: String,
    /// Of a `oneof`, so that it is sent even where it is 0.
    #[prost(uint32, optional, tag = "3")]
    pub(in crate::authorizer) port_value: Option<u32>,
}

/// `envoy.service.auth.v3.AttributeContext.Request`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) time: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::authorizer) http: Option<HttpRequest>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::authorizer) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(in crate::authorizer) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(in crate::authorizer) nanos: i32,
}

/// `envoy.service.auth.v3.AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct HttpRequest {
    #[prost(string, tag = "1")]
    pub(in crate::authorizer) id: String,
    #[prost(string, tag = "2")]
    pub(in crate::authorizer) method: String,
    /// Names in lower case; the values of one name joined.
    #[prost(btree_map = "string, string", tag = "3")]
    pub(in crate::authorizer) headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(in crate::authorizer) path: String,
    #[prost(string, tag = "5")]
    pub(in crate::authorizer) host: String,
    #[prost(string, tag = "6")]
    pub(in crate::authorizer) scheme: String,
    /// Bytes of the body; -1 where nobody knows.
    #[prost(int64, tag = "9")]
    pub(in crate::authorizer) size: i64,
    #[prost(string, tag = "10")]
    pub(in crate::authorizer) protocol: String,
    #[prost(string, tag = "11")]
    pub(in crate::authorizer) body: String,
    #[prost(bytes = "bytes", tag = "12")]
    pub(in crate::authorizer) raw_body: bytes::Bytes,
}
