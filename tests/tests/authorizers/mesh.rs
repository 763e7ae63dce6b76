//! Authorizers that are pods of the mesh: consulted like any pod, with the identity of the pod that
//! they guard.

use ambit_tests::{
    Capture, GrpcAuthorizer, Lab, Membership, NodeName, Pod, PodSpec, SOON, Site, WebServer,
    eventually,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{GRPC_API, HTTP, call, config_map, custom, ensure_status};

/// The ports of the authorizers.
const PORT: u16 = 9000;

/// The path between the authorizer and the pod that it guards.
const MARK: &str = "/checked/mark-of-the-check";

/// The requests that an authorizer in its own namespace allows.
fn guarded(namespace: &str, principal: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: strict, namespace: {namespace}}}\nspec: {{mtls: {{mode: STRICT}}}}\n\
         ---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: askers, namespace: {namespace}}}\nspec:\n  \
         rules: [{{from: [{{source: {{principals: ['{principal}']}}}}]}}]\n"
    )
}

/// A pod for an authorizer, in a namespace of its name, behind a Service.
fn authorizer(lab: &Lab, node: NodeName, name: &'static str, mode: Membership) -> Result<Pod> {
    let pod = lab.add_pod(node, PodSpec::named(name))?;
    let service = lab.add_service(&pod, PORT, PORT)?;
    let manifests = lab.manifests();
    manifests.write_namespace(name, mode)?;
    manifests.write_pod(&pod)?;
    manifests.write_service(&service)?;
    Ok(pod)
}

/// A provider of the name of its pod: name, kind, service, port and more fields.
fn provider<'a>(
    name: &'a str,
    kind: &'a str,
    service: &'a str,
) -> (&'a str, &'a str, &'a str, u16, &'a str) {
    (name, kind, service, PORT, "")
}

fn service_of(name: &str) -> String {
    format!("{name}.{name}.svc.cluster.local")
}

/// The connections to authorizers: their path and who is at their end.
fn connections(site: &Site) -> Result<Vec<(String, String)>> {
    let listed = site.agents[1].ask("connections")?;
    let listed = listed.as_array().context("no list")?.clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let asking = listed
        .iter()
        .filter(|one| one["direction"] == "authorizer" && one["request"].is_null());
    Ok(asking
        .map(|one| (text(&one["path"]), text(&one["destination"]["identity"])))
        .collect())
}

pub(super) fn authorizers_in_the_mesh_are_asked_through_it(lab: &Lab) -> Result<()> {
    let mut hosts = Vec::new();
    let mut pods = Vec::new();
    for (name, node) in [
        ("guard-http", NodeName::A),
        ("guard-grpc", NodeName::A),
        ("guard-near", NodeName::B),
        ("guard-closed", NodeName::A),
    ] {
        pods.push(authorizer(lab, node, name, Membership::Ambient)?);
        let asker = match name {
            "guard-closed" => "cluster.local/ns/web/sa/somebody-else",
            _ => "cluster.local/ns/web/sa/default",
        };
        lab.manifests()
            .write(&format!("guard-{name}.yaml"), &guarded(name, asker))?;
        hosts.push(service_of(name));
    }
    let [http, grpc, near, closed] = &pods[..] else {
        unreachable!("four pods");
    };
    let own = "own.web.svc.cluster.local";
    lab.manifests().write(
        "istio.yaml",
        &config_map(&[
            provider("http", HTTP, &hosts[0]),
            provider("grpc", GRPC_API, &hosts[1]),
            provider("near", GRPC_API, &hosts[2]),
            provider("closed", HTTP, &hosts[3]),
            ("own", HTTP, own, 80, ", pathPrefix: /authorizer"),
            ("round", HTTP, "round.web.svc.cluster.local", 80, ""),
            ("loopback", HTTP, "127.0.0.1", PORT, ""),
        ]),
    )?;
    let http = WebServer::in_pod(lab, http, &[PORT])?;
    let grpc = GrpcAuthorizer::start(lab, grpc.place(), grpc.at(PORT))?;
    let _near = GrpcAuthorizer::start(lab, near.place(), near.at(PORT))?;
    let closed = WebServer::in_pod(lab, closed, &[PORT])?;
    let names = ["http", "grpc", "near", "closed", "own", "round", "loopback"];
    let site = build(lab, names)?;
    let loopback = site.backend("loopback")?.pod.place().clone();
    let _loopback = WebServer::start(lab, &loopback, &[([127, 0, 0, 1], PORT).into()])?;

    let capture = Capture::start(lab)?;
    for (name, path, status, body) in [
        ("http", MARK, 200, ""),
        ("grpc", MARK, 200, ""),
        ("grpc", "/checked/deny", 401, "not today"),
        ("near", MARK, 200, ""),
        ("near", "/checked/deny", 401, "not today"),
        ("closed", MARK, 403, ""),
        ("round", MARK, 403, "RBAC: access denied"),
        ("loopback", MARK, 200, ""),
    ] {
        ensure_status(&site, name, path, status, body)?;
    }
    // The authorizer is the application itself.
    let answer = call(&site, "own", MARK, "")?;
    let heads = site.backend("own")?.web.heads();
    ensure!(
        answer.status == 200 && heads.len() == 2 && heads[0].contains("/authorizer/checked"),
        "{answer:?}: {heads:?}"
    );
    let captured = capture.finish()?;
    for plain in [MARK, "envoy.service.auth.v3", "spiffe://"] {
        ensure!(
            !captured.contains(plain.as_bytes()),
            "{plain} is on the link in plaintext"
        );
    }
    ensure!(closed.connections() == 0, "the closed one was reached");
    let asker = site.backend("http")?.pod.addresses().v4;
    let peers = http.peers()?;
    ensure!(
        peers.iter().all(|peer| peer.ip() == asker),
        "{peers:?}, not {asker}"
    );
    ensure!(grpc.log().contains(MARK), "{}", grpc.log());
    let log = site.agents[1].log();
    ensure!(
        log.contains("asked again, in an endless loop"),
        "no sentence about the round"
    );
    let mut found = connections(&site)?;
    found.sort();
    let path = lab.same_node().as_str();
    let in_the_mesh = |name: &str| {
        (
            path.to_owned(),
            format!("cluster.local/ns/{name}/sa/default"),
        )
    };
    for name in ["guard-http", "guard-grpc", "guard-near"] {
        ensure!(
            found.contains(&in_the_mesh(name)),
            "{name} is not among {found:?}"
        );
    }
    ensure!(found.iter().any(|(path, _)| path == "own-pod"), "{found:?}");
    ensure!(
        found.iter().filter(|(path, _)| path == "plaintext").count() == 1,
        "only the loopback's is in plaintext: {found:?}"
    );
    Ok(())
}

