//! Reads one of `jwtRules`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, header};
use serde_json::Value;

use super::{
    ClaimHeader, HttpUrl, JwtRule, KeySource, KeyUrl, RedactedUrl, TokenLocation, TokenPresence,
};
use crate::jwks::{Jwks, JwksError};
use crate::reader::{NotEnforced, SpecNode, Warning};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Headers that determine where a request ends or where it goes. A token must not set them.
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

/// The fields of a rule that have been read so far.
#[derive(Default)]
struct Fields {
    issuer: Option<String>,
    audiences: Vec<String>,
    inline: Option<Arc<Jwks>>,
    url: Option<KeyAddress>,
    headers: Option<Vec<TokenLocation>>,
    parameters: Option<Vec<TokenLocation>>,
    cookies: Option<Vec<TokenLocation>>,
    presence: TokenPresence,
    payload_header: Option<Output>,
    claim_headers: Vec<(Output, String)>,
    forwards_original: bool,
    timeout: Option<Duration>,
    space_delimited_claims: Vec<String>,
}

/// `jwksUri`.
enum KeyAddress {
    Usable(HttpUrl),
    /// Istio's admission accepts it, but nothing can be fetched from it.
    Unusable,
}

/// A header to set for the application.
enum Output {
    Header(HeaderName),
    /// Istio's admission accepts the name, but a request with this header would break.
    Unusable,
}

