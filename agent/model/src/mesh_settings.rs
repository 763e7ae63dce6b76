//! The settings that Ambit reads from Istio's `MeshConfig`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// Mesh-wide settings. The default is what Istio does without a `MeshConfig`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MeshSettings {
    /// `pathNormalization.normalization`.
    pub path_normalization: PathNormalization,
    /// The authorizers among `extensionProviders`, by name.
    pub extension_providers: BTreeMap<Arc<str>, Arc<ExtensionProvider>>,
}

/// How a request's path is normalised before policies see it and before it is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathNormalization {
    /// `NONE`: it is not.
    None,
    /// `BASE`, `DEFAULT`: by RFC 3986, section 6.2.2, and `\` becomes `/`.
    #[default]
    Base,
    /// `MERGE_SLASHES`: as [`Self::Base`], and `//` becomes `/`.
    MergeSlashes,
    /// `DECODE_AND_MERGE_SLASHES`: as [`Self::MergeSlashes`], with `%2f` and `%5c` decoded first.
    DecodeAndMergeSlashes,
}

/// An external authorizer, which CUSTOM policies name.
#[derive(Clone, PartialEq, Debug)]
pub struct ExtensionProvider {
    /// `name`.
    pub name: Arc<str>,
    /// `service` and `port`.
    pub service: ProviderService,
    /// `timeout`: how long one check may take. Istio's default is ten minutes.
    pub timeout: Duration,
    /// What happens to a request if the authorizer does not answer.
    pub on_error: OnError,
    /// `includeRequestBodyInCheck`; without it no body is sent.
    pub request_body: Option<BodyInCheck>,
    /// The authorizer's protocol.
    pub api: AuthorizerApi,
}

/// Where an authorizer is: `[<namespace>/]<host>`, and the port of the Service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ProviderService {
    /// The namespace in whose registry the host is looked up.
    pub namespace: Option<Arc<str>>,
    /// A name such as `authz.tools.svc.cluster.local`.
    pub host: Arc<str>,
    /// The port, 1 to 65535.
    pub port: u16,
}

/// What happens to a request if the authorizer does not answer. A denial is an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// `failOpen: false`: it is refused with `statusOnError`, 403 by default.
    Refuse(StatusCode),
    /// `failOpen: true`: it is let through.
    LetThrough,
}

/// How much of a request's body the authorizer sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyInCheck {
    /// `maxRequestBytes`, at least 1.
    pub max_bytes: u32,
    /// What happens if the body is longer.
    pub excess: BodyExcess,
    /// How gRPC carries it.
    pub encoding: BodyEncoding,
}

/// What happens to a request whose body is longer than the authorizer may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyExcess {
    /// `allowPartialMessage: false`: it is refused with 413, whatever `failOpen` says.
    Refuse,
    /// `allowPartialMessage: true`: the authorizer sees the beginning.
    Cut,
}

/// The field of a gRPC check that has the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEncoding {
    /// `packAsBytes: false`: `body`, as text.
    Text,
    /// `packAsBytes: true`: `raw_body`.
    Bytes,
}

/// The protocol of an authorizer.
#[derive(Clone, PartialEq, Debug)]
pub enum AuthorizerApi {
    /// `envoyExtAuthzGrpc`: `envoy.service.auth.v3.Authorization`.
    Grpc,
    /// `envoyExtAuthzHttp`: plain requests.
    Http(HttpApi),
}

/// What an HTTP authorizer receives, and what is taken from its answers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HttpApi {
    /// `pathPrefix`: comes before the request's path; empty, or begins with `/`.
    pub path_prefix: String,
    /// `includeRequestHeadersInCheck`.
    pub request_headers: Vec<HeaderPattern>,
    /// `includeAdditionalHeadersInCheck`.
    pub additional_headers: Vec<(HeaderName, HeaderValue)>,
    /// `headersToUpstreamOnAllow`.
    pub to_upstream_on_allow: Vec<HeaderPattern>,
    /// `headersToDownstreamOnDeny`; if it is empty, all headers.
    pub to_downstream_on_deny: Vec<HeaderPattern>,
    /// `headersToDownstreamOnAllow`.
    pub to_downstream_on_allow: Vec<HeaderPattern>,
}

