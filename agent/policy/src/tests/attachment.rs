//! `targetRef` and `targetRefs`: a policy for the pods behind a Service, at its ports.

use serde_json::{Value, json};

use super::TestCaller::Plaintext;
use super::{ROOT, TestMesh};
use crate::{PolicyScope, PolicyState};
use ambit_model::testing::service;
use ambit_model::{Service, TargetPort};

fn deny(target: Value) -> Value {
    json!({"action": "DENY", "rules": [{}], "targetRefs": [target]})
}

fn to_service(name: &str) -> Value {
    json!({"kind": "Service", "group": "", "name": name})
}

/// Another Service of the pod `prod/web`, at its port 9090.
fn other(name: &str) -> Service {
    service(name, &[], 90, TargetPort::Number(9090))
}

/// The ports on which plaintext is allowed, of 80 (no Service), 8080 (`web`) and 9090 (`other`).
fn admitted(mesh: TestMesh) -> Vec<u16> {
    let policies = mesh.serve(other("prod/other")).policies();
    let ports = [80, 8080, 9090].into_iter();
    ports
        .filter(|port| policies.admits(Plaintext, *port))
        .collect()
}

#[test]
fn a_service_is_its_pods_at_its_target_ports() {
    let mesh = |spec| TestMesh::new().authorize("prod/policy", spec);
    assert_eq!(admitted(mesh(deny(to_service("web")))), [80, 9090]);
    assert_eq!(admitted(mesh(deny(to_service("other")))), [80, 8080]);
    let single = json!({"action": "DENY", "rules": [{}], "targetRef": to_service("web")});
    assert_eq!(admitted(mesh(single)), [80, 9090]);
    let both = [to_service("web"), to_service("other")];
    let both = json!({"action": "DENY", "rules": [{}], "targetRefs": both});
    assert_eq!(admitted(mesh(both)), [80]);
}

#[test]
fn a_permission_for_a_service_closes_its_ports_only() {
    let spec = json!({"targetRefs": [to_service("web")]});
    let mesh = TestMesh::new().authorize("prod/policy", spec);
    assert_eq!(admitted(mesh), [80, 9090]);
}

#[test]
fn a_service_of_another_namespace_is_out_of_reach() {
    for name in ["test/policy", "istio-system/policy"] {
        let mesh = TestMesh::new().authorize(name, deny(to_service("web")));
        assert_eq!(admitted(mesh), [80, 8080, 9090], "{name}");
    }
    // A Service of the same name in another namespace has no pods here.
    let mesh = TestMesh::new()
        .serve(service(
            &format!("{ROOT}/web"),
            &[],
            80,
            TargetPort::Number(8080),
        ))
        .authorize(&format!("{ROOT}/policy"), deny(to_service("web")));
    assert_eq!(admitted(mesh), [80, 8080, 9090]);
}

#[test]
fn a_service_that_does_not_select_the_pod_does_not_count() {
    let mut elsewhere = service("prod/db", &[], 80, TargetPort::Number(8080));
    elsewhere.selector.insert("app".to_owned(), "db".to_owned());
    let mut selectorless = service("prod/manual", &[], 80, TargetPort::Number(8080));
    selectorless.selector.clear();
    for (name, service) in [("db", elsewhere), ("manual", selectorless)] {
        let mesh = TestMesh::new()
            .serve(service)
            .authorize("prod/policy", deny(to_service(name)));
        assert_eq!(admitted(mesh), [80, 8080, 9090], "{name}");
    }
}

#[test]
fn a_port_by_name_is_each_pods_own() {
    let named = service("prod/named", &[], 80, TargetPort::Name("api".to_owned()));
    let mesh = || {
        TestMesh::new()
            .serve(named.clone())
            .authorize("prod/policy", deny(to_service("named")))
    };
    assert_eq!(
        admitted(mesh()),
        [80, 8080, 9090],
        "the pod has no such port"
    );
    let mut pod = super::web();
    pod.named_ports.insert("api".to_owned(), 9090);
    let policies = mesh().index().for_workload(&pod);
    assert!(!policies.admits(Plaintext, 9090));
    assert!(policies.admits(Plaintext, 8080));
}

#[test]
fn references_to_gateways_and_waypoints_are_not_enforced_here() {
    let gateway = "gateway.networking.k8s.io";
    for (kind, group) in [
        ("Gateway", gateway),
        ("GatewayClass", gateway),
        ("ServiceEntry", "networking.istio.io"),
    ] {
        let target = json!({"kind": kind, "group": group, "name": "web"});
        let mesh = || TestMesh::new().authorize("prod/policy", deny(target.clone()));
        assert_eq!(admitted(mesh()), [80, 8080, 9090], "{kind}");
        let condition = mesh().condition();
        assert_eq!(condition.state, PolicyState::NotEnforced, "{kind}");
        assert_eq!(condition.workloads, 0, "{kind}");
        let message = condition.message.expect("a warning");
        assert!(message.contains(&format!("{kind} web")), "{message}");
    }
}

#[test]
fn a_service_beside_a_gateway_is_enforced() {
    let gateway = json!({"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "gw"});
    let spec = json!({"action": "DENY", "rules": [{}], "targetRefs": [gateway, to_service("web")]});
    let mesh = || TestMesh::new().authorize("prod/policy", spec.clone());
    assert_eq!(admitted(mesh()), [80, 9090]);
    let condition = mesh().condition();
    assert_eq!(condition.state, PolicyState::Enforced);
    assert_eq!(condition.scope, PolicyScope::Services);
    assert_eq!(condition.workloads, 1);
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let condition = TestMesh::new()
        .authorize("prod/policy", deny(to_service("gone")))
        .condition();
    let message = condition.message.expect("a warning");
    assert!(message.contains("no Service gone"), "{message}");
}

#[test]
fn what_cannot_be_enforced_refuses_the_pods_that_it_refers_to_and_no_others() {
    let broken = |name: &str| json!({"action": "DENY", "rules": [{"upon": []}], "targetRefs": [to_service(name)]});
    let mesh = |name| TestMesh::new().authorize("prod/policy", broken(name));
    assert_eq!(admitted(mesh("web")), [0u16; 0]);
    assert_eq!(admitted(mesh("gone")), [80, 8080, 9090]);
}

#[test]
fn requests_are_judged_at_the_ports_of_a_service_reference() {
    let spec = json!({
        "action": "DENY",
        "targetRefs": [to_service("web")],
        "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
    });
    let policies = TestMesh::http().authorize("prod/policy", spec).policies();
    assert!(!policies.admits_request(Plaintext, &super::request("GET", "/")));
    assert!(policies.admits_request(Plaintext, &super::request("POST", "/")));
    assert!(!policies.admits(Plaintext, 8080), "what is not HTTP");
    assert!(policies.admits(Plaintext, 9090));
}
