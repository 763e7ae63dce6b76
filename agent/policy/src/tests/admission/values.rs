//! Rules 9 and 11: invalid values.

use serde_json::json;

use super::{OPERATION, SOURCE, WHEN, operation, refused, source, taken, when};

#[test]
fn rule_9_no_list_has_an_empty_value() {
    for name in [
        "principals",
        "requestPrincipals",
        "namespaces",
        "serviceAccounts",
        "ipBlocks",
        "remoteIpBlocks",
        "trustDomains",
    ] {
        for field in [name.to_owned(), twin(name)] {
            let value = source(json!({&field: [""]}));
            refused(&value, &format!("{SOURCE}.{field}[0]"), "empty");
            let none = source(json!({&field: []}));
            refused(&none, SOURCE, "a source needs at least one field");
        }
    }
    for name in ["hosts", "ports", "methods", "paths"] {
        for field in [name.to_owned(), twin(name)] {
            let value = operation(json!({&field: [""]}));
            refused(&value, &format!("{OPERATION}.{field}[0]"), "empty");
        }
    }
    for field in ["values", "notValues"] {
        let value = when("source.ip", field, "");
        refused(&value, &format!("{WHEN}.{field}[0]"), "empty");
    }
}

fn twin(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("not{}{rest}", first.to_uppercase())
}

#[test]
fn rule_9_addresses() {
    for value in [
        "10.0.0.0/33",
        "10.0.0",
        "10.0.0.256",
        "fd00::/129",
        "x",
        "10.0.0.1-2",
        "::ffff:10.0.0.0/104",
    ] {
        let quoted = if value.starts_with("::ffff") {
            "IPv4"
        } else {
            value
        };
        for field in [
            "ipBlocks",
            "notIpBlocks",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
        ] {
            refused(
                &source(json!({field: [value]})),
                &format!("{SOURCE}.{field}[0]"),
                quoted,
            );
        }
        for key in ["source.ip", "remote.ip", "destination.ip"] {
            refused(
                &when(key, "notValues", value),
                &format!("{WHEN}.notValues[0]"),
                quoted,
            );
        }
    }
    for value in [
        "10.0.0.1",
        "127.0.0.1/24",
        "fd00::1",
        "fd00::1/64",
        "::ffff:10.0.0.1",
        "0.0.0.0/0",
    ] {
        taken(&source(json!({"ipBlocks": [value]})));
    }
}

#[test]
fn rule_9_ports() {
    for value in ["65536", "-1", "+80", "80 ", "http", "80-90", "0x50", "8*"] {
        refused(
            &operation(json!({"ports": [value]})),
            &format!("{OPERATION}.ports[0]"),
            value,
        );
        let condition = when("destination.port", "values", value);
        refused(&condition, &format!("{WHEN}.values[0]"), value);
    }
    taken(&operation(json!({"ports": ["0", "65535"]})));
}

#[test]
fn rule_9_service_accounts_and_trust_domains() {
    let long = "a".repeat(321);
    for value in ["a/b/c", "/b", "a/", "a/*", "*", "/", &long] {
        let spec = source(json!({"serviceAccounts": ["ok", value]}));
        refused(&spec, &format!("{SOURCE}.serviceAccounts[1]"), value);
        let spec = when("source.serviceAccount", "values", value);
        refused(&spec, &format!("{WHEN}.values[0]"), value);
    }
    let many: Vec<_> = (0..17).map(|number| format!("a{number}")).collect();
    let spec = source(json!({"serviceAccounts": many}));
    refused(&spec, &format!("{SOURCE}.serviceAccounts"), "16");
    for value in ["td/ns", "a*b", "*a*", "**"] {
        let spec = source(json!({"notTrustDomains": [value]}));
        refused(
            &spec,
            &format!("{SOURCE}.notTrustDomains[0]"),
            "trust domain",
        );
        let spec = when("source.trustDomain", "values", value);
        refused(&spec, &format!("{WHEN}.values[0]"), "trust domain");
    }
    taken(&source(json!({"trustDomains": ["td", "*", "td*", "*.td"]})));
}

