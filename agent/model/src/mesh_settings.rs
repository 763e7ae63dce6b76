//! What Ambit takes from Istio's `MeshConfig`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// Mesh-wide settings (Istio's `MeshConfig`). The default is what Istio does without one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct MeshSettings {
    /// `pathNormalization.normalization`.
    pub path_normalization: PathNormalization,
    /// Those of `extensionProviders` that authorize, by name.
    pub extension_providers: BTreeMap<Arc<str>, Arc<ExtensionProvider>>,
}

/// How a request's path is brought into one form before policies see it and before it is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathNormalization {
    /// `NONE`: not at all.
    None,
    /// `BASE`, `DEFAULT`: RFC 3986, section 6.2.2, and `\` as `/`.
    #[default]
    Base,
    /// `MERGE_SLASHES`: as [`Self::Base`], and `//` as `/`.
    MergeSlashes,
    /// `DECODE_AND_MERGE_SLASHES`: as [`Self::MergeSlashes`], with `%2f` and `%5c` decoded first.
    DecodeAndMergeSlashes,
}

/// An external authorizer, which a policy with action CUSTOM names.
#[derive(Clone, PartialEq, Debug)]
pub struct ExtensionProvider {
    /// `name`.
    pub name: Arc<str>,
    /// `service` and `port`.
    pub service: ProviderService,
    /// `timeout`: how long one check may take. Istio's default is ten minutes.
    pub timeout: Duration,
    /// What becomes of a request where the authorizer gives no answer.
    pub on_error: OnError,
    /// `includeRequestBodyInCheck`; without it no body is sent.
    pub request_body: Option<BodyInCheck>,
    /// What the authorizer speaks.
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

/// What becomes of a request where the authorizer gives no answer. A denial is an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnError {
    /// `failOpen: false`: it is refused with `statusOnError`, 403 by default.
    Refuse(StatusCode),
    /// `failOpen: true`: it is let through.
    LetThrough,
}

/// How much of a request's body the authorizer is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyInCheck {
    /// `maxRequestBytes`, at least 1.
    pub max_bytes: u32,
    /// What becomes of a longer body.
    pub excess: BodyExcess,
    /// How gRPC carries it.
    pub encoding: BodyEncoding,
}

/// What becomes of a request whose body is longer than the authorizer may see.
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

/// What an authorizer speaks.
#[derive(Clone, PartialEq, Debug)]
pub enum AuthorizerApi {
    /// `envoyExtAuthzGrpc`: `envoy.service.auth.v3.Authorization`.
    Grpc,
    /// `envoyExtAuthzHttp`: plain requests.
    Http(HttpApi),
}

/// What an HTTP authorizer is sent, and what is taken from its answers.
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
    /// `headersToDownstreamOnDeny`; where it is empty, all are meant.
    pub to_downstream_on_deny: Vec<HeaderPattern>,
    /// `headersToDownstreamOnAllow`.
    pub to_downstream_on_allow: Vec<HeaderPattern>,
}

/// A pattern for names of headers: `abc`, `abc*` or `*abc`. Upper and lower case are the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeaderPattern {
    /// This name.
    Exact(HeaderName),
    /// Names that begin with this, in lower case.
    Prefix(String),
    /// Names that end with this, in lower case.
    Suffix(String),
}

/// A text is no [`HeaderPattern`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no name of a header; write abc, abc* or *abc")]
pub struct HeaderPatternError(String);

impl MeshSettings {
    /// The authorizer of this name.
    pub fn extension_provider(&self, name: &str) -> Option<&Arc<ExtensionProvider>> {
        self.extension_providers.get(name)
    }
}

impl HeaderPattern {
    /// A pattern from its text.
    ///
    /// # Errors
    /// Where no header can have such a name, and for `*`, which Istio does not take here.
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

    /// Whether a header of this name is meant.
    pub fn matches(&self, name: &HeaderName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.as_str().starts_with(prefix.as_str()),
            Self::Suffix(suffix) => name.as_str().ends_with(suffix.as_str()),
        }
    }

    /// Whether an application may take a header of this name for one that is meant, or it is one.
    pub fn resembles(&self, name: &HeaderName) -> bool {
        let name = folded(name.as_str());
        match self {
            Self::Exact(exact) => name == folded(exact.as_str()),
            Self::Prefix(prefix) => name.starts_with(&folded(prefix)),
            Self::Suffix(suffix) => name.ends_with(&folded(suffix)),
        }
    }
}

/// A header's name as CGI and WSGI make a variable of it, but in lower case and with `-` for every
/// other character. Two headers whose names fold to the same text may be one header to an application:
/// all servers of this kind fold `-` and `_`, and some every character that is not a letter or digit.
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
    fn a_pattern_knows_what_could_be_taken_for_a_header_that_it_means() {
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
    fn what_no_header_is_called_is_refused() {
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
