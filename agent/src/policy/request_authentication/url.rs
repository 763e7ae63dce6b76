//! Where keys are fetched from.

use std::fmt;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};

/// Where an issuer publishes its configuration: OpenID Connect Discovery, section 4.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An absolute `http` or `https` URL without user information.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpUrl(Uri);

/// Why a text is not such a URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HttpUrlError {
    /// Not an absolute URL.
    #[error("it is no absolute URL; write one such as https://issuer.example/jwks.json")]
    Malformed,
    /// Another scheme.
    #[error("its scheme is neither http nor https; use https")]
    Scheme,
    /// A user's name before the host.
    #[error("it has user information before the host, which would not be sent; remove it")]
    UserInformation,
}

impl HttpUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, HttpUrlError> {
        let uri: Uri = text.parse().map_err(|_| HttpUrlError::Malformed)?;
        let scheme = uri.scheme().ok_or(HttpUrlError::Malformed)?;
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(HttpUrlError::Scheme);
        }
        let authority = uri.authority().ok_or(HttpUrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(HttpUrlError::UserInformation);
        }
        let after_host = authority.as_str().strip_prefix(authority.host());
        let has_port = after_host != Some("");
        if authority.host().is_empty() || (has_port && uri.port_u16().is_none()) {
            return Err(HttpUrlError::Malformed);
        }
        Ok(Self(uri))
    }

    /// The URL of the OpenID configuration of an issuer, which is a URL.
    pub fn discovery_of(issuer: &str) -> Result<Self, HttpUrlError> {
        Self::parse(&format!(
            "{}{DISCOVERY}",
            issuer.strip_suffix('/').unwrap_or(issuer)
        ))
    }

    /// Whether it is fetched over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host: a name or an address, the latter without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(default)
    }

    /// Host and port as they are written: the Host header.
    pub fn authority(&self) -> &str {
        self.0
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// What is asked for.
    pub fn path_and_query(&self) -> &str {
        self.0.path_and_query().map_or("/", PathAndQuery::as_str)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_are_taken() {
        let url = HttpUrl::parse("https://issuer.example/keys?v=1").expect("a URL");
        assert!(url.is_https());
        assert_eq!((url.host(), url.port()), ("issuer.example", 443));
        assert_eq!(url.path_and_query(), "/keys?v=1");
        let url = HttpUrl::parse("http://[::1]:8080").expect("a URL");
        assert_eq!((url.host(), url.port()), ("::1", 8080));
        assert_eq!((url.authority(), url.path_and_query()), ("[::1]:8080", "/"));
        for (text, error) in [
            ("issuer.example", HttpUrlError::Malformed),
            ("/keys", HttpUrlError::Malformed),
            ("testing@secure.example", HttpUrlError::Malformed),
            ("", HttpUrlError::Malformed),
            ("https://", HttpUrlError::Malformed),
            ("https://host:99999/", HttpUrlError::Malformed),
            ("https://host /", HttpUrlError::Malformed),
            ("file:///etc/passwd", HttpUrlError::Malformed),
            ("ftp://host/keys", HttpUrlError::Scheme),
            ("https://user:word@host/", HttpUrlError::UserInformation),
        ] {
            assert_eq!(HttpUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_issuers_configuration_is_below_it() {
        for issuer in [
            "https://accounts.example/realm",
            "https://accounts.example/realm/",
        ] {
            assert_eq!(
                HttpUrl::discovery_of(issuer).expect("a URL").to_string(),
                "https://accounts.example/realm/.well-known/openid-configuration"
            );
        }
    }
}
