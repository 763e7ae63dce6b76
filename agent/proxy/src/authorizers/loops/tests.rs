use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use serde_json::{Value, json};

use super::*;
use ambit_model::testing::{parts, pod, service};
use ambit_model::{
    AppProtocol, AuthorizerApi, HttpApi, MeshSettings, ObjectName, ObjectOrigin, OnError,
    PolicyKind, PolicyObject, Snapshot, TargetPort,
};

/// The port of every authorizer.
const PORT: u16 = 9000;

/// Authorizers with the same names as their namespaces and pods, and the policies of those pods.
struct Mesh {
    providers: BTreeMap<Arc<str>, Arc<ExtensionProvider>>,
    policies: Vec<PolicyObject>,
    protocol: AppProtocol,
    membership: Membership,
}

fn grpc() -> AuthorizerApi {
    AuthorizerApi::Grpc
}

fn http() -> AuthorizerApi {
    AuthorizerApi::Http(HttpApi::default())
}

impl Mesh {
    fn with(providers: &[(&'static str, AuthorizerApi)], protocol: AppProtocol) -> Self {
        let provider = |(name, api): &(&'static str, AuthorizerApi)| {
            let provider = ExtensionProvider {
                name: (*name).into(),
                service: ProviderService {
                    namespace: None,
                    host: format!("web.{name}.svc.cluster.local").into(),
                    port: PORT,
                },
                timeout: Duration::from_secs(1),
                on_error: OnError::Refuse(StatusCode::FORBIDDEN),
                request_body: None,
                api: api.clone(),
            };
            (Arc::from(*name), Arc::new(provider))
        };
        Self {
            providers: providers.iter().map(provider).collect(),
            policies: Vec::new(),
            protocol,
            membership: Membership::OptedIn,
        }
    }

    /// A CUSTOM policy on the pods of a namespace.
    fn custom(mut self, namespace: &str, provider: &str, rules: Value) -> Self {
        let provider = json!({"name": provider});
        self.policies.push(PolicyObject {
            kind: PolicyKind::AuthorizationPolicy,
            name: ObjectName::new(namespace, "custom"),
            annotations: BTreeMap::new(),
            revision: None,
            created: None,
            spec: json!({"action": "CUSTOM", "provider": provider, "rules": rules}),
            origin: ObjectOrigin::Kubernetes,
        });
        self
    }

    /// Returns the pod at which the loop closes, if the pod `shop/web` asks a provider about a request for
    /// `/checked`.
    fn asked_again(self, provider: &str) -> Option<String> {
        let mut mesh = parts();
        for (name, number) in self.providers.keys().zip(1..) {
            let mut service = service(&format!("{name}/web"), &[], PORT, TargetPort::Number(PORT));
            service.ports[0].protocol = self.protocol;
            mesh.services.push(service);
            let address = format!("10.0.0.{number}");
            mesh.workloads.push(Workload {
                membership: self.membership.clone(),
                ..pod(&format!("{name}/{name}"), &[&address])
            });
        }
        let asker = pod("shop/web", &["10.0.1.1"]);
        mesh.workloads.push(asker.clone());
        mesh.policies = self.policies;
        mesh.mesh_settings = MeshSettings {
            extension_providers: self.providers,
            ..MeshSettings::default()
        };
        let view = MeshView::new(Arc::new(Snapshot::new(mesh)));
        let (method, headers) = (Method::GET, HeaderMap::new());
        let request = CheckedRequest {
            id: "",
            method: &method,
            scheme: "http",
            authority: "shop",
            path: "/checked",
            headers: &headers,
            version: Version::HTTP_11,
            body: None,
        };
        let provider = view.snapshot.mesh_settings().extension_provider(provider);
        let found = asked_again(&view, &asker, provider?, Some(&request));
        found.map(|pod| pod.to_string())
    }
}

fn everything() -> Value {
    json!([{}])
}

fn path(path: &str) -> Value {
    json!([{"to": [{"operation": {"paths": [path]}}]}])
}

#[test]
fn an_authorizer_under_its_own_policy_is_found() {
    for (api, protocol) in [
        (grpc(), AppProtocol::Http),
        (grpc(), AppProtocol::Opaque),
        (http(), AppProtocol::Http),
    ] {
        let mesh = Mesh::with(&[("one", api)], protocol);
        let mesh = mesh.custom("one", "one", everything());
        assert_eq!(mesh.asked_again("one").as_deref(), Some("one/one"));
    }
}

/// An HTTP authorizer gets the path of the request, one by gRPC always the same.
#[test]
fn what_the_check_itself_is_counts() {
    for (api, asked_about, expected) in [
        (http(), "/checked", Some("one/one")),
        (http(), "/other", None),
        (grpc(), "/checked", None),
        (
            grpc(),
            "/envoy.service.auth.v3.Authorization/*",
            Some("one/one"),
        ),
    ] {
        let mesh = Mesh::with(&[("one", api)], AppProtocol::Http);
        let mesh = mesh.custom("one", "one", path(asked_about));
        assert_eq!(
            mesh.asked_again("one").as_deref(),
            expected,
            "{asked_about}"
        );
    }
}

#[test]
fn a_round_of_several_is_found_where_it_begins() {
    let mesh = || {
        Mesh::with(
            &[("one", grpc()), ("two", http()), ("three", grpc())],
            AppProtocol::Http,
        )
        .custom("one", "two", everything())
        .custom("two", "one", everything())
        .custom("three", "one", everything())
    };
    assert_eq!(mesh().asked_again("one").as_deref(), Some("two/two"));
    assert_eq!(mesh().asked_again("two").as_deref(), Some("one/one"));
    // Not part of the round: the agent of the pod that it leads to finds it.
    assert_eq!(mesh().asked_again("three"), None);
}

#[test]
fn authorizers_that_end_somewhere_and_those_without_an_agent_are_asked() {
    let providers = [("one", grpc()), ("two", grpc())];
    let mesh = Mesh::with(&providers, AppProtocol::Http).custom("one", "two", everything());
    assert_eq!(mesh.asked_again("one"), None);
    let mesh = Mesh {
        membership: Membership::NotOptedIn,
        ..Mesh::with(&providers, AppProtocol::Http)
    };
    assert_eq!(
        mesh.custom("one", "one", everything()).asked_again("one"),
        None
    );
}
