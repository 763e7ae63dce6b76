use std::time::Duration;

use http::StatusCode;

use super::*;
use ambit_model::{
    AuthorizerApi, BodyEncoding, BodyExcess, BodyInCheck, ExtensionProvider, OnError, TrustDomain,
};

/// A ConfigMap with this text under `mesh`.
fn config_map(mesh: &str) -> ConfigMap {
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": mesh},
    });
    serde_json::from_value(object).expect("a ConfigMap")
}

fn settings(mesh: &str) -> MeshSettings {
    mesh_config(&config_map(mesh)).expect(mesh).settings
}

fn provider(mesh: &str) -> ExtensionProvider {
    let settings = settings(mesh);
    let mut providers = settings.extension_providers.values();
    let only = providers.next().expect("a provider").as_ref().clone();
    assert!(providers.next().is_none());
    only
}

fn refusal(mesh: &str) -> String {
    mesh_config(&config_map(mesh)).expect_err(mesh).to_string()
}

/// A refusal at a field of the first provider, which is of kind gRPC with these fields.
fn grpc_refusal(fields: &str) -> String {
    refusal(&format!(
        "extensionProviders: [{{name: a, envoyExtAuthzGrpc: {fields}}}]"
    ))
}

#[test]
fn a_grpc_provider_with_defaults() {
    let provider = provider(
        "extensionProviders:\n- name: opa\n  envoyExtAuthzGrpc: {service: opa.tools.svc.cluster.local, port: 9191}\n",
    );
    assert_eq!(provider.name.as_ref(), "opa");
    assert_eq!(provider.service.namespace, None);
    assert_eq!(
        provider.service.host.as_ref(),
        "opa.tools.svc.cluster.local"
    );
    assert_eq!(provider.service.port, 9191);
    assert_eq!(provider.timeout, Duration::from_secs(600));
    assert_eq!(provider.on_error, OnError::Refuse(StatusCode::FORBIDDEN));
    assert_eq!(provider.request_body, None);
    assert_eq!(provider.api, AuthorizerApi::Grpc);
}

#[test]
fn a_grpc_provider_with_everything() {
    let provider = provider(
        "extensionProviders: [{name: opa, envoyExtAuthzGrpc: {service: tools/opa.example.com, \
         port: 9191, timeout: 0.25s, failOpen: false, statusOnError: '503', clearRouteCache: true, \
         includeRequestBodyInCheck: {maxRequestBytes: 100, allowPartialMessage: true, packAsBytes: \
         true}}}]",
    );
    assert_eq!(provider.service.namespace.as_deref(), Some("tools"));
    assert_eq!(provider.timeout, Duration::from_millis(250));
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(provider.on_error, OnError::Refuse(unavailable));
    let body = BodyInCheck {
        max_bytes: 100,
        excess: BodyExcess::Cut,
        encoding: BodyEncoding::Bytes,
    };
    assert_eq!(provider.request_body, Some(body));
}

#[test]
fn an_http_provider() {
    let provider = provider(
        "extensionProviders: [{name: proxy, envoyExtAuthzHttp: {service: p.tools.svc.cluster.local, \
         port: 80, pathPrefix: /check, failOpen: true, includeRequestHeadersInCheck: [cookie, x-*], \
         includeAdditionalHeadersInCheck: {X-Mesh: ambit}, headersToUpstreamOnAllow: [x-user], \
         headersToDownstreamOnDeny: ['*-reason'], headersToDownstreamOnAllow: [set-cookie], \
         includeRequestBodyInCheck: {maxRequestBytes: 1}}}]",
    );
    assert_eq!(provider.on_error, OnError::LetThrough);
    let body = provider.request_body.expect("a body");
    assert_eq!(
        (body.excess, body.encoding),
        (BodyExcess::Refuse, BodyEncoding::Text)
    );
    let AuthorizerApi::Http(api) = provider.api else {
        panic!("not HTTP")
    };
    assert_eq!(api.path_prefix, "/check");
    assert_eq!(api.request_headers.len(), 2);
    let (name, value) = &api.additional_headers[0];
    assert_eq!(
        (name.as_str(), value.as_bytes()),
        ("x-mesh", b"ambit".as_slice())
    );
    let matches = |list: &[ambit_model::HeaderPattern], name: &'static str| {
        list.iter()
            .any(|p| p.matches(&http::HeaderName::from_static(name)))
    };
    assert!(matches(&api.to_upstream_on_allow, "x-user"));
    assert!(matches(&api.to_downstream_on_deny, "x-reason"));
    assert!(matches(&api.to_downstream_on_allow, "set-cookie"));
    assert!(!matches(&api.to_downstream_on_allow, "x-user"));
}

