//! Policies that do more than allow and deny: CUSTOM consults an external authorizer, AUDIT and dry
//! runs note requests.

mod bodies;
mod careless;
mod mesh;

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Agent, GrpcAuthorizer, Lab, Nginx, NodeName, RawAnswer, RawCall, RawEnd, SOON, Site, Until,
    WebServer, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use bodies::{authorizers_are_shown_bodies, bodies_of_http_2_are_shown};
use careless::{
    fail_open_is_not_for_callers_to_bring_about, late_answers_permit_nothing,
    only_the_authorizer_says_who_calls,
};
use mesh::{
    an_authorizer_that_joins_the_mesh_is_asked_through_it_from_then_on,
    an_authorizer_that_no_tunnel_leads_to_is_not_asked_in_plaintext,
    authorizers_in_the_mesh_are_asked_through_it,
};

fn main() -> ExitCode {
    run_tests(tests![
        authorizers_are_asked_and_obeyed,
        a_changed_provider_is_asked_from_then_on,
        authorizers_in_the_mesh_are_asked_through_it,
        an_authorizer_that_no_tunnel_leads_to_is_not_asked_in_plaintext,
        an_authorizer_that_joins_the_mesh_is_asked_through_it_from_then_on,
        authorizers_are_shown_bodies,
        bodies_of_http_2_are_shown,
        late_answers_permit_nothing,
        fail_open_is_not_for_callers_to_bring_about,
        only_the_authorizer_says_who_calls,
        audits_and_dry_runs_are_noted_and_change_nothing,
    ])
}

/// The addresses of the authorizers outside the mesh, on the pods' node.
const ALLOWING: u16 = 9201;
const DENYING: u16 = 9202;
const GRPC: u16 = 9203;
const TELLING: u16 = 9204;
const CARELESS: u16 = 9205;
/// Nothing does.
const NOBODY: u16 = 9;

/// The address of the pods' node, which is outside the mesh.
fn outside(port: u16) -> SocketAddr {
    (NodeName::B.link_addresses().v4, port).into()
}

/// The ConfigMap with these providers outside the mesh: name, kind, port and more fields.
fn mesh_config(providers: &[(&str, &str, u16, &str)]) -> String {
    let host = outside(0).ip().to_string();
    let at = |&(name, kind, port, more)| (name, kind, host.as_str(), port, more);
    config_map(&providers.iter().map(at).collect::<Vec<_>>())
}

/// The ConfigMap with these providers: name, kind, service, port and more fields.
fn config_map(providers: &[(&str, &str, &str, u16, &str)]) -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
         data:\n  mesh: |\n    extensionProviders:\n",
    );
    for (name, kind, service, port, more) in providers {
        text.push_str(&format!(
            "    - name: {name}\n      {kind}: {{service: {service}, port: {port}{more}}}\n"
        ));
    }
    text
}

const HTTP: &str = "envoyExtAuthzHttp";
const GRPC_API: &str = "envoyExtAuthzGrpc";

/// A policy that consults a provider about paths below `/checked`.
fn custom(provider: &str) -> String {
    format!(
        "action: CUSTOM\nprovider: {{name: {provider}}}\n\
         rules: [{{to: [{{operation: {{paths: [/checked*]}}}}]}}]"
    )
}

fn call(site: &Site, name: &str, path: &str, headers: &str) -> Result<RawAnswer> {
    let backend = site.backend(name)?;
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: web\r\n{headers}\r\n");
    let call = RawCall {
        to: backend.service.at(),
        bytes: bytes.as_bytes(),
        until: Until::Answers(1),
    };
    let reply = call.make(site.caller.place())?;
    let answer = reply.answers.first().cloned();
    answer.with_context(|| format!("{name} {path}: {reply:?}"))
}

/// How many requests the application of a pod has seen.
fn seen(site: &Site, name: &str) -> Result<usize> {
    Ok(site.backend(name)?.web.heads().len())
}

/// Calls, and ensures this status and body, and that the application saw it only if it is 200.
fn ensure_status(site: &Site, name: &str, path: &str, status: u16, body: &str) -> Result<()> {
    let known = seen(site, name)?;
    let answer = call(site, name, path, "")?;
    let new = seen(site, name)? - known;
    let as_expected = answer.status == status && answer.body.contains(body);
    ensure!(
        as_expected && new == usize::from(status == 200),
        "{name} {path}: {answer:?}, and the application saw {new}"
    );
    Ok(())
}

