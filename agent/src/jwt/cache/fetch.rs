//! What fetching is, and which hosts it may reach.

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;

use crate::policy::HttpUrl;

/// The largest document that is fetched, in bytes.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

/// Gets small documents.
pub trait Fetch: Send + Sync + 'static {
    /// Gets a document. It follows no redirect, and waits without end: the caller has a clock.
    fn fetch<'a>(&'a self, url: &'a HttpUrl) -> BoxFuture<'a, Result<Bytes, FetchError>>;
}

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host has no address.
    #[error("the host's name does not resolve ({0}); see whether the node can resolve it")]
    Resolve(std::io::Error),
    /// All addresses are of the node itself or of its link.
    #[error(
        "the host is the node itself or on its link, where policies must not reach; serve the keys \
         elsewhere"
    )]
    Unreachable,
    /// No connection.
    #[error("the host does not accept a connection ({0}); see whether the node reaches it")]
    Connect(std::io::Error),
    /// No TLS.
    #[error(
        "TLS with the host failed ({0}); it has to speak TLS 1.3 and have a certificate that the \
         node's trusted authorities, or the configured ones, issued"
    )]
    Tls(std::io::Error),
    /// Not HTTP, or cut off.
    #[error("the answer is no complete HTTP/1.1 answer ({0})")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("the URL cannot be asked for ({0}); correct it in the policy")]
    Request(#[from] http::Error),
    /// A redirect, which is not followed.
    #[error("the answer is a redirect ({0}), which is not followed; set the URL it leads to")]
    Redirect(StatusCode),
    /// Another status than 200.
    #[error("the answer is {0}; see the host's own log")]
    Status(StatusCode),
    /// Too much came.
    #[error("the answer is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// The answer broke off.
    #[error("the answer broke off ({0})")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Which addresses may be asked. Whoever may write a policy in some namespace has the node send a
/// request to a URL, and the node reaches more than a pod does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// None of the node itself, and none of its link, such as a cloud's metadata.
    Routable,
    /// All.
    Any,
}

impl Addresses {
    pub(super) fn admits(self, address: IpAddr) -> bool {
        self == Self::Any || is_routable(address.to_canonical())
    }
}

fn is_routable(address: IpAddr) -> bool {
    let is_local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    let is_on_link = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets()[0] == 0
        }
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_local && !is_on_link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_does_not_reach_the_node_or_its_link() {
        let admitted = |text: &str| Addresses::Routable.admits(text.parse().expect("an address"));
        for text in [
            "10.0.0.1",
            "192.168.0.1",
            "1.1.1.1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(admitted(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!admitted(text), "{text}");
            assert!(Addresses::Any.admits(text.parse().expect("an address")));
        }
    }
}
