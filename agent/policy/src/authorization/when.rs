//! Reads the entries of `when`: the keys of the Istio API, each with its kind of value.

use super::criterion::Criterion;
use super::values::{
    Context, block, expanded, namespace, port, principal, refuse_in_custom, request_principal,
    service_account, text, trust_domain, twins,
};
use crate::reader::{NotEnforced, SpecNode};
use crate::request::HeaderKey;

/// Reads an entry of `when`.
pub(super) fn condition(
    node: &SpecNode<'_>,
    context: &Context<'_>,
) -> Result<Criterion, NotEnforced> {
    let mut key = None;
    for (name, field) in node.fields()? {
        match name {
            "key" => key = Some((field.text()?, field)),
            "values" | "notValues" => {}
            _ => return field.unknown(),
        }
    }
    let Some((key, key_node)) = key else {
        return node.fail("a condition needs a key");
    };
    let criterion = criterion(node, &key_node, key, context)?;
    let Some(criterion) = criterion else {
        return node.fail("a condition needs values or notValues");
    };
    refuse_in_custom(node, context, std::slice::from_ref(&criterion))?;
    Ok(criterion)
}

fn criterion(
    node: &SpecNode<'_>,
    key_node: &SpecNode<'_>,
    key: &str,
    context: &Context<'_>,
) -> Result<Option<Criterion>, NotEnforced> {
    const VALUES: [&str; 2] = ["values", "notValues"];
    let bundle = context.bundle;
    let texts = || twins(node, VALUES, |n| n.texts(text));
    let claim = |path: Vec<String>| Ok(texts()?.map(|field| Criterion::Claim(path, field)));
    Ok(match key {
        "source.ip" => twins(node, VALUES, |n| n.texts(block))?.map(Criterion::SourceIp),
        "remote.ip" => twins(node, VALUES, |n| n.texts(block))?.map(Criterion::RemoteIp),
        "destination.ip" => twins(node, VALUES, |n| n.texts(block))?.map(Criterion::DestinationIp),
        "destination.port" => {
            twins(node, VALUES, |n| n.texts(port))?.map(Criterion::DestinationPort)
        }
        "source.namespace" => {
            twins(node, VALUES, |n| n.texts(namespace))?.map(Criterion::Namespace)
        }
        "source.principal" => twins(node, VALUES, |n| {
            expanded(n, |n, text| principal(n, text, bundle))
        })?
        .map(Criterion::Principal),
        "source.serviceAccount" => {
            let own = &context.policy.namespace;
            twins(node, VALUES, |n| {
                n.texts(|n, text| service_account(n, text, own))
            })?
            .map(Criterion::ServiceAccount)
        }
        "source.trustDomain" => twins(node, VALUES, |n| {
            expanded(n, |n, text| trust_domain(n, text, bundle))
        })?
        .map(Criterion::TrustDomain),
        "request.auth.principal" => {
            twins(node, VALUES, |n| n.texts(request_principal))?.map(Criterion::RequestPrincipal)
        }
        "request.auth.audiences" => return claim(vec!["aud".to_owned()]),
        "request.auth.presenter" => return claim(vec!["azp".to_owned()]),
        "connection.sni" => {
            return key_node.fail(
                "connections reach a workload through a tunnel, so there is no SNI; use hosts or ports",
            );
        }
        _ => {
            if let Some(names) = key.strip_prefix("request.auth.claims") {
                return match bracketed(names) {
                    Some(path) => claim(path),
                    None => key_node.fail(
                        "write request.auth.claims[name] or request.auth.claims[outer][inner]",
                    ),
                };
            }
            if let Some(name) = key.strip_prefix("request.headers") {
                let name = name
                    .strip_prefix('[')
                    .and_then(|name| name.strip_suffix(']'));
                let Some(name) = name.and_then(HeaderKey::parse) else {
                    return key_node.fail("write request.headers[name] with a valid header name");
                };
                return Ok(texts()?.map(|field| Criterion::Header(name, field)));
            }
            return key_node.fail(format!(
                "{key:?} is not a known attribute; see the Istio API reference for the keys"
            ));
        }
    })
}

/// The names in `[a][b]`. Text that is not a clean sequence of bracketed names is one name.
fn bracketed(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if inner.is_empty() {
        return None;
    }
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    let is_clean = |name: &String| !name.is_empty() && !name.contains(['[', ']']);
    if names.iter().all(is_clean) {
        return Some(names);
    }
    Some(vec![inner.to_owned()])
}
