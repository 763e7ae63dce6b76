//! Random policies, connections and requests, from small pools.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::{ROOT, TestMesh};
use crate::{ConnectionAttributes, RequestAttributes, VerifiedToken};
use ambit_model::{TrustDomain, WorkloadIdentity};

/// Small pools, so that rules match connections.
const NAMESPACES: [&str; 3] = ["prod", "test", "prod-b"];
const NAMESPACE_VALUES: [&str; 6] = ["prod", "test", "*", "prod*", "*-b", "none"];
const PRINCIPAL_VALUES: [&str; 7] = [
    "*",
    "cluster.local/ns/prod/sa/a",
    "cluster.local/ns/test/sa/*",
    "*/sa/b",
    "other/ns/prod/sa/a",
    "cluster.local/*",
    "spiffe://cluster.local/ns/prod/sa/a",
];
const BLOCK_VALUES: [&str; 7] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "0.0.0.0/0",
    "::/0",
    "fd00::/8",
    "fd00::1:0/112",
];
const SOURCES: [&str; 6] = [
    "10.1.2.3",
    "10.1.9.9",
    "10.9.9.9",
    "192.0.2.1",
    "fd00::1:5",
    "2001:db8::1",
];
/// Addresses of the workload.
const DESTINATIONS: [&str; 2] = ["10.0.0.1", "fd00::1"];
const PORTS: [u16; 3] = [80, 8080, 9090];
const PORT_VALUES: [&str; 3] = ["80", "8080", "9090"];
const ACCOUNT_VALUES: [&str; 4] = ["prod/a", "a", "test/b", "prod-b/a"];
const DOMAIN_VALUES: [&str; 5] = ["cluster.local", "other", "*", "*.local", "oth*"];
const TOKEN_VALUES: [&str; 6] = [
    "*",
    "issuer/*",
    "issuer/subject",
    "*/*",
    "iss*/subject",
    "issuer",
];
const METHOD_VALUES: [&str; 3] = ["GET", "POST", "*"];
const PATH_VALUES: [&str; 4] = ["/a", "/a*", "*", "/{*}/b"];
const HOST_VALUES: [&str; 3] = ["web", "*.test", "web:*"];

fn list(values: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(values, 0..=3)
}