/// Pods that each consult the authorizer with their name.
fn build<const N: usize>(lab: &Lab, names: [&'static str; N]) -> Result<Site> {
    let policies = names.map(custom);
    let policies = policies.each_ref().map(|policy| [policy.as_str()]);
    let backends: Vec<(&'static str, &[&str])> = names
        .into_iter()
        .zip(policies.iter().map(<[&str; 1]>::as_slice))
        .collect();
    Site::start(lab, &backends)
}

/// A pod that is opted in, but whose node has no agent: it would answer in plaintext.
pub(super) fn an_authorizer_that_no_tunnel_leads_to_is_not_asked_in_plaintext(
    lab: &Lab,
) -> Result<()> {
    let ghost = authorizer(lab, NodeName::A, "ghost", Membership::Ambient)?;
    let mut manifest = ghost.manifest();
    manifest["spec"]["nodeName"] = "node-elsewhere".into();
    lab.manifests()
        .write_object(&ghost.file_name(), &manifest)?;
    let host = service_of("ghost");
    lab.manifests().write(
        "istio.yaml",
        &config_map(&[
            provider("ghost-http", HTTP, &host),
            provider("ghost-grpc", GRPC_API, &host),
            ("nowhere", HTTP, "10.78.100.250", PORT, ""),
        ]),
    )?;
    let web = WebServer::in_pod(lab, &ghost, &[PORT])?;
    let site = build(lab, ["ghost-http", "ghost-grpc", "nowhere"])?;
    for name in ["ghost-http", "ghost-grpc", "nowhere"] {
        ensure_status(&site, name, "/checked/x", 403, "")?;
        ensure_status(&site, name, "/other", 200, "")?;
    }
    ensure!(web.connections() == 0, "it was asked: {:?}", web.heads());
    Ok(())
}

pub(super) fn an_authorizer_that_joins_the_mesh_is_asked_through_it_from_then_on(
    lab: &Lab,
) -> Result<()> {
    let pod = authorizer(lab, NodeName::A, "joining", Membership::None)?;
    let host = service_of("joining");
    let config = config_map(&[provider("web", HTTP, &host)]);
    lab.manifests().write("istio.yaml", &config)?;
    let web = WebServer::in_pod(lab, &pod, &[PORT])?;
    let site = build(lab, ["web"])?;
    let capture = Capture::start(lab)?;
    ensure_status(&site, "web", "/checked/before", 200, "")?;
    ensure!(connections(&site)? == [("plaintext".to_owned(), String::new())]);
    lab.manifests()
        .write_namespace("joining", Membership::Ambient)?;
    eventually(SOON, "the end of the connection in plaintext", || {
        connections(&site).ok()?.is_empty().then_some(())
    })?;
    // Its own agent may serve it a moment later.
    eventually(SOON, "an answer through the mesh", || {
        ensure_status(&site, "web", "/checked/after", 200, "").ok()
    })?;
    let identity = "cluster.local/ns/joining/sa/default".to_owned();
    let path = lab.same_node().as_str().to_owned();
    ensure!(connections(&site)? == [(path, identity)]);
    let captured = capture.finish()?;
    ensure!(captured.contains(b"/checked/before") && !captured.contains(b"/checked/after"));
    ensure!(
        web.heads()
            .iter()
            .any(|head| head.contains("/checked/after"))
    );
    Ok(())
}