#[test]
fn rule_9_wildcards_in_namespaces() {
    for value in ["a*b", "*a*", "**", "a**", "*a*b"] {
        let spec = source(json!({"namespaces": [value]}));
        refused(&spec, &format!("{SOURCE}.namespaces[0]"), "*");
        let spec = when("source.namespace", "notValues", value);
        refused(&spec, &format!("{WHEN}.notValues[0]"), "*");
    }
    taken(&source(json!({"namespaces": ["*", "a*", "*a", "a"]})));
}

/// Istio's sidecars match the value within the whole identity, where a denial of `a/*` denies the
/// namespace.
#[test]
fn rule_9_slashes_in_namespaces() {
    for value in ["a/*", "a/sa/b", "/a", "a/", "*/a", "/"] {
        for field in ["namespaces", "notNamespaces"] {
            let spec = source(json!({field: ["ok", value]}));
            refused(&spec, &format!("{SOURCE}.{field}[1]"), "no slash");
        }
        let spec = when("source.namespace", "values", value);
        refused(&spec, &format!("{WHEN}.values[0]"), "no slash");
    }
    let denial =
        json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["a/*"]}}]}]});
    refused(
        &denial,
        &format!("{SOURCE}.namespaces[0]"),
        "refuse all connections",
    );
}

/// A suffix that begins within `spiffe://` matches in Istio's sidecars, and never in its ambient
/// mode.
#[test]
fn rule_9_suffixes_of_identities_that_reach_into_the_scheme() {
    for value in [
        "*/cluster.local/ns/a/sa/b",
        "*//cluster.local/ns/a/sa/b",
        "*spiffe://cluster.local/ns/a/sa/b",
        "*://*",
        "*//",
    ] {
        for field in ["principals", "notPrincipals"] {
            let spec = source(json!({field: [value]}));
            refused(&spec, &format!("{SOURCE}.{field}[0]"), "trust domain");
        }
        let spec = when("source.principal", "values", value);
        refused(&spec, &format!("{WHEN}.values[0]"), "trust domain");
    }
    for value in [
        "*",
        "*/ns/a/sa/b",
        "*cluster.local/ns/a/sa/b",
        "*/sa/b",
        "*.local/ns/a/sa/b",
        "cluster.local/ns/*",
    ] {
        taken(&source(json!({"principals": [value]})));
    }
}

#[test]
fn a_principal_with_a_scheme_is_accepted_with_a_warning() {
    let warning = |spec: serde_json::Value| {
        let mesh = super::TestMesh::new().authorize("prod/policy", spec);
        mesh.condition().message
    };
    for field in ["principals", "notPrincipals"] {
        let spec = source(json!({field: ["spiffe://cluster.local/ns/a/sa/b"]}));
        let message = warning(spec).expect("a warning");
        assert!(message.starts_with("spec.rules[0]: ") && message.contains("spiffe://"));
        assert_eq!(
            warning(source(json!({field: ["cluster.local/ns/a/sa/b"]}))),
            None
        );
    }
}

#[test]
fn rule_11_templates() {
    for value in [
        "/a{*}",
        "/{*}b",
        "/{**}/{*}",
        "/{**}/{**}",
        "/{*}//{*}",
        "/{a}",
        "/a}",
        "/{*}/a*",
        "/{*}/a b",
        "/{***}",
    ] {
        for field in ["paths", "notPaths"] {
            let spec = operation(json!({field: ["/ok", value]}));
            refused(&spec, &format!("{OPERATION}.{field}[1]"), value);
        }
    }
    taken(&operation(
        json!({"paths": ["/{*}/a/{**}/b", "/a*", "*/a", "/{*}/"]}),
    ));
}
