//! The URLs that keys are fetched from.

use std::fmt;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};

/// The path of an issuer's configuration (OpenID Connect Discovery, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Replaces the parts of a URL that are not shown.
const HIDDEN: char = '\u{2026}';

/// How much of a text that is not a URL is shown, in characters.
const MAX_SHOWN: usize = 256;

/// An absolute `http` or `https` URL without user information. Its query may be a secret: it is sent but
/// not shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl(Uri);

/// Why a text is not an [`HttpUrl`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HttpUrlError {
    /// Not an absolute URL.
    #[error("this is not an absolute URL; write it like https://issuer.example/jwks.json")]
    Malformed,
    /// Another scheme.
    #[error("the URL's scheme is not http or https; use https")]
    Scheme,
    /// User information before the host.
    #[error("the URL has user information before the host, which would not be sent; remove it")]
    UserInformation,
}

impl HttpUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`HttpUrlError`] if it is not absolute, or has another scheme or user information.
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

    /// The URL of the OpenID configuration of an issuer.
    ///
    /// # Errors
    /// [`HttpUrlError`] if the issuer is not a URL.
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

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(host)
    }

    /// The port, or the scheme's default.
    pub fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(default)
    }

    /// Host and port as written, for the Host header.
    pub fn authority(&self) -> &str {
        self.0
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// The request target.
    pub fn path_and_query(&self) -> &str {
        self.0.path_and_query().map_or("/", PathAndQuery::as_str)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.0.path())?;
        match self.0.query() {
            Some(_) => write!(f, "?{HIDDEN}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({self})")
    }
}

/// A text that should have been a URL, without the parts that may be secret: user information and the
/// query. Displays in quotes, with control characters escaped, and cut if it is long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Removes the parts of a text that may be secret. In doubt, more is removed.
    pub fn new(text: &str) -> Self {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (shown, hidden) = text.split_at(end);
        let (scheme, rest) = match shown.find("://") {
            Some(start) => shown.split_at(start + "://".len()),
            None => ("", shown),
        };
        let mut redacted = scheme.to_owned();
        match rest.rsplit_once('@') {
            Some((_, rest)) => redacted.extend([HIDDEN.to_string().as_str(), "@", rest]),
            None => redacted.push_str(rest),
        }
        if let Some((cut, _)) = redacted.char_indices().nth(MAX_SHOWN) {
            redacted.truncate(cut);
            redacted.push(HIDDEN);
        } else if !hidden.is_empty() {
            redacted.extend(hidden.chars().take(1).chain([HIDDEN]));
        }
        Self(redacted)
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_are_accepted() {
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
    fn what_may_be_a_secret_is_not_shown() {
        for (text, shown) in [
            (
                "https://i.example/keys?key=s3cret",
                "https://i.example/keys?\u{2026}",
            ),
            ("https://i.example?s3cret", "https://i.example/?\u{2026}"),
            ("http://[::1]:80/a/b", "http://[::1]:80/a/b"),
            ("https://i.example/keys#s3cret", "https://i.example/keys"),
        ] {
            let url = HttpUrl::parse(text).expect("a URL");
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("s3cret"), "{url:?}");
            assert!(url.path_and_query().contains("s3cret") == text.contains("?"));
        }
        for (text, shown) in [
            ("https://user:s3cret@host/", "\"https://\u{2026}@host/\""),
            ("https://user:s3c/ret@host/", "\"https://\u{2026}@host/\""),
            ("user:s3cret@host", "\"\u{2026}@host\""),
            ("ftp://host/a?s3cret@x", "\"ftp://host/a?\u{2026}\""),
            ("host#s3cret", "\"host#\u{2026}\""),
            ("a\u{1b}[2J\nb", "\"a\\u{1b}[2J\\nb\""),
            ("", "\"\""),
        ] {
            assert_eq!(RedactedUrl::new(text).to_string(), shown);
        }
        let long = RedactedUrl::new(&"\u{e9}".repeat(100_000)).to_string();
        assert!(long.len() < 4 * MAX_SHOWN, "{}", long.len());
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
