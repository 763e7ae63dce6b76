//! From a URL to keys.

use std::time::Duration;

use serde::Deserialize;

use super::fetch::{Fetch, FetchError};
use super::turns::FetchTurn;
use crate::key_set::KeySet;
use ambit_policy::{HttpUrl, Jwks, JwksError, KeyUrl, RedactedUrl};

/// Why there are no keys. Displays as the end of a sentence.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nothing came.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Nothing came in time.
    #[error("there was no answer within {0:?}; see whether the node reaches the host")]
    TooSlow(Duration),
    /// What came are no keys.
    #[error("what came is of no use: {0}")]
    Unusable(#[from] JwksError),
    /// The OpenID configuration is of no use.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

/// Why an OpenID configuration does not lead to keys.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No JSON, or without `jwks_uri`.
    #[error("it is no OpenID configuration with a \"jwks_uri\"; set jwksUri in the policy")]
    Malformed,
    /// Not an absolute URL.
    #[error("its \"jwks_uri\" {0} is no URL that is fetched; set jwksUri in the policy")]
    NoUrl(RedactedUrl),
    /// The keys would come without TLS where the configuration came with it.
    #[error("its \"jwks_uri\" {0} is not https as it is itself; set jwksUri in the policy")]
    Downgrade(HttpUrl),
}

/// The part of an OpenID configuration that matters (OpenID Connect Discovery, section 3).
#[derive(Deserialize)]
struct Configuration {
    jwks_uri: String,
}

/// Fetches keys.
pub(super) async fn obtain(
    fetcher: &dyn Fetch,
    url: &KeyUrl,
    turn: &FetchTurn,
) -> Result<KeySet, KeyError> {
    let keys = match url {
        KeyUrl::Keys(url) => fetcher.fetch(url, turn).await?,
        KeyUrl::Configuration(url) => {
            let url = key_url(url, &fetcher.fetch(url, turn).await?)?;
            fetcher.fetch(&url, turn).await?
        }
    };
    Ok(KeySet::new(&Jwks::parse(&keys)?))
}

fn key_url(from: &HttpUrl, configuration: &[u8]) -> Result<HttpUrl, DiscoveryError> {
    let Configuration { jwks_uri } =
        serde_json::from_slice(configuration).map_err(|_| DiscoveryError::Malformed)?;
    let Ok(url) = HttpUrl::parse(&jwks_uri) else {
        return Err(DiscoveryError::NoUrl(RedactedUrl::new(&jwks_uri)));
    };
    if from.is_https() && !url.is_https() {
        return Err(DiscoveryError::Downgrade(url));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_leads_to_keys_but_not_out_of_tls() {
        let (plain, tls) = ("http://issuer/", "https://issuer/");
        let lead = |from: &str, configuration: &str| {
            let from = HttpUrl::parse(from).expect("a URL");
            key_url(&from, configuration.as_bytes()).map(|url| url.to_string())
        };
        let to = |url: &str| format!(r#"{{"issuer": "i", "jwks_uri": "{url}"}}"#);
        for (from, url) in [
            (tls, "https://other/k"),
            (plain, "https://o/k"),
            (plain, "http://o/k"),
        ] {
            assert_eq!(lead(from, &to(url)).expect("a URL"), url);
        }
        for (configuration, is_expected) in [
            (to("http://issuer/k"), "is not https as it is itself"),
            (to("/k"), "is no URL that is fetched"),
            (to("file:///k"), "is no URL that is fetched"),
            ("{}".to_owned(), "is no OpenID configuration"),
            ("<html>".to_owned(), "is no OpenID configuration"),
        ] {
            let error = lead(tls, &configuration).expect_err("no keys").to_string();
            assert!(error.contains(is_expected), "{error}");
        }
    }
}