#[test]
fn the_former_name_of_a_field_counts_if_the_new_one_is_empty() {
    let headers = |fields: &str| {
        let mesh = format!(
            "extensionProviders: [{{name: a, envoyExtAuthzHttp: {{service: b, port: 1, {fields}}}}}]"
        );
        match provider(&mesh).api {
            AuthorizerApi::Http(api) => api.request_headers,
            AuthorizerApi::Grpc => panic!("not HTTP"),
        }
    };
    let old = headers("includeHeadersInCheck: [a]");
    assert_eq!(old, headers("includeRequestHeadersInCheck: [a]"));
    let both = headers("includeHeadersInCheck: [b], includeRequestHeadersInCheck: [a]");
    assert_eq!(old, both);
}

#[test]
fn other_providers_and_other_fields_are_skipped() {
    let found = settings(
        "accessLogFile: /dev/stdout\ndefaultConfig: {discoveryAddress: x}\nextensionProviders:\n\
         - name: zipkin\n  zipkin: {service: z, port: 9411}\n- name: stats\n  prometheus: {}\n",
    );
    assert_eq!(found, MeshSettings::default());
    for empty in ["", "{}", "extensionProviders:\n", "~"] {
        assert_eq!(settings(empty), MeshSettings::default(), "{empty:?}");
    }
}

#[test]
fn path_normalisation() {
    for (text, normalization) in [
        ("{}", PathNormalization::Base),
        ("{normalization: DEFAULT}", PathNormalization::Base),
        ("{normalization: BASE}", PathNormalization::Base),
        ("{normalization: NONE}", PathNormalization::None),
        (
            "{normalization: MERGE_SLASHES}",
            PathNormalization::MergeSlashes,
        ),
        (
            "{normalization: DECODE_AND_MERGE_SLASHES}",
            PathNormalization::DecodeAndMergeSlashes,
        ),
    ] {
        for key in ["pathNormalization", "path_normalization"] {
            let found = settings(&format!("{key}: {text}"));
            assert_eq!(found.path_normalization, normalization, "{key}: {text}");
        }
    }
    let message = refusal("pathNormalization: {normalization: STRICT}");
    assert!(
        message.starts_with("field data.mesh.pathNormalization.normalization: unknown variant"),
        "{message}"
    );
}

#[test]
fn a_provider_that_cannot_be_followed_is_refused_with_its_field() {
    let inner = "field data.mesh.extensionProviders[0].envoyExtAuthzGrpc";
    for (fields, field) in [
        (
            "{service: a, port: 1, failOpne: true}",
            ".failOpne: unknown field",
        ),
        (
            "{service: a, port: 1, failOpen: 'yes'}",
            ".failOpen: invalid type",
        ),
        (
            "{service: a, port: 1, timeout: 5}",
            ".timeout: invalid type",
        ),
        (
            "{service: a, port: 1, timeout: 5ms}",
            ".timeout: \"5ms\" is not a duration",
        ),
        (
            "{service: a, port: 1, timeout: 0s}",
            ".timeout: \"0s\" is not a duration",
        ),
        (
            "{service: a, port: 1, timeout: -1s}",
            ".timeout: \"-1s\" is not a duration",
        ),
        (
            "{service: a, port: 1, timeout: 1e9s}",
            ".timeout: \"1e9s\" is not a duration",
        ),
        (
            "{service: a, port: 1, statusOnError: '200'}",
            ".statusOnError: \"200\"",
        ),
        (
            "{service: a, port: 1, statusOnError: 'Forbidden'}",
            ".statusOnError: ",
        ),
        ("{service: a}", ".port: 0 is not a port"),
        ("{service: a, port: 70000}", ".port: 70000 is not a port"),
        ("{port: 1}", ".service: \"\" does not name a service"),
        (
            "{service: a/b/c, port: 1}",
            ".service: \"a/b/c\" does not name a service",
        ),
        ("{service: 'http://a', port: 1}", ".service: "),
        (
            "{service: a, port: 1, includeRequestBodyInCheck: {}}",
            ".includeRequestBodyInCheck.maxRequestBytes: missing or 0",
        ),
    ] {
        let message = grpc_refusal(fields);
        assert!(message.starts_with(&format!("{inner}{field}")), "{message}");
    }
}