fn authorizers_are_asked_and_obeyed(lab: &Lab) -> Result<()> {
    let open = ", failOpen: true";
    let providers = mesh_config(&[
        (
            "allowing",
            HTTP,
            ALLOWING,
            ", includeRequestHeadersInCheck: [x-role]",
        ),
        ("denying", HTTP, DENYING, ""),
        (
            "telling",
            HTTP,
            TELLING,
            ", headersToUpstreamOnAllow: [x-user], headersToDownstreamOnAllow: [x-told]",
        ),
        ("nobody", HTTP, NOBODY, ""),
        ("nobody-503", HTTP, NOBODY, ", statusOnError: '503'"),
        ("nobody-open", HTTP, NOBODY, open),
        ("grpc", GRPC_API, GRPC, ""),
    ]);
    lab.manifests().write("istio.yaml", &providers)?;
    let node = lab.node(NodeName::B)?;
    let allowing = WebServer::start(lab, &node, &[outside(ALLOWING)])?;
    let grpc = GrpcAuthorizer::start(lab, &node, outside(GRPC))?;
    let _denying = Nginx {
        name: "denying",
        listen: &[outside(DENYING)],
        protocol: "",
        locations: "location / { add_header x-why because always; return 418 \"teapot\"; }",
    }
    .start(lab, &node)?;
    let _telling = Nginx {
        name: "telling",
        listen: &[outside(TELLING)],
        protocol: "",
        locations: "location / { add_header x-user alice; add_header x-told yes; \
                    add_header x-other no; return 200; }",
    }
    .start(lab, &node)?;
    let names = [
        "allowing",
        "denying",
        "telling",
        "nobody",
        "nobody-503",
        "nobody-open",
        "grpc",
        "missing",
    ];
    let policies = names.map(custom);
    // Both would allow it. As in Istio, two of them are not combined.
    let both = [policies[0].as_str(), policies[6].as_str()];
    let deny = "action: DENY\nrules: [{to: [{operation: {paths: [/checked/admin]}}]}]";
    let specs: Vec<Vec<&str>> = policies
        .iter()
        .map(|policy| vec![policy.as_str(), deny])
        .collect();
    let backends: Vec<(&'static str, &[&str])> = names
        .into_iter()
        .zip(specs.iter().map(Vec::as_slice))
        .chain([("both", &both[..])])
        .collect();
    let site = Site::start(lab, &backends)?;

    for name in names.into_iter().chain(["both"]) {
        ensure_status(&site, name, "/other", 200, "")?;
    }
    for (name, path, status, body) in [
        ("allowing", "/checked/x", 200, ""),
        // The authorizer's allowance does not overrule other policies.
        ("allowing", "/checked/admin", 403, "RBAC: access denied"),
        (
            "allowing",
            "/x/../checked/admin",
            403,
            "RBAC: access denied",
        ),
        ("denying", "/checked/x", 418, "teapot"),
        ("denying", "/x/../checked/x", 418, "teapot"),
        ("nobody", "/checked/x", 403, ""),
        ("nobody-503", "/checked/x", 503, ""),
        ("nobody-open", "/checked/x", 200, ""),
        ("nobody-open", "/checked/admin", 403, "RBAC: access denied"),
        ("grpc", "/checked/x", 200, ""),
        ("grpc", "/checked/deny", 401, "not today"),
        ("missing", "/checked/x", 403, "RBAC: access denied"),
        ("both", "/checked/x", 403, "RBAC: access denied"),
    ] {
        ensure_status(&site, name, path, status, body)?;
    }
    let denial = call(&site, "denying", "/checked/x", "")?;
    ensure!(
        denial.head.to_lowercase().contains("x-why: because"),
        "{denial:?}"
    );
    every_value_is_shown(&site, &allowing)?;
    headers_are_changed_on_allowance(&site)?;
    ensure!(
        grpc.log()
            .contains("/envoy.service.auth.v3.Authorization/Check")
            && grpc
                .log()
                .contains("spiffe://cluster.local/ns/caller/sa/default"),
        "{}",
        grpc.log()
    );
    what_is_no_request_cannot_be_asked_about(&site)
}

/// The application gets the authorizer's headers for the request, and the client those for the answer,
/// whatever they sent themselves.
fn headers_are_changed_on_allowance(site: &Site) -> Result<()> {
    let answer = call(site, "telling", "/checked/x", "x-user: mallory\r\n")?;
    let told = answer.head.to_lowercase();
    ensure!(
        answer.status == 200 && told.contains("x-told: yes") && !told.contains("x-other"),
        "{answer:?}"
    );
    let heads = site.backend("telling")?.web.heads();
    let head = heads
        .last()
        .context("the application saw nothing")?
        .to_lowercase();
    ensure!(
        head.contains("x-user: alice") && !head.contains("mallory") && !head.contains("x-told"),
        "{head}"
    );
    Ok(())
}

///
fn every_value_is_shown(site: &Site, authorizer: &WebServer) -> Result<()> {
    let roles = "x-role: user\r\nx-role: admin\r\nx-other: no\r\n";
    let answer = call(site, "allowing", "/checked/roles?x=1", roles)?;
    ensure!(answer.status == 200, "{answer:?}");
    let heads = authorizer.heads();
    let check = heads.iter().rfind(|head| head.contains("/checked/roles"));
    let check = check.context("it was not asked")?.to_lowercase();
    ensure!(check.contains("x-role: user\r\nx-role: admin"), "{check}");
    ensure!(!check.contains("x-other"), "{check}");
    Ok(())
}

fn what_is_no_request_cannot_be_asked_about(site: &Site) -> Result<()> {
    for name in ["allowing", "nobody-open", "grpc"] {
        let backend = site.backend(name)?;
        let known = seen(site, name)?;
        let call = RawCall {
            to: backend.pod.at(Site::UNDECLARED_PORT),
            bytes: b"GET /other HTTP/1.1\r\nHost: web\r\n\r\n",
            until: Until::Answers(1),
        };
        let reply = call.make(site.caller.place())?;
        ensure!(
            reply.answers.is_empty() && reply.end != RawEnd::Silent && seen(site, name)? == known,
            "{name}: {reply:?}"
        );
    }
    Ok(())
}

fn a_changed_provider_is_asked_from_then_on(lab: &Lab) -> Result<()> {
    let node = lab.node(NodeName::B)?;
    let _allowing = WebServer::start(lab, &node, &[outside(ALLOWING)])?;
    let config = |port| mesh_config(&[("provider", HTTP, port, "")]);
    lab.manifests().write("istio.yaml", &config(NOBODY))?;
    let site = Site::start(lab, &[("web", &[&custom("provider")])])?;
    ensure_status(&site, "web", "/checked", 403, "")?;
    let becomes = |status: u16| {
        eventually(SOON, &format!("status {status}"), || {
            ensure_status(&site, "web", "/checked", status, "").ok()
        })
    };
    lab.manifests().write("istio.yaml", &config(ALLOWING))?;
    becomes(200)?;
    lab.manifests()
        .write("istio.yaml", &mesh_config(&[("other", HTTP, ALLOWING, "")]))?;
    becomes(403)
}

const DRY_RUN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: dry-deny, namespace: web, annotations: {istio.io/dry-run: 'true'}}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/dry]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: dry-allow, namespace: web, annotations: {istio.io/dry-run: 'true'}}
spec:
  rules: [{to: [{operation: {paths: [/dry, /audited]}}]}]
