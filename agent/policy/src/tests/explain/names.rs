//! How the names in a question are resolved.

use std::sync::Arc;

use serde_json::json;

use super::super::TestMesh;
use super::answers::{answer, charge, from, with};
use crate::MeshView;
use crate::explain::{
    AccessQuestion, AccessVerdict, CallerTransport, Cause, DecidedBy, QuestionError,
};
use ambit_model::testing::{parts, pod, service, slice};
use ambit_model::{Membership, NeverEnrolled, Snapshot, SnapshotParts, TargetPort, Workload};

fn error(mesh: TestMesh, question: &AccessQuestion) -> QuestionError {
    mesh.view().explain(question).expect_err("no answer")
}

#[test]
fn a_service_is_its_endpoints_and_an_address_its_pod() {
    let mesh = || TestMesh::http().authorize("prod/charge", charge());
    let to = |to: &str, port| AccessQuestion {
        to: to.parse().expect(to),
        port,
        ..from("web/frontend")
    };
    for question in [
        to("web.prod.svc.cluster.local", 80),
        to("service:prod/web", 80),
        to("10.0.0.1", 8080),
        to("pod:prod/web", 8080),
    ] {
        let answer = answer(mesh(), &question);
        let endpoint = &answer.results[0].endpoints[0];
        assert_eq!(
            endpoint.address,
            "10.0.0.1:8080".parse().expect("valid"),
            "{question:?}"
        );
        assert_eq!(endpoint.pod.to_string(), "prod/web");
    }
    assert_eq!(
        error(mesh(), &to("prod/web", 80)).to_string(),
        "there are a pod and a Service prod/web; write pod:prod/web or service:prod/web"
    );
    assert_eq!(
        error(mesh(), &to("web.prod", 81)).to_string(),
        "the Service prod/web has no TCP port 81; it has 80"
    );
    assert_eq!(
        error(mesh(), &to("prod/wbe", 80)).to_string(),
        "there is no pod or Service prod/wbe; there is prod/web"
    );
    assert!(
        error(mesh(), &to("10.0.0.9", 80))
            .to_string()
            .contains("10.0.0.9")
    );
    assert_eq!(
        error(mesh(), &to("10.0.0.1", 15008)),
        QuestionError::Port(15008)
    );
    let nowhere = with("web/a", "GET", "/a%00");
    assert!(matches!(
        error(mesh(), &nowhere),
        QuestionError::Path { .. }
    ));
    let pod = AccessQuestion {
        from: "pod:prod/wob".parse().expect("valid"),
        ..from("web/a")
    };
    assert!(
        error(mesh(), &pod)
            .to_string()
            .ends_with("there is prod/web")
    );
}

#[test]
fn an_address_of_an_opted_in_pod_has_its_identity_unless_it_is_plaintext() {
    let own = json!({"rules": [{"from": [{"source": {"namespaces": ["prod"]}}]}]});
    let mesh = || TestMesh::new().authorize("prod/own", own.clone());
    let question = |transport| AccessQuestion {
        from_address: None,
        transport,
        ..from("10.0.0.1")
    };
    let tunnel = answer(mesh(), &question(CallerTransport::Tunnel));
    assert_eq!(tunnel.results[0].explanation.verdict, AccessVerdict::Allow);
    assert!(tunnel.assumptions[0].contains("cluster.local/ns/prod/sa/default"));
    let plaintext = answer(mesh(), &question(CallerTransport::Plaintext));
    assert_eq!(
        plaintext.results[0].explanation.verdict,
        AccessVerdict::Deny
    );
    assert_eq!(plaintext.caller.identity, None);
}