#[test]
fn an_http_provider_may_not_use_headers_that_http_itself_needs() {
    let inner = "field data.mesh.extensionProviders[0].envoyExtAuthzHttp";
    for (fields, field) in [
        ("pathPrefix: check", ".pathPrefix: \"check\" is not a path"),
        ("pathPrefix: '/check?x='", ".pathPrefix: "),
        (
            "includeAdditionalHeadersInCheck: {Content-Length: '9'}",
            ".includeAdditionalHeadersInCheck[\"Content-Length\"]: HTTP itself needs",
        ),
        (
            "includeAdditionalHeadersInCheck: {x: \"a\\nb\"}",
            ".includeAdditionalHeadersInCheck.x: no header can have this value",
        ),
        (
            "includeRequestHeadersInCheck: [a, '*']",
            ".includeRequestHeadersInCheck[1]: \"*\" is not the name of a header",
        ),
        (
            "headersToUpstreamOnAllow: [':path']",
            ".headersToUpstreamOnAllow[0]: \":path\" is not the name of a header",
        ),
    ] {
        let message = refusal(&format!(
            "extensionProviders: [{{name: a, envoyExtAuthzHttp: {{service: b, port: 1, {fields}}}}}]"
        ));
        assert!(message.starts_with(&format!("{inner}{field}")), "{message}");
    }
}

#[test]
fn providers_have_one_name_each_and_one_kind() {
    let grpc = "envoyExtAuthzGrpc: {service: a, port: 1}";
    for (providers, message) in [
        (
            format!("[{{name: a, {grpc}}}, {{name: a, {grpc}}}]"),
            "field data.mesh.extensionProviders[1].name: another provider has the same name",
        ),
        (
            format!("[{{{grpc}}}]"),
            "field data.mesh.extensionProviders[0].name: missing; policies name their provider by \
             it",
        ),
        (
            format!("[{{name: a, {grpc}, envoyExtAuthzHttp: {{service: a, port: 1}}}}]"),
            "field data.mesh.extensionProviders[0].envoyExtAuthzHttp: a provider is of one kind; \
             this one has two",
        ),
    ] {
        assert_eq!(
            refusal(&format!("extensionProviders: {providers}")),
            message
        );
    }
}

#[test]
fn a_string_that_is_not_a_single_yaml_document_is_refused() {
    for mesh in ["a: [", "a: 1\na: 2\n", "a: 1\n---\nb: 2\n", "[a]", "text"] {
        let message = refusal(mesh);
        assert!(message.starts_with("field data.mesh: "), "{message}");
    }
    let mut without = config_map("");
    without.data = None;
    let message = mesh_config(&without).expect_err("no mesh").to_string();
    assert!(message.starts_with("field data.mesh: missing"), "{message}");
}

#[test]
fn other_trust_domains_than_the_agents_are_faults() {
    let domain = |text| TrustDomain::new(text).expect("valid");
    let trust = TrustBundle {
        own: domain("cluster.local"),
        aliases: vec![domain("old.example"), domain("older.example")],
    };
    let faults = |mesh: &str| {
        let object = mesh_config(&config_map(mesh)).expect(mesh);
        object.faults(&ObjectOrigin::Kubernetes, &trust)
    };
    for same in [
        "{}",
        "trustDomain: cluster.local",
        "trustDomain: ''",
        "trustDomainAliases: [older.example, old.example]",
    ] {
        assert_eq!(faults(same), [], "{same}");
    }
    for (other, field, named) in [
        ("trustDomain: td1", "data.mesh.trustDomain", "\"td1\""),
        ("trust_domain: td1", "data.mesh.trustDomain", "\"td1\""),
        (
            "trustDomainAliases: []",
            "data.mesh.trustDomainAliases",
            "[]",
        ),
        (
            "trustDomainAliases: [old.example, older.example, td2]",
            "data.mesh.trustDomainAliases",
            "td2",
        ),
    ] {
        let found = faults(other);
        let [fault] = found.as_slice() else {
            panic!("{other}: {found:?}")
        };
        assert_eq!(
            fault.subject,
            "the Kubernetes API (ConfigMap istio-system/istio)"
        );
        assert!(
            fault.message.contains(field) && fault.message.contains(named),
            "{fault:?}"
        );
        assert!(fault.message.contains("stay"), "{fault:?}");
    }
}