/// Reads a rule. It accepts what Istio's admission accepts. If tokens cannot be verified or passed on by
/// the rule, they are refused, as in Istio; requests without a token are not affected.
pub(super) fn parse(
    rule: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<JwtRule, NotEnforced> {
    let mut fields = Fields::default();
    for (name, field) in rule.fields()? {
        match name {
            "issuer" => fields.issuer = some_text(&field)?,
            "audiences" => fields.audiences = texts(&field)?,
            "jwks" => fields.inline = inline_keys(&field, warnings)?,
            "jwksUri" | "jwks_uri" if fields.url.is_none() => {
                fields.url = Some(key_address(&field, warnings)?);
            }
            "fromHeaders" => fields.headers = header_locations(&field, warnings)?,
            "fromParams" => fields.parameters = locations(&field, TokenLocation::Parameter)?,
            "fromCookies" => fields.cookies = locations(&field, TokenLocation::Cookie)?,
            "outputPayloadToHeader" => fields.payload_header = payload_header(&field, warnings)?,
            "outputClaimToHeaders" => fields.claim_headers = claim_headers(&field, warnings)?,
            "forwardOriginalToken" => fields.forwards_original = field.boolean()?,
            "timeout" => fields.timeout = Some(timeout(&field)?),
            "spaceDelimitedClaims" => fields.space_delimited_claims = any_texts(&field)?,
            "presence" => fields.presence = presence(&field)?,
            _ => return field.unknown(),
        }
    }
    fields.into_rule(rule, warnings)
}

impl Fields {
    fn into_rule(
        self,
        rule: &SpecNode<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<JwtRule, NotEnforced> {
        let keys = self.keys(rule, warnings)?;
        let (outputs, is_usable) = Outputs::new(self.payload_header, self.claim_headers);
        if outputs.has_duplicates {
            warnings.push(rule.warning(
                "it sets a header more than once, and the application only sees the first value; choose \
                 another name",
            ));
        }
        let places = [self.headers, self.parameters, self.cookies];
        let locations = match places.iter().all(Option::is_none) {
            true => TokenLocation::defaults(),
            false => places.into_iter().flatten().flatten().collect(),
        };
        Ok(JwtRule {
            issuer: self.issuer,
            audiences: self.audiences,
            keys: match is_usable {
                true => keys,
                false => no_keys(),
            },
            locations,
            presence: self.presence,
            payload_header: outputs.payload,
            claim_headers: outputs.claims,
            forwards_original: self.forwards_original,
            timeout: self.timeout.unwrap_or(DEFAULT_TIMEOUT),
            space_delimited_claims: self.space_delimited_claims,
        })
    }

    fn keys(
        &self,
        rule: &SpecNode<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<KeySource, NotEnforced> {
        match (&self.inline, &self.url, &self.issuer) {
            (Some(_), Some(_), _) => rule.fail("it has both jwks and jwksUri; remove one"),
            (_, None, None) => rule
                .fail("it has no issuer and no jwksUri; set issuer to the \"iss\" of its tokens"),
            (Some(keys), None, Some(_)) => Ok(KeySource::Inline(Arc::clone(keys))),
            (None, Some(KeyAddress::Usable(url)), _) => {
                Ok(KeySource::Published(KeyUrl::Keys(url.clone())))
            }
            (None, Some(KeyAddress::Unusable), _) => Ok(no_keys()),
            (None, None, Some(issuer)) => match HttpUrl::discovery_of(issuer) {
                Ok(url) => Ok(KeySource::Published(KeyUrl::Configuration(url))),
                Err(_) => {
                    warnings.push(rule.warning(format!(
                        "it has no jwks and no jwksUri, and the issuer {issuer:?} is not a URL that \
                         leads to keys: {REFUSED}; set one of them"
                    )));
                    Ok(no_keys())
                }
            },
        }
    }
}

/// The headers that are set, each once.
#[derive(Default)]
struct Outputs {
    payload: Option<HeaderName>,
    claims: Vec<ClaimHeader>,
    written: HashSet<HeaderName>,
    has_duplicates: bool,
}

impl Outputs {
    /// Also returns whether all of them can be set.
    fn new(payload: Option<Output>, claims: Vec<(Output, String)>) -> (Self, bool) {
        let mut outputs = Self::default();
        let mut is_usable = true;
        match payload {
            None => {}
            Some(Output::Header(name)) => {
                outputs.written.insert(name.clone());
                outputs.payload = Some(name);
            }
            Some(Output::Unusable) => is_usable = false,
        }
        for (output, claim) in claims {
            match output {
                Output::Header(header) => outputs.add(ClaimHeader { header, claim }),
                Output::Unusable => is_usable = false,
            }
        }
        (outputs, is_usable)
    }

    fn add(&mut self, output: ClaimHeader) {
        self.has_duplicates |= !self.written.insert(output.header.clone());
        // The first value stays, even if the token has both claims.
        self.claims.push(output);
    }
}

/// What follows for the tokens of a rule that cannot be used as written.
const REFUSED: &str = "every token of this rule is refused";

/// Keys that verify nothing.
fn no_keys() -> KeySource {
    KeySource::Inline(Arc::new(Jwks::none()))
}

/// A string; `None` if it is empty.
fn some_text(field: &SpecNode<'_>) -> Result<Option<String>, NotEnforced> {
    let text = field.optional_text()?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A list of strings that are not empty.
fn texts(field: &SpecNode<'_>) -> Result<Vec<String>, NotEnforced> {
    let elements = field.optional_elements()?;
    elements
        .iter()
        .map(|node| Ok(node.text()?.to_owned()))
        .collect()
}

/// A list of strings.
fn any_texts(field: &SpecNode<'_>) -> Result<Vec<String>, NotEnforced> {
    let elements = field.optional_elements()?;
    elements
        .iter()
        .map(|node| Ok(node.any_text()?.to_owned()))
        .collect()
}

fn inline_keys(
    field: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Arc<Jwks>>, NotEnforced> {
    let Some(text) = some_text(field)? else {
        return Ok(None);
    };
    let keys = match Jwks::parse(text.as_bytes()) {
        Ok(keys) => keys,
        Err(error @ JwksError::Malformed(_)) if !is_one_key(&text) => {
            return field.fail(error.to_string());
        }
        Err(error @ (JwksError::Malformed(_) | JwksError::TooMany(_) | JwksError::NoUsableKey)) => {
            warnings.push(field.warning(format!("{REFUSED}: {error}")));
            Jwks::none()
        }
    };
    Ok(Some(Arc::new(keys)))
}

/// Whether a text is a key instead of a set of keys. Istio's admission accepts this, and Envoy does not.
fn is_one_key(text: &str) -> bool {
    let value: Option<Value> = serde_json::from_str(text).ok();
    value.is_some_and(|value| value["kty"].is_string() && value.get("keys").is_none())
}

/// Istio's admission accepts anything with one of the two schemes.
fn key_address(
    field: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<KeyAddress, NotEnforced> {
    let text = field.text()?;
    let begins_with = |scheme: &str| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    match HttpUrl::parse(text) {
        Ok(url) => Ok(KeyAddress::Usable(url)),
        Err(error) if begins_with("http://") || begins_with("https://") => {
            warnings.push(field.warning(format!("{REFUSED}: {error}")));
            Ok(KeyAddress::Unusable)
        }
        Err(error) => field.fail(format!("{}: {error}", RedactedUrl::new(text))),
    }
}

/// A list of locations; `None` if it is empty.
fn locations(
    field: &SpecNode<'_>,
    location: impl Fn(String) -> TokenLocation,
) -> Result<Option<Vec<TokenLocation>>, NotEnforced> {
    let names = texts(field)?;
    Ok((!names.is_empty()).then(|| names.into_iter().map(location).collect()))
}

/// A list of headers; `None` if it is empty. A name that no header can have is left out with a warning.
fn header_locations(
    field: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Vec<TokenLocation>>, NotEnforced> {
    let elements = field.optional_elements()?;
    let mut locations = Vec::new();
    for node in &elements {
        let (mut header, mut prefix) = (None, String::new());
        for (name, field) in node.fields()? {
            match name {
                "name" => header = Some((field.text()?, field)),
                "prefix" => field.optional_text()?.clone_into(&mut prefix),
                _ => return field.unknown(),
            }
        }
        let Some((text, at)) = header else {
            return node.fail("it does not name a header; set name");
        };
        match HeaderName::try_from(text) {
            Ok(name) => locations.push(TokenLocation::Header { name, prefix }),
            Err(_) => warnings.push(at.warning(format!(
                "no header can have the name {text:?}, so no token will be found there; use letters \
                 and dashes"
            ))),
        }
    }
    Ok((!elements.is_empty()).then_some(locations))
}

/// Istio accepts any name here.
fn payload_header(
    field: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Output>, NotEnforced> {
    let text = some_text(field)?;
    Ok(text.map(|text| match HeaderName::try_from(text.as_str()) {
        Ok(name) => output(name, field, warnings),
        Err(_) => {
            warnings.push(field.warning(format!(
                "no header can have the name {text:?}: {REFUSED}; use letters and dashes"
            )));
            Output::Unusable
        }
    }))
}

fn claim_headers(
    field: &SpecNode<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<(Output, String)>, NotEnforced> {
    let mut outputs = Vec::new();
    for node in field.optional_elements()? {
        let (mut header, mut claim) = (None, None);
        for (name, field) in node.fields()? {
            match name {
                "header" => header = Some(output(claim_header_name(&field)?, &field, warnings)),
                "claim" => claim = Some(field.text()?.to_owned()),
                _ => return field.unknown(),
            }
        }
        match (header, claim) {
            (Some(header), Some(claim)) => outputs.push((header, claim)),
            _ => return node.fail("both header and claim have to be set"),
        }
    }
    Ok(outputs)
}

/// Istio accepts letters, digits, `-` and `_` here.
fn claim_header_name(field: &SpecNode<'_>) -> Result<HeaderName, NotEnforced> {
    let text = field.text()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match HeaderName::try_from(text) {
        Ok(name) if text.bytes().all(is_plain) => Ok(name),
        Ok(_) | Err(_) => field.fail(format!(
            "{text:?} has characters other than letters, digits, - and _"
        )),
    }
}

/// Whether a header can be set for the application.
fn output(name: HeaderName, field: &SpecNode<'_>, warnings: &mut Vec<Warning>) -> Output {
    if !FRAMING.contains(&name) {
        return Output::Header(name);
    }
    warnings.push(field.warning(format!(
        "the header {name} determines how a request is carried, so no token may set it: {REFUSED}; \
         choose another name"
    )));
    Output::Unusable
}

fn timeout(field: &SpecNode<'_>) -> Result<Duration, NotEnforced> {
    let text = field.text()?;
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
    match duration {
        Some(duration) if duration >= MIN_TIMEOUT => Ok(duration),
        _ => field.fail(format!(
            "{text:?} is not a duration of 1ms or more; write it like \"5s\""
        )),
    }
}

fn presence(field: &SpecNode<'_>) -> Result<TokenPresence, NotEnforced> {
    match field.text()? {
        "OPTIONAL" => Ok(TokenPresence::Optional),
        "REQUIRED" => Ok(TokenPresence::Required),
        other => field.fail(format!(
            "{other:?} is not a presence; use OPTIONAL or REQUIRED"
        )),
    }
}
