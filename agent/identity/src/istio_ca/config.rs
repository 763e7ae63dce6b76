//! The settings of the client, and the CA's address.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;

/// istiod's port for certificates over TLS.
const DEFAULT_PORT: u16 = 15012;

/// How to ask a CA that speaks Istio's protocol.
#[derive(Clone, Debug)]
pub struct IstioCaConfig {
    /// Where the CA is, and the name that it must prove.
    pub address: CaAddress,
    /// The roots of the CA's own certificate, in PEM. Read for each connection.
    pub root: PathBuf,
    /// The agent's token. Read for each request, since the kubelet replaces it.
    pub token: PathBuf,
    /// The cluster that the token belongs to.
    pub cluster_id: String,
    /// The mesh's roots in PEM. `None`: they are those of the CA's newest answer.
    pub trust_roots: Option<PathBuf>,
}

/// The address of a CA, `https://host:port`. Plaintext is not supported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaAddress {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// Why a text is not the address of a CA.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaAddressError {
    /// It is not a URL of that form.
    #[error("{0:?} is not of the form https://host:port")]
    Form(String),
    /// Its scheme is not `https`.
    #[error("{0:?} does not begin with https://: certificates are requested over TLS only")]
    NotHttps(String),
}

impl CaAddress {
    /// The host, resolved again for each connection. IPv6 addresses come without brackets.
    pub(super) fn host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as in a URL.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The name that the CA's certificate must contain.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// The same address, with another name for the CA to prove.
    ///
    /// # Errors
    /// [`CaAddressError::Form`] if it is not the name of a host.
    pub fn verified_as(self, name: &str) -> Result<Self, CaAddressError> {
        let name = server_name(name)?;
        Ok(Self { name, ..self })
    }
}

impl FromStr for CaAddress {
    type Err = CaAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || CaAddressError::Form(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| form())?;
        match uri.scheme_str() {
            Some("https") => {}
            Some(_) => return Err(CaAddressError::NotHttps(text.to_owned())),
            None => return Err(form()),
        }
        let authority = uri.authority().ok_or_else(form)?;
        let has_more = uri.query().is_some() || !matches!(uri.path(), "" | "/");
        if has_more || authority.as_str().contains('@') {
            return Err(form());
        }
        let host = authority.host().to_owned();
        Ok(Self {
            name: server_name(host.trim_matches(['[', ']'])).map_err(|_| form())?,
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            host,
        })
    }
}

impl fmt::Display for CaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, CaAddressError> {
    ServerName::try_from(name.to_owned()).map_err(|_| CaAddressError::Form(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_with_host_and_port_only() {
        let parsed: CaAddress = "https://istiod.istio-system.svc".parse().unwrap();
        assert_eq!(parsed.to_string(), "https://istiod.istio-system.svc:15012");
        let parsed: CaAddress = "https://[::1]:99/".parse().unwrap();
        assert_eq!((parsed.host(), parsed.port()), ("::1", 99));
        for text in [
            "istiod:15012",
            "https://a/b",
            "https://a?b",
            "https://u@a",
            "https://",
            "",
        ] {
            let error = CaAddress::from_str(text).unwrap_err();
            assert!(!error.to_string().is_empty(), "{text}");
        }
        let plain = CaAddress::from_str("http://istiod:15010");
        assert!(matches!(plain, Err(CaAddressError::NotHttps(_))));
    }

    #[test]
    fn the_verified_name_may_differ_from_the_host() {
        let parsed: CaAddress = "https://10.0.0.1:15012".parse().unwrap();
        let named = parsed
            .clone()
            .verified_as("istiod.istio-system.svc")
            .unwrap();
        assert_eq!(named.host(), "10.0.0.1");
        assert_ne!(named.server_name(), parsed.server_name());
        assert!(parsed.verified_as("no name").is_err());
    }
}