/// An object with the lists that are not empty; `None` if all are empty.
fn object(lists: Vec<(&str, Vec<String>)>) -> Option<Value> {
    let fields = lists.into_iter().filter(|(_, list)| !list.is_empty());
    let fields: Map<_, _> = fields
        .map(|(name, list)| (name.to_owned(), json!(list)))
        .collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn texts(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

/// Fields of a source. Only a few are present, because a conjunction of many hardly ever matches.
fn source() -> impl Strategy<Value = Option<Value>> {
    let identity = prop_oneof![
        (list(&PRINCIPAL_VALUES), list(&PRINCIPAL_VALUES)).prop_map(|twins| (
            "principals",
            "notPrincipals",
            twins
        )),
        (list(&NAMESPACE_VALUES), list(&NAMESPACE_VALUES)).prop_map(|twins| (
            "namespaces",
            "notNamespaces",
            twins
        )),
        (list(&ACCOUNT_VALUES), list(&ACCOUNT_VALUES)).prop_map(|twins| (
            "serviceAccounts",
            "notServiceAccounts",
            twins
        )),
        (list(&DOMAIN_VALUES), list(&DOMAIN_VALUES)).prop_map(|twins| (
            "trustDomains",
            "notTrustDomains",
            twins
        )),
    ];
    let other = prop_oneof![
        3 => (list(&BLOCK_VALUES), list(&BLOCK_VALUES))
            .prop_map(|twins| ("ipBlocks", "notIpBlocks", twins)),
        1 => (list(&BLOCK_VALUES), list(&BLOCK_VALUES))
            .prop_map(|twins| ("remoteIpBlocks", "notRemoteIpBlocks", twins)),
        1 => (list(&TOKEN_VALUES), list(&TOKEN_VALUES))
            .prop_map(|twins| ("requestPrincipals", "notRequestPrincipals", twins)),
    ];
    (
        prop::option::of(identity),
        prop::option::weighted(0.3, other),
    )
        .prop_map(|fields| {
            let (identity, other) = fields;
            twins(identity.into_iter().chain(other))
        })
}

fn operation() -> impl Strategy<Value = Option<Value>> {
    let ports =
        (list(&PORT_VALUES), list(&PORT_VALUES)).prop_map(|twins| ("ports", "notPorts", twins));
    let http = prop_oneof![
        (list(&METHOD_VALUES), list(&METHOD_VALUES)).prop_map(|twins| (
            "methods",
            "notMethods",
            twins
        )),
        (list(&PATH_VALUES), list(&PATH_VALUES)).prop_map(|twins| ("paths", "notPaths", twins)),
        (list(&HOST_VALUES), list(&HOST_VALUES)).prop_map(|twins| ("hosts", "notHosts", twins)),
    ];
    (prop::option::of(ports), prop::option::weighted(0.4, http)).prop_map(|fields| {
        let (ports, http) = fields;
        twins(ports.into_iter().chain(http))
    })
}

fn condition() -> impl Strategy<Value = Option<Value>> {
    let keyed = prop_oneof![
        (Just("source.ip"), list(&BLOCK_VALUES), list(&BLOCK_VALUES)),
        (
            Just("destination.ip"),
            list(&BLOCK_VALUES),
            list(&BLOCK_VALUES)
        ),
        (
            Just("destination.port"),
            list(&PORT_VALUES),
            list(&PORT_VALUES)
        ),
        (
            Just("source.namespace"),
            list(&NAMESPACE_VALUES),
            list(&NAMESPACE_VALUES)
        ),
        (
            Just("source.serviceAccount"),
            list(&ACCOUNT_VALUES),
            list(&ACCOUNT_VALUES)
        ),
        (Just("remote.ip"), list(&BLOCK_VALUES), list(&BLOCK_VALUES)),
        (
            Just("request.headers[x-role]"),
            list(&METHOD_VALUES),
            list(&METHOD_VALUES)
        ),
        (
            Just("request.headers[:method]"),
            list(&METHOD_VALUES),
            list(&METHOD_VALUES)
        ),
    ];
    keyed.prop_map(|(key, values, not_values)| {
        let lists = vec![("values", texts(values)), ("notValues", texts(not_values))];
        let mut condition = object(lists)?;
        condition["key"] = json!(key);
        Some(condition)
    })
}

type Twins = (
    &'static str,
    &'static str,
    (Vec<&'static str>, Vec<&'static str>),
);

fn twins(fields: impl Iterator<Item = Twins>) -> Option<Value> {
    let lists = fields.flat_map(|(name, negated, (values, not_values))| {
        [(name, texts(values)), (negated, texts(not_values))]
    });
    object(lists.collect())
}

fn rule() -> impl Strategy<Value = Value> {
    let parts = (
        vec(source(), 0..3),
        vec(operation(), 0..3),
        vec(condition(), 0..2),
    );
    parts.prop_map(|(from, to, when)| {
        let wrapped = |inside: &str, values: Vec<Option<Value>>| {
            let values = values.into_iter().flatten();
            values.map(|one| json!({inside: one})).collect::<Vec<_>>()
        };
        let lists = [
            ("from", wrapped("source", from)),
            ("to", wrapped("operation", to)),
            ("when", when.into_iter().flatten().collect()),
        ];
        // An empty list is the same as an absent one.
        Value::Object(
            lists
                .into_iter()
                .map(|(name, list)| (name.to_owned(), json!(list)))
                .collect(),
        )
    })
}

/// A spec, and whether it is a dry run.
fn authorization() -> impl Strategy<Value = (Value, bool)> {
    let action = prop_oneof![
        6 => Just("ALLOW"),
        6 => Just("DENY"),
        1 => Just("AUDIT"),
    ];
    let rules = || vec(rule(), 1..4);
    let judged = (
        action,
        rules(),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(action, rules, refers, dry_run)| {
            let mut spec = json!({"action": action, "rules": rules});
            if refers {
                spec["targetRefs"] = json!([{"kind": "Service", "name": "web"}]);
            }
            (spec, dry_run && action != "AUDIT")
        });
    let provider = select(&["x", "x", "x", "y"][..]);
    let custom = (vec(operation(), 1..3), provider).prop_map(|(operations, provider)| {
        let to: Vec<_> = operations
            .into_iter()
            .flatten()
            .map(|one| json!({"operation": one}))
            .collect();
        let rule = match to.is_empty() {
            true => json!({}),
            false => json!({"to": to}),
        };
        let spec = json!({"action": "CUSTOM", "provider": {"name": provider}, "rules": [rule]});
        (spec, false)
    });
    prop_oneof![12 => judged, 1 => custom]
}

fn mode() -> impl Strategy<Value = &'static str> {
    select(&["STRICT", "PERMISSIVE", "UNSET"][..])
}

fn authentication() -> impl Strategy<Value = Value> {
    (mode(), mode()).prop_map(|(mode, port_mode)| {
        json!({
            "selector": {"matchLabels": {"app": "web"}},
            "mtls": {"mode": mode},
            "portLevelMtls": {"8080": {"mode": port_mode}},
        })
    })
}

pub fn policies() -> impl Strategy<Value = TestMesh> {
    let authentications = (mode(), prop::option::of(authentication()));
    let parts = (vec(authorization(), 0..4), authentications, any::<bool>());
    parts.prop_map(|(authorizations, (mesh, workload), is_http)| {
        let empty = if is_http {
            TestMesh::http()
        } else {
            TestMesh::new()
        };
        let mut all =
            empty.authenticate(&format!("{ROOT}/default"), json!({"mtls": {"mode": mesh}}));
        if let Some(spec) = workload {
            all = all.authenticate("prod/web", spec);
        }
        for (number, (spec, is_dry_run)) in authorizations.into_iter().enumerate() {
            all = all.authorize(&format!("prod/policy-{number}"), spec);
            if is_dry_run {
                all = all.as_dry_run();
            }
        }
        all
    })
}

fn identity() -> impl Strategy<Value = Option<WorkloadIdentity>> {
    let domain = select(&["cluster.local", "other"][..]);
    let parts = (domain, select(&NAMESPACES[..]), select(&["a", "b"][..]));
    prop::option::of(parts.prop_map(|(domain, namespace, account)| {
        let domain = TrustDomain::new(domain).expect("valid");
        WorkloadIdentity::new(domain, namespace, account).expect("valid")
    }))
}

pub fn connection() -> impl Strategy<Value = ConnectionAttributes> {
    let port = prop_oneof![select(&PORTS[..]), Just(1)];
    let address = |text: &str| text.parse::<IpAddr>().expect("valid");
    let parts = (
        identity(),
        select(&SOURCES[..]),
        select(&DESTINATIONS[..]),
        port,
    );
    parts.prop_map(move |(identity, source, own, port)| ConnectionAttributes {
        identity,
        source: address(source),
        destination: SocketAddr::new(address(own), port),
    })
}

fn token() -> impl Strategy<Value = VerifiedToken> {
    let parts = (
        select(&["issuer", "iss*", "issue"][..]),
        select(&["subject", "*", ""][..]),
    );
    parts.prop_map(|(issuer, subject)| VerifiedToken {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        claims: Map::from_iter([
            ("iss".to_owned(), json!(issuer)),
            ("sub".to_owned(), json!(subject)),
        ]),
    })
}

pub fn request() -> impl Strategy<Value = RequestAttributes> {
    let parts = (
        select(&["GET", "POST", "PUT"][..]),
        select(&["/a", "/ab", "/x/b", "/"][..]),
        select(&["web", "web:80", "WEB.test", "other"][..]),
        vec(select(&["GET", "POST", "x", ""][..]), 0..3),
        prop::option::of(select(&SOURCES[..])),
        prop::option::of(token()),
    );
    parts.prop_map(|(method, path, authority, roles, forwarded, token)| {
        let mut request = super::request(method, path);
        request.authority = authority.to_owned();
        for role in roles {
            let value = http::HeaderValue::from_static(role);
            request.headers.append("x-role", value);
        }
        request.forwarded_for = forwarded.map(|source| source.parse().expect("valid"));
        request.token = token.map(Arc::new);
        request
    })
}
