use bytes::Bytes;
use prost::Message;

/// `envoy.service.auth.v3.CheckResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::authorizer) denied_response: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::authorizer) ok_response: Option<OkHttpResponse>,
    /// The authorizer says that it failed.
    #[prost(message, optional, tag = "5")]
    pub(in crate::authorizer) error_response: Option<DeniedHttpResponse>,
}

/// `google.rpc.Status`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::authorizer) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(in crate::authorizer) code: i32,
}

/// `envoy.service.auth.v3.DeniedHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::authorizer) headers: Vec<HeaderValueOption>,
    #[prost(bytes = "bytes", tag = "3")]
    pub(in crate::authorizer) body: Bytes,
}

/// `envoy.type.v3.HttpStatus`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::authorizer) struct HttpStatus {
    #[prost(int32, tag = "1")]
    pub(in crate::authorizer) code: i32,
}

/// `envoy.service.auth.v3.OkHttpResponse`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    pub(in crate::authorizer) headers: Vec<HeaderValueOption>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(in crate::authorizer) headers_to_remove: Vec<Bytes>,
    #[prost(message, repeated, tag = "6")]
    pub(in crate::authorizer) response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(message, repeated, tag = "7")]
    pub(in crate::authorizer) query_parameters_to_set: Vec<QueryParameter>,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    pub(in crate::authorizer) query_parameters_to_remove: Vec<Bytes>,
}

/// `envoy.config.core.v3.QueryParameter`, of which it only counts that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::authorizer) struct QueryParameter {}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    pub(in crate::authorizer) header: Option<HeaderValue>,
    /// The former way to say what `append_action` says.
    #[prost(message, optional, tag = "2")]
    pub(in crate::authorizer) append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    pub(in crate::authorizer) append_action: i32,
}

/// `google.protobuf.BoolValue`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(in crate::authorizer) struct BoolValue {
    #[prost(bool, tag = "1")]
    pub(in crate::authorizer) value: bool,
}

/// `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, PartialEq, Message)]
pub(in crate::authorizer) struct HeaderValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(in crate::authorizer) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::authorizer) value: Bytes,
    /// Instead of `value`.
    #[prost(bytes = "bytes", tag = "3")]
    pub(in crate::authorizer) raw_value: Bytes,
}
