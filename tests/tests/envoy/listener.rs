//! Envoy's configuration: one listener for each case, which takes mutual TLS and plaintext.

use std::net::{Ipv4Addr, SocketAddrV4};

use ambit_model::PathNormalization;
use serde_json::{Map, Value, json};

use crate::case::{Case, Protocol};
use crate::peer::Identities;
use crate::token;
use crate::translation;

/// The port of every listener, which policies name.
pub(crate) const PORT: u16 = 8480;

/// A header of answers, which has the path as it was passed on.
pub(crate) const PATH_HEADER: &str = "x-test-path";

/// The address of a case's listener: of loopback, and of this process.
pub(crate) fn address(number: usize) -> SocketAddrV4 {
    let own = 64 + (std::process::id() % 128) as u8;
    let ip = Ipv4Addr::new(127, own, (number / 250) as u8, (number % 250) as u8 + 1);
    SocketAddrV4::new(ip, PORT)
}

/// The configuration for all cases.
pub(crate) fn configuration(cases: &[Case], identities: &Identities) -> Value {
    let listeners: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| listener(number, case, identities))
        .collect();
    json!({
        "static_resources": {"listeners": listeners},
        // Like Istio: a fragment is cut.
        "layered_runtime": {"layers": [{
            "name": "static",
            "static_layer": {"envoy.reloadable_features.http_reject_path_with_fragment": false},
        }]},
    })
}

fn listener(number: usize, case: &Case, identities: &Identities) -> Value {
    let address = address(number);
    json!({
        "name": format!("case-{number}"),
        "address": {"socket_address": {
            "address": address.ip().to_string(),
            "port_value": address.port(),
        }},
        "listener_filters": [{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": typed(
                "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
                json!({}),
            ),
        }],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": tls(identities),
                "filters": filters(case),
            },
            {
                "filter_chain_match": {"transport_protocol": "raw_buffer"},
                "filters": filters(case),
            },
        ],
    })
}

fn tls(identities: &Identities) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", json!({
            "common_tls_context": {
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": identities.certificate},
                    "private_key": {"inline_string": identities.key},
                }],
                "validation_context": {"trusted_ca": {"inline_string": identities.root}},
            },
            "require_client_certificate": true,
        })),
    })
}

fn filters(case: &Case) -> Vec<Value> {
    match case.protocol {
        Protocol::Http1 | Protocol::Http2 => vec![connection_manager(case)],
        Protocol::Opaque => {
            let mut filters = translation::network_filters(&case.policies);
            filters.push(json!({
                "name": "envoy.filters.network.echo",
                "typed_config": typed("envoy.extensions.filters.network.echo.v3.Echo", json!({})),
            }));
            filters
        }
    }
}

fn connection_manager(case: &Case) -> Value {
    let mut filters = vec![payload()];
    filters.extend(translation::http_filters(&case.policies));
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", json!({})),
    }));
    let application = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}});
    let mut config = json!({
        "stat_prefix": "test",
        "use_remote_address": false,
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [application],
            "response_headers_to_add": [
                {"header": {"key": PATH_HEADER, "value": "%REQ(:PATH)%"}},
            ],
        }]},
    });
    if case.mode != PathNormalization::None {
        config["normalize_path"] = true.into();
    }
    if matches!(
        case.mode,
        PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes
    ) {
        config["merge_slashes"] = true.into();
    }
    if case.mode == PathNormalization::DecodeAndMergeSlashes {
        config["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD".into();
    }
    let name = "envoy.filters.network.http_connection_manager";
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({"name": name, "typed_config": typed(kind, config)})
}

/// Takes a token's payload out of its header.
fn payload() -> Value {
    json!({
        "name": "envoy.filters.http.header_to_metadata",
        "typed_config": typed("envoy.extensions.filters.http.header_to_metadata.v3.Config", json!({
            "request_rules": [{
                "header": token::HEADER,
                "remove": true,
                "on_header_present": {
                    "metadata_namespace": token::FILTER,
                    "key": token::KEY,
                    "type": "PROTOBUF_VALUE",
                    "encode": "BASE64",
                },
            }],
        })),
    })
}

/// A message of a type.
pub(crate) fn typed(name: &str, config: Value) -> Value {
    let kind = (
        "@type".to_owned(),
        json!(format!("type.googleapis.com/{name}")),
    );
    let fields = config.as_object().cloned().unwrap_or_default();
    Value::Object(std::iter::once(kind).chain(fields).collect::<Map<_, _>>())
}
