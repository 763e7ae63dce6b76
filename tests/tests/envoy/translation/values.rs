//! Values of a policy's fields, by kind.

use serde_json::{Value, json};

use super::expression::Expression;
use crate::listener::typed;
use crate::token;

/// Istio's string match; `None` is presence.
fn text(value: &str) -> Option<Value> {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        _ if value == "*" => None,
        (Some(suffix), _) => Some(json!({"suffix": suffix})),
        (None, Some(prefix)) => Some(json!({"prefix": prefix})),
        (None, None) => Some(json!({"exact": value})),
    }
}

/// The same for a value that must be present and not empty.
fn not_empty(value: &str) -> Value {
    text(value).unwrap_or_else(|| regex(".+"))
}

fn regex(regex: &str) -> Value {
    json!({"safe_regex": {"regex": regex}})
}

/// A part of a SPIFFE ID that a value matches, as a regular expression.
fn part(value: &str) -> String {
    let quote = |text: &str| {
        let quoted = text.chars().map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() => letter.to_string(),
            letter => format!("\\{letter}"),
        });
        quoted.collect::<String>()
    };
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        _ if value == "*" => "[^/]+".to_owned(),
        (Some(suffix), _) => format!("[^/]*{}", quote(suffix)),
        (None, Some(prefix)) => format!("{}[^/]*", quote(prefix)),
        (None, None) => quote(value),
    }
}

fn peer(matcher: Value) -> Expression {
    Expression::Principal(json!({"authenticated": {"principal_name": matcher}}))
}

pub(super) fn principal(value: &str) -> Expression {
    peer(match (value.strip_prefix('*'), value.strip_suffix('*')) {
        _ if value == "*" => regex(".+"),
        (Some(suffix), _) => json!({"suffix": suffix}),
        (None, Some(prefix)) => json!({"prefix": format!("spiffe://{prefix}")}),
        (None, None) => json!({"exact": format!("spiffe://{value}")}),
    })
}

pub(super) fn namespace(value: &str) -> Expression {
    peer(regex(&format!(
        "spiffe://[^/]+/ns/{}/sa/[^/]+",
        part(value)
    )))
}

pub(super) fn service_account(value: &str) -> Expression {
    let (namespace, name) = value.split_once('/').unwrap_or(("prod", value));
    let (namespace, name) = (part(namespace), part(name));
    peer(regex(&format!("spiffe://[^/]+/ns/{namespace}/sa/{name}")))
}

pub(super) fn trust_domain(value: &str) -> Expression {
    peer(regex(&format!(
        "spiffe://{}/ns/[^/]+/sa/[^/]+",
        part(value)
    )))
}

fn block(value: &str) -> Value {
    let whole = if value.contains(':') { 128 } else { 32 };
    let (address, bits) = value.split_once('/').unwrap_or((value, ""));
    let bits: u32 = bits.parse().unwrap_or(whole);
    json!({"address_prefix": address, "prefix_len": bits})
}

/// A block of the peer's addresses, or of the client's.
pub(super) fn source_block(which: &str, value: &str) -> Expression {
    Expression::Principal(json!({which: block(value)}))
}

pub(super) fn destination_block(value: &str) -> Expression {
    Expression::Permission(json!({"destination_ip": block(value)}))
}

pub(super) fn port(value: &str) -> Expression {
    let port: u16 = value.parse().unwrap_or_default();
    Expression::Permission(json!({"destination_port": port}))
}

pub(super) fn server_name(value: &str) -> Expression {
    Expression::Permission(json!({"requested_server_name": not_empty(value)}))
}

pub(super) fn header(name: &str, value: &str) -> Expression {
    Expression::Either(json!({"header": match text(value) {
        Some(matcher) => json!({"name": name, "string_match": matcher}),
        None => json!({"name": name, "present_match": true}),
    }}))
}

pub(super) fn host(value: &str) -> Expression {
    Expression::Either(json!({"header": match text(value) {
        Some(mut matcher) => {
            matcher["ignore_case"] = true.into();
            json!({"name": ":authority", "string_match": matcher})
        }
        None => json!({"name": ":authority", "present_match": true}),
    }}))
}

pub(super) fn path(value: &str) -> Expression {
    if !value.contains("{*}") && !value.contains("{**}") {
        return Expression::Permission(json!({"url_path": {"path": not_empty(value)}}));
    }
    let template = value.replace("{**}", "**").replace("{*}", "*");
    let name = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    Expression::Permission(json!({"uri_template": {
        "name": "uri-template",
        "typed_config": typed(name, json!({"path_template": template})),
    }}))
}

fn metadata(path: &[&str], matcher: &Value) -> Expression {
    let path = std::iter::once(&token::KEY).chain(path);
    let path: Vec<_> = path.map(|key| json!({"key": key})).collect();
    Expression::Principal(json!({"metadata": {
        "filter": token::FILTER,
        "path": path,
        "value": matcher,
    }}))
}

pub(super) fn claim(path: &[&str], value: &str) -> Expression {
    let matcher = json!({"string_match": not_empty(value)});
    let element = json!({"list_match": {"one_of": matcher}});
    metadata(
        path,
        &json!({"or_match": {"value_matchers": [matcher, element]}}),
    )
}

/// The form of the whole value decides which half has a wildcard; the other is exact, or any.
pub(super) fn request_principal(value: &str) -> Expression {
    let exact = |text: &str| json!({"exact": text});
    let any = || regex(".+");
    let halves = value.rsplit_once('/');
    let (issuer, subject) = match (halves, value.starts_with('*'), value.ends_with('*')) {
        (Some((issuer, subject)), true, _) => (not_empty(issuer), exact(subject)),
        (Some((issuer, "*")), false, true) => (exact(issuer), any()),
        (Some((issuer, subject)), false, true) => {
            let start = &subject[..subject.len() - 1];
            (exact(issuer), json!({"prefix": start}))
        }
        (Some((issuer, subject)), false, false) => (exact(issuer), exact(subject)),
        (None, _, _) if value == "*" => (any(), any()),
        (None, true, _) => (any(), not_empty(value)),
        (None, false, true) => (not_empty(value), any()),
        (None, false, false) => (exact(value), exact("")),
    };
    let half = |name, matcher: Value| metadata(&[name], &json!({"string_match": matcher}));
    Expression::All(vec![half("iss", issuer), half("sub", subject)])
}
