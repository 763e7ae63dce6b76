//! RequestAuthentication: the issuers whose tokens requests to a workload may carry.

mod rule;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::attachment::{ATTACHMENT_FIELDS, Attachment, attachment};
use super::authorization::Enforcement;
use super::jwks::Jwks;
use super::reader::{NotEnforced, Parsed, SpecNode, Warning, refuse_dry_run};
use ambit_model::PolicyObject;

pub use url::{HttpUrl, HttpUrlError, RedactedUrl};

/// What a RequestAuthentication says. The rules of all objects that apply to a workload are in force.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestAuthentication {
    /// `jwtRules`.
    pub rules: Vec<JwtRule>,
}

/// An issuer, and how its tokens are found, verified and passed on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct JwtRule {
    /// `issuer`: the required value of `iss`; `None` admits any.
    pub issuer: Option<String>,
    /// `audiences`, one of which `aud` has to name; empty admits any.
    pub audiences: Vec<String>,
    /// `jwks`, `jwksUri`, or neither.
    pub keys: KeySource,
    /// `fromHeaders`, `fromParams` and `fromCookies`, or the defaults if none of them is set. Empty if no
    /// request can have a token at any of them.
    pub locations: Vec<TokenLocation>,
    /// `presence`: whether a request needs a token that this rule accepts.
    pub presence: TokenPresence,
    /// `outputPayloadToHeader`: the header that gets the payload, in base64url as in the token.
    pub payload_header: Option<HeaderName>,
    /// `outputClaimToHeaders`.
    pub claim_headers: Vec<ClaimHeader>,
    /// `forwardOriginalToken`: whether the token is passed on to the application.
    pub forwards_original: bool,
    /// `timeout`: how long a request may wait for the keys.
    pub timeout: Duration,
    /// `spaceDelimitedClaims`, in addition to `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
}

/// Whether a request needs a token that a rule accepts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TokenPresence {
    /// It does not need one.
    #[default]
    Optional,
    /// Without one it is refused, even if it has other tokens.
    Required,
}

/// Where an issuer's keys come from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeySource {
    /// `jwks`.
    Inline(Arc<Jwks>),
    /// They are fetched from a URL.
    Published(KeyUrl),
}

/// Where an issuer publishes its keys.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyUrl {
    /// The keys themselves are here: `jwksUri`.
    Keys(HttpUrl),
    /// The issuer's OpenID configuration is here, and its `jwks_uri` leads to the keys (OpenID Connect
    /// Discovery, section 4). Used if the rule has neither `jwks` nor `jwksUri`.
    Configuration(HttpUrl),
}

impl fmt::Display for KeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Keys(url) | Self::Configuration(url)) = self;
        url.fmt(f)
    }
}

/// Where a token may be in a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TokenLocation {
    /// A header's value, after a prefix.
    Header {
        /// The header.
        name: HeaderName,
        /// What comes before the token; may be empty.
        prefix: String,
    },
    /// A parameter of the query.
    Parameter(String),
    /// A cookie.
    Cookie(String),
}

impl TokenLocation {
    /// The default locations (RFC 6750, sections 2.1 and 2.3).
    pub fn defaults() -> Vec<Self> {
        vec![
            Self::Header {
                name: http::header::AUTHORIZATION,
                prefix: "Bearer ".to_owned(),
            },
            Self::Parameter("access_token".to_owned()),
        ]
    }
}

/// A header that gets the value of a claim.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClaimHeader {
    /// The header.
    pub header: HeaderName,
    /// The claim; `.` separates the names of nested claims, as in `realm_access.owner`.
    pub claim: String,
}

/// A RequestAuthentication that was read.
pub(super) type ParsedTokenRules = Parsed<Attachment, Arc<RequestAuthentication>>;

/// Reads a RequestAuthentication. If its selector cannot be read, it selects everything in its scope.
pub(super) fn parse(object: &Arc<PolicyObject>) -> ParsedTokenRules {
    let spec = SpecNode::spec(&object.spec);
    let mut warnings = Vec::new();
    let (selector, content) = match attachment(&spec, &mut warnings) {
        Ok(attachment) => (
            attachment,
            refuse_dry_run(object).and_then(|()| content(&spec, &mut warnings)),
        ),
        Err(error) => (Attachment::Everything, Err(error)),
    };
    Parsed {
        object: Arc::clone(object),
        selector,
        action: None,
        enforcement: Enforcement::Enforced,
        content: content.map(Arc::new),
        more_errors: Vec::new(),
        warnings,
    }
}

fn content(
    spec: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<RequestAuthentication, NotEnforced> {
    let mut rules = Vec::new();
    for (name, field) in spec.fields()? {
        match name {
            "jwtRules" => {
                for node in field.optional_elements()? {
                    rules.push(rule::parse(&node, warnings)?);
                }
            }
            _ if ATTACHMENT_FIELDS.contains(&name) => {}
            _ => return field.unknown(),
        }
    }
    Ok(RequestAuthentication { rules })
}
