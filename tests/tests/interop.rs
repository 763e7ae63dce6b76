//! HBONE with Envoy at the other end, with certificates that `ambit ca sign` gives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ambit_tests::{
    Agent, Envoy, Family, Lab, LabServer, Mode, NodeName, Pod, Reference, SOON, ambit, eventually,
    get, get_from, output, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const PORT: u16 = Reference::PORT;
const HBONE_PORT: u16 = 15008;

/// The port on which Envoy accepts what it tunnels.
const LOCAL_PORT: u16 = 18080;

fn main() -> ExitCode {
    run_tests(tests![
        a_tunnel_of_envoys_is_judged_by_its_certificate,
        a_tunnel_to_envoy_is_carried,
        a_tunnel_to_another_identity_than_the_pods_is_refused,
    ])
}

fn a_tunnel_of_envoys_is_judged_by_its_certificate(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?;
    for (identity, is_allowed) in [(&mesh.orders, true), (&mesh.frontend, false)] {
        // From outside the mesh: the certificate proves its identity.
        let certificate = Certificate::of(lab, &spiffe_id(identity))?;
        let client = client(&mesh.payments, &certificate);
        let place = mesh.intruder.place();
        let envoy = Envoy::start(lab, place, &client)?;
        let reply = get(place, &format!("http://127.0.0.1:{LOCAL_PORT}/"))?;
        ensure!(
            reply.is_answer() == is_allowed,
            "as {}: {reply:?}\n{}",
            identity.name(),
            envoy.log()
        );
    }
    Ok(())
}

fn a_tunnel_to_envoy_is_carried(lab: &Lab) -> Result<()> {
    let (mesh, _agent) = with_envoys_node(lab)?;
    let certificate = Certificate::of(lab, &spiffe_id(&mesh.orders))?;
    let envoy = Envoy::start(
        lab,
        mesh.orders.place(),
        &server(&mesh.orders, &certificate),
    )?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let caller = mesh.frontend.place();
    eventually(SOON, "an answer through Envoy", || {
        let reply = get_from(caller, mesh.orders.at(PORT)).ok()?;
        reply.is_answer().then_some(())
    })
    .with_context(|| envoy.log())?;
    ensure!(!server.connections().is_empty(), "another server answered");
    // The tunnel is up now: what a caller sends first may be there before Envoy has connected to the application.
    for _ in 0..20 {
        let reply = get_from(caller, mesh.orders.at(PORT))?;
        ensure!(reply.is_answer(), "{reply:?}");
    }
    let statistics = get(mesh.orders.place(), "http://127.0.0.1:9901/stats")?;
    let accepted = format!("{statistics:?}");
    ensure!(
        accepted.contains("ssl.connection_error: 0") && !accepted.contains("ssl.handshake: 0"),
        "nothing came through the tunnel: {accepted}"
    );
    Ok(())
}

fn a_tunnel_to_another_identity_than_the_pods_is_refused(lab: &Lab) -> Result<()> {
    let (mesh, agent) = with_envoys_node(lab)?;
    let certificate = Certificate::of(lab, &spiffe_id(&mesh.payments))?;
    let _envoy = Envoy::start(
        lab,
        mesh.orders.place(),
        &server(&mesh.orders, &certificate),
    )?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(!reply.is_answer(), "{reply:?}");
    ensure!(server.connections().is_empty(), "the server was reached");
    eventually(SOON, "the identity that came in the log", || {
        let log = agent.log();
        log.contains("cluster.local/ns/payments/sa/default")
            .then_some(())
    })
}

/// The reference example without an agent on node B, where Envoy takes its place.
fn with_envoys_node(lab: &Lab) -> Result<(Reference, Agent)> {
    let mesh = Reference::build(lab)?;
    Ok((mesh, lab.start_agent(NodeName::A)?))
}

fn spiffe_id(pod: &Pod) -> String {
    format!("spiffe://cluster.local/ns/{}/sa/default", pod.namespace())
}

