//! Headers that an application is to get from an authorizer, and not from the client.
//!
//! Envoy lets a client's own header stand if the authorizer does not set it. Here it stands only if
//! the authorizer was shown it. What an application may take for such a header never does.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};

use super::http::is_shown;
use ambit_model::{AuthorizerApi, ExtensionProvider, HeaderPattern, HttpApi};

/// Takes out of a request, before it is shown to an authorizer, what only the authorizer may say and
/// would not see.
pub fn withhold_unseen(provider: &ExtensionProvider, headers: &mut HeaderMap) {
    if let AuthorizerApi::Http(api) = &provider.api {
        withhold(api, headers, |name| !is_shown(api, name));
    }
}

/// Takes out of a request what only the authorizer may say, if it was let through without an answer.
/// The client's own credentials stay: applications verify them.
pub fn withhold_unjudged(provider: &ExtensionProvider, headers: &mut HeaderMap) {
    if let AuthorizerApi::Http(api) = &provider.api {
        withhold(api, headers, |name| ![AUTHORIZATION, COOKIE].contains(name));
    }
}

/// Removes what looks like an output, and an output itself if it is named in full and `unvouched`. What
/// a pattern means may be a client's own, such as `x-request-id` for `x-*`.
fn withhold(api: &HttpApi, headers: &mut HeaderMap, unvouched: impl Fn(&HeaderName) -> bool) {
    let is_withheld = |name: &&HeaderName| {
        let name: &HeaderName = name;
        let mut means = false;
        let mut resembles = false;
        for pattern in &api.to_upstream_on_allow {
            let is_named = matches!(pattern, HeaderPattern::Exact(exact) if exact == name);
            if is_named && unvouched(name) {
                return true;
            }
            means |= pattern.matches(name);
            resembles |= pattern.resembles(name);
        }
        resembles && !means
    };
    let withheld: Vec<HeaderName> = headers.keys().filter(is_withheld).cloned().collect();
    for name in withheld {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;
    use ambit_model::{OnError, ProviderService};

    fn provider(shown: &[&str], outputs: &[&str]) -> ExtensionProvider {
        let patterns = |texts: &[&str]| {
            let pattern = |text: &&str| HeaderPattern::new(text).expect("a pattern");
            texts.iter().map(pattern).collect()
        };
        ExtensionProvider {
            name: "authz".into(),
            service: ProviderService {
                namespace: None,
                host: "authz".into(),
                port: 80,
            },
            timeout: Duration::from_secs(1),
            on_error: OnError::LetThrough,
            request_body: None,
            api: AuthorizerApi::Http(HttpApi {
                request_headers: patterns(shown),
                to_upstream_on_allow: patterns(outputs),
                ..HttpApi::default()
            }),
        }
    }

    /// What is left of headers with these names.
    fn left(
        withhold: fn(&ExtensionProvider, &mut HeaderMap),
        provider: &ExtensionProvider,
        names: &[&'static str],
    ) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("1"));
        }
        withhold(provider, &mut headers);
        let mut left: Vec<String> = headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .collect();
        left.sort();
        left
    }

    #[test]
    fn an_output_of_the_client_stands_only_if_the_authorizer_sees_it() {
        let names = ["x-user", "x_user", "authorization", "x-other"];
        let unseen = provider(&[], &["x-user", "authorization"]);
        let stands = left(withhold_unseen, &unseen, &names);
        assert_eq!(stands, ["authorization", "x-other"]);
        let seen = provider(&["x-user"], &["x-user", "authorization"]);
        let stands = left(withhold_unseen, &seen, &names);
        assert_eq!(stands, ["authorization", "x-other", "x-user"]);
        let stands = left(withhold_unjudged, &seen, &names);
        assert_eq!(stands, ["authorization", "x-other"]);
    }

    #[test]
    fn what_a_pattern_means_stands_and_what_looks_like_it_does_not() {
        let provider = provider(&[], &["x-*"]);
        let names = ["x-request-id", "x_user", "x-a_b", "y"];
        for withhold in [withhold_unseen, withhold_unjudged] {
            assert_eq!(
                left(withhold, &provider, &names),
                ["x-a_b", "x-request-id", "y"]
            );
        }
    }
}