/// A pattern for names of headers: `abc`, `abc*` or `*abc`, without regard to case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderPattern {
    /// This name.
    Exact(HeaderName),
    /// Names that begin with this, in lower case.
    Prefix(String),
    /// Names that end with this, in lower case.
    Suffix(String),
}

/// The text is not a [`HeaderPattern`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not the name of a header; write abc, abc* or *abc")]
pub struct HeaderPatternError(String);

impl MeshSettings {
    /// The authorizer of this name.
    pub fn extension_provider(&self, name: &str) -> Option<&Arc<ExtensionProvider>> {
        self.extension_providers.get(name)
    }
}

impl HeaderPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`HeaderPatternError`] if no header can have this name, and for `*`, which Istio does not accept here.
    pub fn new(text: &str) -> Result<Self, HeaderPatternError> {
        let refused = || HeaderPatternError(text.to_owned());
        let name = |part: &str| HeaderName::from_bytes(part.as_bytes()).map_err(|_| refused());
        let part = |part: &str| Ok(name(part)?.as_str().to_owned());
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(suffix), _) => part(suffix).map(Self::Suffix),
            (None, Some(prefix)) => part(prefix).map(Self::Prefix),
            (None, None) => name(text).map(Self::Exact),
        }
    }

    /// Whether the pattern matches a name.
    pub fn matches(&self, name: &HeaderName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
            Self::Suffix(suffix) => name.as_str().ends_with(suffix.as_str()),
        }
    }

    /// Whether the pattern matches a name, or one that an application may confuse with it.
    pub fn resembles(&self, name: &HeaderName) -> bool {
        let name = folded(name.as_str());
        match self {
            Self::Exact(exact) => name == folded(exact.as_str()),
            Self::Prefix(prefix) => name.starts_with(&folded(prefix)),
            Self::Suffix(suffix) => name.ends_with(&folded(suffix)),
        }
    }
}

/// The name of a header in the form in which CGI and WSGI turn it into a variable, but in lower case and
/// with `-` for every other character. Two headers with the same folded name may be one header to an
/// application: all servers of this kind fold `-` and `_`, and some fold every character that is not a
/// letter or a digit.
pub fn folded(name: &str) -> String {
    let fold = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte.to_ascii_lowercase()),
        false => '-',
    };
    name.bytes().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_whatever_their_case() {
        for (pattern, matching, other) in [
            ("X-User", "x-user", "x-user-id"),
            ("X-*", "x-user", "ax-user"),
            ("*-ID", "user-id", "user-id-2"),
            ("x-user*", "x-user", "x-use"),
        ] {
            let parsed = HeaderPattern::new(pattern).expect(pattern);
            assert!(
                parsed.matches(&HeaderName::from_static(matching)),
                "{pattern}"
            );
            assert!(
                !parsed.matches(&HeaderName::from_static(other)),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_pattern_resembles_names_that_an_application_may_confuse() {
        for (pattern, alike, other) in [
            ("X-User", "x_user", "x_user_id"),
            ("x-auth-*", "x_auth-user", "x_aut"),
            ("*-id", "user_id", "userid"),
            ("x_a*", "x-ab", "x-b"),
        ] {
            let parsed = HeaderPattern::new(pattern).expect(pattern);
            assert!(
                parsed.resembles(&HeaderName::from_static(alike)),
                "{pattern}"
            );
            assert!(
                !parsed.matches(&HeaderName::from_static(alike)),
                "{pattern}"
            );
            assert!(
                !parsed.resembles(&HeaderName::from_static(other)),
                "{pattern}"
            );
        }
    }

    #[test]
    fn names_that_no_header_can_have_are_refused() {
        for text in ["", "*", ":path", "a b", "x:*", "ü"] {
            assert!(HeaderPattern::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_that_make_one_variable_fold_to_the_same() {
        for name in [
            "X-Auth-User",
            "x_auth_user",
            "x-auth_user",
            "X.Auth.User",
            "x!auth~user",
        ] {
            assert_eq!(folded(name), "x-auth-user", "{name}");
        }
        assert_ne!(folded("xauth-user"), folded("x-auth-user"));
    }
}
