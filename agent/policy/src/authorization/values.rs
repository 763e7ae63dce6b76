//! The values of an AuthorizationPolicy's fields, by kind.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Action;
use super::criterion::Criterion;
use crate::matcher::{Field, HostMatch, ServiceAccountMatch, StringMatch};
use crate::path::PathMatch;
use crate::reader::{NotEnforced, SpecNode};
use crate::request_principal::RequestPrincipalMatch;
use ambit_model::{ObjectName, TrustBundle, TrustDomain};

/// What reading a policy's values depends on.
pub(super) struct Context<'a> {
    pub(super) policy: &'a ObjectName,
    pub(super) bundle: &'a TrustBundle,
    pub(super) action: Action,
}

/// Reads a field and its `not` twin; `None` if neither is set.
pub(super) fn twins<'a, T>(
    node: &SpecNode<'a>,
    [positive, negative]: [&str; 2],
    read: impl Fn(&SpecNode<'a>) -> Result<Vec<T>, NotEnforced>,
) -> Result<Option<Field<T>>, NotEnforced> {
    let mut field = Field::default();
    for (name, own) in node.fields()? {
        if name == positive {
            field.positive = read(&own)?;
        } else if name == negative {
            field.negative = read(&own)?;
        }
    }
    Ok((!field.is_empty()).then_some(field))
}

/// Refuses criteria on identities and tokens in a CUSTOM policy, as Istio does: it is evaluated before
/// tokens are verified.
pub(super) fn refuse_in_custom(
    node: &SpecNode<'_>,
    context: &Context<'_>,
    criteria: &[Criterion],
) -> Result<(), NotEnforced> {
    let is_refused = |criterion: &Criterion| match criterion {
        Criterion::Principal(_)
        | Criterion::Namespace(_)
        | Criterion::ServiceAccount(_)
        | Criterion::TrustDomain(_)
        | Criterion::RequestPrincipal(_)
        | Criterion::Claim(..) => true,
        Criterion::SourceIp(_)
        | Criterion::RemoteIp(_)
        | Criterion::DestinationIp(_)
        | Criterion::DestinationPort(_)
        | Criterion::Host(_)
        | Criterion::Method(_)
        | Criterion::Path(_)
        | Criterion::Header(..) => false,
    };
    if context.action == Action::Custom && criteria.iter().any(is_refused) {
        return node.fail("a CUSTOM policy cannot depend on an identity or a token");
    }
    Ok(())
}

/// The longest value of `serviceAccounts`.
const LONGEST_SERVICE_ACCOUNT: usize = 320;

