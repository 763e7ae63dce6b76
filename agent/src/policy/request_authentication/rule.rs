//! Reads one of `jwtRules`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, header};

use super::{ClaimHeader, HttpUrl, JwtRule, KeySource, KeyUrl, TokenLocation};
use crate::policy::jwks::Jwks;
use crate::policy::reader::{Node, NotEnforced};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Headers that say where a request ends or where it goes, which a claim must not.
const FRAMING: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// The fields of a rule as far as they have been read.
#[derive(Default)]
struct Fields {
    issuer: Option<String>,
    audiences: Vec<String>,
    inline: Option<Arc<Jwks>>,
    url: Option<HttpUrl>,
    headers: Vec<TokenLocation>,
    parameters: Vec<TokenLocation>,
    cookies: Vec<TokenLocation>,
    payload_header: Option<HeaderName>,
    claim_headers: Vec<ClaimHeader>,
    forwards_original: bool,
    timeout: Option<Duration>,
    space_delimited_claims: Vec<String>,
}

pub(super) fn parse(rule: &Node<'_>) -> Result<JwtRule, NotEnforced> {
    let mut fields = Fields::default();
    for (name, field) in rule.fields()? {
        match name {
            "issuer" => fields.issuer = Some(field.text()?.to_owned()),
            "audiences" => fields.audiences = texts(&field)?,
            "jwks" => fields.inline = Some(inline_keys(&field)?),
            "jwksUri" | "jwks_uri" if fields.url.is_none() => fields.url = Some(url(&field)?),
            "fromHeaders" => fields.headers = header_locations(&field)?,
            "fromParams" => fields.parameters = locations(&field, TokenLocation::Parameter)?,
            "fromCookies" => fields.cookies = locations(&field, TokenLocation::Cookie)?,
            "outputPayloadToHeader" => fields.payload_header = Some(output_header(&field)?),
            "outputClaimToHeaders" => fields.claim_headers = claim_headers(&field)?,
            "forwardOriginalToken" => fields.forwards_original = field.boolean()?,
            "timeout" => fields.timeout = Some(timeout(&field)?),
            "spaceDelimitedClaims" => fields.space_delimited_claims = texts(&field)?,
            "presence" => presence(&field)?,
            _ => return field.unknown(),
        }
    }
    fields.into_rule(rule)
}

impl Fields {
    fn into_rule(self, rule: &Node<'_>) -> Result<JwtRule, NotEnforced> {
        let Some(issuer) = self.issuer else {
            return rule.fail("it has no issuer; set it to the tokens' \"iss\"");
        };
        let keys = match (self.inline, self.url) {
            (Some(_), Some(_)) => return rule.fail("it has both jwks and jwksUri; remove one"),
            (Some(keys), None) => KeySource::Inline(keys),
            (None, Some(url)) => KeySource::Published(KeyUrl::Keys(url)),
            (None, None) => match HttpUrl::discovery_of(&issuer) {
                Ok(url) => KeySource::Published(KeyUrl::Configuration(url)),
                Err(_) => {
                    return rule.fail(format!(
                        "it has neither jwks nor jwksUri, and the issuer {issuer:?} is no URL to \
                         find keys with; set one of them"
                    ));
                }
            },
        };
        unique_outputs(rule, self.payload_header.as_ref(), &self.claim_headers)?;
        let mut locations = [self.headers, self.parameters, self.cookies].concat();
        if locations.is_empty() {
            locations = TokenLocation::defaults();
        }
        Ok(JwtRule {
            issuer,
            audiences: self.audiences,
            keys,
            locations,
            payload_header: self.payload_header,
            claim_headers: self.claim_headers,
            forwards_original: self.forwards_original,
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            space_delimited_claims: self.space_delimited_claims,
        })
    }
}

fn unique_outputs(
    rule: &Node<'_>,
    payload: Option<&HeaderName>,
    claims: &[ClaimHeader],
) -> Result<(), NotEnforced> {
    let mut seen: Vec<&HeaderName> = payload.into_iter().collect();
    for ClaimHeader { header, .. } in claims {
        if seen.contains(&header) {
            return rule.fail(format!(
                "it writes the header {header} twice; choose another name"
            ));
        }
        seen.push(header);
    }
    Ok(())
}