#[test]
fn an_unknown_address_is_mentioned_if_a_rule_depends_on_it() {
    let blocks = json!({"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]});
    let question = AccessQuestion {
        from_address: None,
        ..from("web/a")
    };
    let asked = answer(TestMesh::new().authorize("prod/a", blocks), &question);
    assert!(
        asked.assumptions[0].contains("--from-address"),
        "{:?}",
        asked.assumptions
    );
    assert_eq!(asked.results[0].explanation.verdict, AccessVerdict::Deny);
    assert!(answer(TestMesh::new(), &question).assumptions.is_empty());
}

#[test]
fn endpoints_that_differ_have_answers_of_their_own() {
    let outside = |membership, name, address: &str| Workload {
        membership,
        ..pod(name, &[address])
    };
    let never = Membership::Never(NeverEnrolled::IstioSidecar);
    let snapshot = Snapshot::new(SnapshotParts {
        workloads: vec![
            pod("prod/web-0", &["10.0.0.1"]),
            pod("prod/web-1", &["10.0.0.2"]),
            outside(Membership::NotOptedIn, "prod/web-2", "10.0.0.3"),
            outside(never, "prod/web-3", "10.0.0.4"),
        ],
        services: vec![service("prod/web", &[], 80, TargetPort::Number(8080))],
        ..parts()
    });
    let question = AccessQuestion {
        to: "web.prod".parse().expect("valid"),
        port: 80,
        ..from("web/a")
    };
    let answer = MeshView::new(Arc::new(snapshot))
        .explain(&question)
        .expect("an answer");
    let shown: Vec<_> = answer
        .results
        .iter()
        .map(|one| (one.explanation.verdict, one.endpoints.len()))
        .collect();
    let bare = (AccessVerdict::NotEnforced, 1);
    assert_eq!(shown, [(AccessVerdict::Allow, 2), bare, bare]);
    let outside = &answer.results[1].explanation;
    assert_eq!(outside.decided, DecidedBy::Nobody);
    assert!(matches!(&outside.cause, Cause::NotEnrolled { reason } if reason.contains("web-2")));
    let sidecar = &answer.results[2].explanation.cause;
    assert!(matches!(sidecar, Cause::NotEnrolled { reason } if reason.contains("sidecar")));
}

#[test]
fn endpoint_slices_say_what_is_behind_a_service_without_a_selector() {
    let mesh = |slices| {
        let mut web = service("prod/web", &["10.96.0.1"], 80, TargetPort::Number(1));
        web.selector.clear();
        MeshView::new(Arc::new(Snapshot::new(SnapshotParts {
            workloads: vec![pod("far/one", &["10.0.0.1"]), pod("far/two", &["10.0.0.2"])],
            services: vec![web],
            endpoint_slices: slices,
            ..parts()
        })))
    };
    for to in ["web.prod", "10.96.0.1"] {
        let question = AccessQuestion {
            to: to.parse().expect("valid"),
            port: 80,
            ..from("web/a")
        };
        let known = mesh(vec![slice("prod/web", &["10.0.0.2"], 8080)]);
        let answer = known.explain(&question).expect("an answer");
        assert_eq!(answer.results.len(), 1);
        let endpoints = format!("{:?}", answer.results[0].endpoints);
        assert!(
            endpoints.contains("two") && endpoints.contains("8080"),
            "{endpoints}"
        );
        let error = mesh(Vec::new()).explain(&question).expect_err("nothing");
        assert!(error.to_string().contains("EndpointSlices"), "{error}");
    }
}

#[test]
fn a_mesh_that_is_not_known_in_full_says_so() {
    let snapshot = |complete| {
        Snapshot::new(SnapshotParts {
            workloads: vec![pod("prod/web", &["10.0.0.1"])],
            complete,
            ..parts()
        })
    };
    for (complete, assumptions) in [(true, 0), (false, 1)] {
        let view = MeshView::new(Arc::new(snapshot(complete)));
        let answer = view.explain(&from("web/a")).expect("an answer");
        assert_eq!(answer.assumptions.len(), assumptions, "{answer:?}");
    }
}

#[test]
fn the_answer_says_whether_tokens_are_verified() {
    use ambit_model::PolicyKind;
    let rules = json!({"jwtRules": [{"issuer": "issuer", "jwksUri": "https://issuer.test/keys"}]});
    let verified = TestMesh::http().with(PolicyKind::RequestAuthentication, "prod/tokens", rules);
    let open = answer(verified, &from("web/a")).results.remove(0);
    assert_eq!(open.explanation.verdict, AccessVerdict::DependsOnRequest);
    assert!(open.explanation.notes[0].contains("answered 401"));
    let token = json!({"iss": "issuer", "sub": "subject"});
    let mut question = with("web/a", "GET", "/charge");
    if let Some(request) = &mut question.request {
        request.claims = token.as_object().cloned();
    }
    let mesh = TestMesh::http().authorize("prod/charge", charge());
    let unverified = answer(mesh, &question).results.remove(0);
    assert!(unverified.explanation.notes[0].contains("does not verify tokens"));
}