";

fn audits_and_dry_runs_are_noted_and_change_nothing(lab: &Lab) -> Result<()> {
    lab.manifests().write("dry.yaml", DRY_RUN)?;
    let audit = "action: AUDIT\nrules: [{to: [{operation: {paths: [/audited, /admin]}}]}]";
    let deny = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";
    let site = Site::start(lab, &[("web", &[audit, deny])])?;
    let agent = &site.agents[1];
    for (path, status, notes) in [
        (
            "/audited",
            200,
            &[
                ("audited", "web/web-0 rule 0"),
                ("dry-run-allowed", "web/dry-allow"),
            ][..],
        ),
        // A request that is denied is noted, too.
        (
            "/admin",
            403,
            &[
                ("audited", "web/web-0 rule 0"),
                ("dry-run-not-allowed", "web/dry-allow"),
            ],
        ),
        (
            "/x/../dry",
            200,
            &[
                ("dry-run-denied", "web/dry-deny rule 0"),
                ("dry-run-allowed", "web/dry-allow"),
            ],
        ),
        ("/other", 200, &[("dry-run-not-allowed", "web/dry-allow")]),
    ] {
        let start = agent.log().len();
        ensure_status(&site, "web", path, status, "")?;
        let expected = notes.len();
        let noted = eventually(SOON, "the notes in the log", || {
            let log = agent.log();
            let noted: Vec<Value> = log[start..].lines().filter_map(note).collect();
            (noted.len() >= expected).then_some(noted)
        })?;
        let is_noted = |(word, policy): &(&str, &str)| {
            let mut noted = noted.iter();
            noted.any(|fields| {
                let own = fields["policy"].as_str().unwrap_or_default();
                fields["note"] == *word && own.contains(policy)
            })
        };
        ensure!(
            noted.len() == expected && notes.iter().all(is_noted),
            "{path}: {noted:?}"
        );
        let path = path.trim_start_matches("/x/..");
        let are_whole = noted.iter().all(|fields| {
            fields["path"] == path && fields["identity"] == Site::CALLER && fields["host"] == "web"
        });
        ensure!(are_whole, "{noted:?}");
    }
    let counted = &agent.ask("status")?["proxy"]["noted"];
    let expected = serde_json::json!({
        "audited": 2, "dry-run-allowed": 2, "dry-run-denied": 1, "dry-run-not-allowed": 2,
    });
    ensure!(*counted == expected, "{counted}");
    let events = agent.ask("events")?;
    for (kind, reason, request, policy) in [
        ("note", "audited", "GET /audited", "web/web-0 rule 0"),
        ("note", "audited", "GET /admin", "web/web-0 rule 0"),
        ("note", "dry-run-denied", "GET /dry", "web/dry-deny rule 0"),
        (
            "denial",
            "denied-by-policy",
            "GET /admin",
            "web/web-1 rule 0",
        ),
    ] {
        let mut all = events.as_array().into_iter().flatten();
        let is_kept = all.any(|event| {
            event["kind"] == kind
                && event["reason"] == reason
                && event["request"] == request
                && event["identity"] == Site::CALLER
                && event["direction"] == "inbound"
                && event["decided_in"] == "proxy"
                && event["policy"]
                    .as_str()
                    .is_some_and(|own| own.ends_with(policy))
        });
        ensure!(is_kept, "no {kind} {reason} of {request}: {events}");
    }
    are_counted_by_rule(agent)
}