/// A list of texts, which may be empty.
fn texts(field: &Node<'_>) -> Result<Vec<String>, NotEnforced> {
    let elements = field.optional_elements()?;
    elements
        .iter()
        .map(|node| Ok(node.text()?.to_owned()))
        .collect()
}

fn inline_keys(field: &Node<'_>) -> Result<Arc<Jwks>, NotEnforced> {
    match Jwks::parse(field.text()?.as_bytes()) {
        Ok(keys) => Ok(Arc::new(keys)),
        Err(error) => field.fail(error.to_string()),
    }
}

fn url(field: &Node<'_>) -> Result<HttpUrl, NotEnforced> {
    let text = field.text()?;
    HttpUrl::parse(text).or_else(|error| field.fail(format!("{text:?}: {error}")))
}

fn locations(
    field: &Node<'_>,
    location: impl Fn(String) -> TokenLocation,
) -> Result<Vec<TokenLocation>, NotEnforced> {
    Ok(texts(field)?.into_iter().map(location).collect())
}

fn header_locations(field: &Node<'_>) -> Result<Vec<TokenLocation>, NotEnforced> {
    let parse = |node: &Node<'_>| {
        let (mut header, mut prefix) = (None, String::new());
        for (name, field) in node.fields()? {
            match name {
                "name" => header = Some(header_name(&field)?),
                "prefix" => field.text()?.clone_into(&mut prefix),
                _ => return field.unknown(),
            }
        }
        match header {
            Some(name) => Ok(TokenLocation::Header { name, prefix }),
            None => node.fail("it names no header; set name"),
        }
    };
    field.optional_elements()?.iter().map(parse).collect()
}

fn claim_headers(field: &Node<'_>) -> Result<Vec<ClaimHeader>, NotEnforced> {
    let parse = |node: &Node<'_>| {
        let (mut header, mut claim) = (None, None);
        for (name, field) in node.fields()? {
            match name {
                "header" => header = Some(output_header(&field)?),
                "claim" => claim = Some(field.text()?.to_owned()),
                _ => return field.unknown(),
            }
        }
        match (header, claim) {
            (Some(header), Some(claim)) => Ok(ClaimHeader { header, claim }),
            _ => node.fail("it needs both header and claim; set them"),
        }
    };
    field.optional_elements()?.iter().map(parse).collect()
}

fn header_name(field: &Node<'_>) -> Result<HeaderName, NotEnforced> {
    let name = field.text()?;
    HeaderName::try_from(name).or_else(|_| {
        field.fail(format!(
            "{name:?} is no name of a header; use letters and dashes"
        ))
    })
}

/// A header that is set for the application. Istio takes letters, digits, `-` and `_`.
fn output_header(field: &Node<'_>) -> Result<HeaderName, NotEnforced> {
    let name = header_name(field)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.as_str().bytes().all(is_plain) {
        return field.fail(format!(
            "\"{name}\" has characters other than letters, digits, - and _"
        ));
    }
    if FRAMING.contains(&name) {
        return field.fail(format!(
            "the header {name} says how a request is carried, so no token may set it; choose \
             another name"
        ));
    }
    Ok(name)
}

fn timeout(field: &Node<'_>) -> Result<Duration, NotEnforced> {
    let text = field.text()?;
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
    match duration {
        Some(duration) if duration >= MIN_TIMEOUT => Ok(duration),
        _ => field.fail(format!(
            "{text:?} is no duration of 1ms or more; write such as \"5s\""
        )),
    }
}

/// `OPTIONAL` is what Istio does; it gives the other value no meaning yet.
fn presence(field: &Node<'_>) -> Result<(), NotEnforced> {
    match field.text()? {
        "OPTIONAL" => Ok(()),
        other => field.fail(format!(
            "{other:?} is not supported; to require a token, remove the field and add an \
             AuthorizationPolicy that allows requestPrincipals [\"*\"]"
        )),
    }
}
