//! The head of a request, as policy judges it and as the application gets it.

use http::uri::Scheme;
use http::{HeaderMap, Method, Version};

/// A request's head. What the gate leaves in it is what is sent.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// `:scheme`; `None` in HTTP/1.
    pub scheme: Option<Scheme>,
    /// `:authority`, the authority of an absolute target, or Host, as it came, with its port. Empty
    /// only where an HTTP/1.0 request has none.
    pub authority: String,
    /// The path and query as they came (with the fragment, in HTTP/1), or `*`.
    pub target: String,
    /// The headers without Host, which is [`RequestHead::authority`], and without what concerns one
    /// connection only. Content-Length and Transfer-Encoding are there to be judged; what is sent
    /// follows the request's framing, whatever becomes of them here.
    pub headers: HeaderMap,
    /// The version that the client speaks.
    pub version: Version,
}