/// Status and metrics show how often each rule noted or denied something.
fn are_counted_by_rule(agent: &Agent) -> Result<()> {
    let status = agent.ask("status")?;
    let metrics = agent.metrics()?;
    let rules = [
        ("note", "audited", "web/web-0 rule 0", 2),
        ("note", "dry-run-denied", "web/dry-deny rule 0", 1),
        ("denial", "denied-by-policy", "web/web-1 rule 0", 1),
    ];
    for (kind, reason, rule, count) in rules {
        let policy = format!("AuthorizationPolicy {rule}");
        let expected = serde_json::json!({
            "kind": kind,
            "decided_in": "proxy",
            "reason": reason,
            "policy": policy,
            "count": count,
        });
        let mut counted = status["rules"].as_array().into_iter().flatten();
        let is_counted = counted.any(|own| *own == expected);
        ensure!(is_counted, "no {expected}: {}", status["rules"]);
        let labels =
            format!("kind=\"{kind}\",decided_in=\"proxy\",reason=\"{reason}\",policy=\"{policy}\"");
        let line = format!("ambit_events_total{{{labels}}} {count}");
        let is_served = metrics.lines().any(|own| own == line);
        ensure!(is_served, "no {line}:\n{metrics}");
    }
    Ok(())
}

/// A line about something noted.
fn note(line: &str) -> Option<Value> {
    let entry: Value = serde_json::from_str(line).ok()?;
    (entry["target"] == "ambit::audit").then(|| entry["fields"].clone())
}