/// Reads a list of values, each of which may stand for several. Duplicates are dropped.
pub(super) fn expanded<T: Clone + Eq + Hash>(
    node: &SpecNode<'_>,
    read: impl Fn(&SpecNode<'_>, &str) -> Result<Vec<T>, NotEnforced>,
) -> Result<Vec<T>, NotEnforced> {
    let (mut all, mut known) = (Vec::new(), HashSet::new());
    for values in node.texts(read)? {
        for value in values {
            if known.insert(value.clone()) {
                all.push(value);
            }
        }
    }
    Ok(all)
}

pub(super) fn text(_node: &SpecNode<'_>, text: &str) -> Result<StringMatch, NotEnforced> {
    Ok(StringMatch::parse(text))
}

/// A principal. One of all five parts, in a trust domain of the mesh or in `cluster.local`, stands for
/// the same principal in all trust domains of the mesh.
pub(super) fn principal(
    node: &SpecNode<'_>,
    text: &str,
    bundle: &TrustBundle,
) -> Result<Vec<StringMatch>, NotEnforced> {
    if reaches_into_scheme(text) {
        return node.fail(
            "a principal does not contain spiffe://, so text before the trust domain means different \
             things to Istio's engines; begin with *, the trust domain or the end of one",
        );
    }
    Ok(expand_principal(text, bundle))
}

/// Whether a suffix can only match an identity that is written with `spiffe://`. Istio's sidecars match
/// it, and its ambient mode does not.
fn reaches_into_scheme(text: &str) -> bool {
    let Some(suffix) = text.strip_prefix('*') else {
        return false;
    };
    let is_whole_identity = |parts: &[&str]| matches!(parts, ["", _, "ns", _, "sa", _]);
    let parts: Vec<&str> = suffix.split('/').collect();
    suffix.contains("//") || is_whole_identity(&parts)
}

fn expand_principal(text: &str, bundle: &TrustBundle) -> Vec<StringMatch> {
    let verbatim = || vec![StringMatch::parse(text)];
    let Some((domain, rest)) = text.split_once('/') else {
        return verbatim();
    };
    let is_whole = rest.split('/').count() == 4 && domain != "*";
    let pattern = StringMatch::parse(domain);
    let is_meant = |own: &TrustDomain| pattern.matches(own.as_str());
    if !is_whole || !(domain == "cluster.local" || bundle.domains().any(is_meant)) {
        return verbatim();
    }
    let keeps = |own: &TrustDomain| matches!(pattern, StringMatch::Suffix(_)) && is_meant(own);
    let expand = |own: &TrustDomain| match keeps(own) {
        true => StringMatch::parse(text),
        false => StringMatch::parse(&format!("{own}/{rest}")),
    };
    bundle.domains().map(expand).collect()
}

/// A trust domain. One of the mesh stands for all of the mesh's.
pub(super) fn trust_domain(
    node: &SpecNode<'_>,
    text: &str,
    bundle: &TrustBundle,
) -> Result<Vec<StringMatch>, NotEnforced> {
    if text.contains('/') {
        return node.fail("a trust domain has no slash; use principals for a whole identity");
    }
    if has_other_wildcards(text) {
        return node.fail("a trust domain may have one *, at its beginning or its end");
    }
    let domains = || bundle.domains().map(TrustDomain::as_str);
    if domains().any(|own| own == text) {
        return Ok(domains().map(StringMatch::parse).collect());
    }
    Ok(vec![StringMatch::parse(text)])
}

/// A namespace. A value with a slash is refused: Istio's sidecars match it against the whole identity,
/// where `a/*` can match.
pub(super) fn namespace(node: &SpecNode<'_>, text: &str) -> Result<StringMatch, NotEnforced> {
    if text.contains('/') {
        return node.fail(
            "a namespace has no slash; use serviceAccounts for a service account, or principals for a \
             whole identity",
        );
    }
    if has_other_wildcards(text) {
        return node.fail(
            "a * inside a namespace, or more than one, means different things to Istio's engines; list \
             the namespaces",
        );
    }
    Ok(StringMatch::parse(text))
}

/// Whether there is a `*` besides one at the beginning or the end.
fn has_other_wildcards(text: &str) -> bool {
    let rest = text.strip_prefix('*').or_else(|| text.strip_suffix('*'));
    rest.unwrap_or(text).contains('*')
}

/// A service account, in the policy's own namespace unless the value names one.
pub(super) fn service_account(
    node: &SpecNode<'_>,
    text: &str,
    namespace: &str,
) -> Result<ServiceAccountMatch, NotEnforced> {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    let is_malformed = namespace.is_empty() || name.is_empty() || name.contains('/');
    if is_malformed || text.contains('*') || text.len() > LONGEST_SERVICE_ACCOUNT {
        return node.fail(format!(
            "{text:?} is not a service account; write namespace/name or name, without wildcards, with \
             at most {LONGEST_SERVICE_ACCOUNT} characters"
        ));
    }
    Ok(ServiceAccountMatch {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

pub(super) fn port(node: &SpecNode<'_>, text: &str) -> Result<u16, NotEnforced> {
    match text.parse() {
        Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => node.fail(format!("{text:?} is not a port from 0 to 65535")),
    }
}

/// A CIDR or an address. An IPv4-mapped address is its IPv4 address.
pub(super) fn block(node: &SpecNode<'_>, text: &str) -> Result<IpNet, NotEnforced> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    match text.parse::<IpNet>() {
        Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
            node.fail("this is an IPv4 block in IPv6 notation; write it as IPv4")
        }
        Ok(net) => Ok(net.trunc()),
        Err(_) => node.fail(format!("{text:?} is not an address or a CIDR")),
    }
}

pub(super) fn host(_node: &SpecNode<'_>, text: &str) -> Result<HostMatch, NotEnforced> {
    Ok(HostMatch::parse(text))
}

pub(super) fn path(node: &SpecNode<'_>, text: &str) -> Result<PathMatch, NotEnforced> {
    PathMatch::parse(text).or_else(|problem| node.fail(format!("{text:?}: {problem}")))
}

pub(super) fn request_principal(
    _node: &SpecNode<'_>,
    text: &str,
) -> Result<RequestPrincipalMatch, NotEnforced> {
    Ok(RequestPrincipalMatch::parse(text))
}