/// A certificate with its key and the mesh's roots, as files.
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    roots: PathBuf,
}

impl Certificate {
    /// Openssl makes the key, and the lab's authority signs. An agent must have run before.
    fn of(lab: &Lab, identity: &str) -> Result<Self> {
        let directory = tempfile::tempdir_in(lab.directory())?.keep();
        let authority = lab.directory().join("ca");
        let own = Self {
            chain: directory.join("chain.pem"),
            key: directory.join("key.pem"),
            roots: authority.join("root-cert.pem"),
        };
        let request = directory.join("request.pem");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-new", "-newkey", "ec", "-nodes", "-subj", "/CN=any"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
            .args([Path::new("-keyout"), &own.key, Path::new("-out"), &request]);
        let made = output(&mut openssl)?;
        ensure!(made.status.success(), "openssl: {}", made.stderr);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (directory, request) = (text(&authority), text(&request));
        let arguments = ["ca", "sign", "--dir", &directory, "--csr", &request];
        let signed = ambit(&[&arguments[..], &["--identity", identity]].concat())?;
        ensure!(signed.status.success(), "ambit ca sign: {}", signed.stderr);
        fs::write(&own.chain, signed.stdout)?;
        Ok(own)
    }

    /// Envoy's settings for TLS of both ends.
    fn tls(&self) -> Value {
        json!({
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificates": [{
                "certificate_chain": {"filename": self.chain},
                "private_key": {"filename": self.key},
            }],
            "validation_context": {"trusted_ca": {"filename": self.roots}},
        })
    }
}

/// Tunnels connections to [`LOCAL_PORT`] to a pod's port.
fn client(to: &Pod, certificate: &Certificate) -> Value {
    let mut tls = certificate.tls();
    tls["validation_context"]["match_typed_subject_alt_names"] = json!([
        {"san_type": "URI", "matcher": {"exact": spiffe_id(to)}}
    ]);
    json!({"static_resources": {
        "listeners": [{
            "name": "outbound",
            "address": address("127.0.0.1", LOCAL_PORT),
            "filter_chains": [{"filters": [{
                "name": "tcp",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "outbound",
                    "cluster": "tunnel",
                    "tunneling_config": {"hostname": to.at(PORT).to_string()},
                },
            }]}],
        }],
        "clusters": [{
            "name": "tunnel",
            "type": "STATIC",
            "load_assignment": endpoint("tunnel", &to.ip(Family::V4).to_string(), HBONE_PORT),
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
                },
            },
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": tls,
                },
            },
        }],
    }})
}

/// Accepts tunnels to a pod, and forwards them to its port.
fn server(pod: &Pod, certificate: &Certificate) -> Value {
    let own = pod.ip(Family::V4).to_string();
    json!({
        "admin": {"address": address("127.0.0.1", 9901)},
        "static_resources": {
            "listeners": [{
                "name": "inbound",
                "address": address(&own, HBONE_PORT),
                "filter_chains": [{
                    "transport_socket": {
                        "name": "tls",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                            "require_client_certificate": true,
                            "common_tls_context": certificate.tls(),
                        },
                    },
                    "filters": [{
                        "name": "http",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": "inbound",
                            "codec_type": "HTTP2",
                            "http2_protocol_options": {"allow_connect": true},
                            "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                            "route_config": {"virtual_hosts": [{
                                "name": "all",
                                "domains": ["*"],
                                "routes": [{
                                    "match": {"connect_matcher": {}},
                                    "route": {
                                        "cluster": "application",
                                        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                                    },
                                }],
                            }]},
                            "http_filters": [{
                                "name": "router",
                                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                            }],
                        },
                    }],
                }],
            }],
            "clusters": [{
                "name": "application",
                "type": "STATIC",
                "load_assignment": endpoint("application", &own, PORT),
            }],
        },
    })
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn endpoint(cluster: &str, host: &str, port: u16) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host, port)}}]}],
    })
}
