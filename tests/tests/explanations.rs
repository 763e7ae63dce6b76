//! Compares what `ambit explain` and `ambit validate` say with what really happens.

use std::fs;
use std::process::ExitCode;

use ambit_tests::{Application, Call, Lab, LogMark, Policies, Reference, ambit, run_tests, tests};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn main() -> ExitCode {
    run_tests(tests![
        explanations_agree_with_what_happens,
        configuration_is_validated_before_it_is_used,
    ])
}

/// The part of an explanation that the log has too.
#[derive(Debug)]
struct Explained {
    verdict: String,
    layer: String,
    policy: String,
    notes: String,
}

impl Explained {
    fn read(answer: &Value) -> Result<Self> {
        let results = answer["results"].as_array().context("no results")?;
        let [result] = results.as_slice() else {
            anyhow::bail!("not one result: {answer}");
        };
        let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            verdict: text("verdict"),
            layer: text("decided")
                .split('-')
                .next()
                .unwrap_or_default()
                .to_owned(),
            policy: policy(&result["cause"]),
            notes: result["notes"].to_string(),
        })
    }
}

/// The object that is the cause, and its rule, in the form of the logs.
fn policy(cause: &Value) -> String {
    let named = ["rule", "object"]
        .into_iter()
        .find_map(|name| cause.get(name));
    let name = named.unwrap_or(&cause["policies"][0]);
    let text = |field: &str| name[field].as_str().unwrap_or_default();
    match name["rule"].as_u64() {
        Some(rule) => format!("{} {} rule {rule}", text("kind"), text("name")),
        None => format!("{} {}", text("kind"), text("name")),
    }
}

fn explanations_agree_with_what_happens(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start_with(lab, Policies::PerRequest)?;
    let _application = Application::start(lab, &mesh)?;
    let calls = mesh.calls(lab)?;
    ensure!(calls.len() > 15);
    for call in &calls {
        let mark = LogMark::now(&agents);
        let reply = call.make()?;
        let named = || format!("{} → {}: {reply:?}", call.caller, call.called);
        if call.called == "outside the mesh" {
            let refusal = agents[0].explain(&call.question()?);
            ensure!(refusal.is_err() && reply.is_answer(), "{}", named());
            continue;
        }
        let explained = explained_by_all(call, &agents).with_context(named)?;
        let Some(decider) = call.decider else {
            // The node's own probes are not judged, but a pod on its network is refused.
            ensure!(reply.is_answer() && call.caller == "node A", "{}", named());
            ensure!(
                explained.notes.contains("probes"),
                "{}: {explained:?}",
                named()
            );
            continue;
        };
        let happened = mark
            .decision_about(&agents, decider.pod)
            .with_context(named)?;
        let verdict = if reply.is_answer() { "ALLOW" } else { "DENY" };
        ensure!(
            explained.verdict == verdict
                && explained.layer == happened.layer
                && explained.policy == happened.decided_by,
            "{}: {explained:?}, and it happened: {happened:?}",
            named()
        );
    }
    Ok(())
}

/// Both agents give the same explanation.
fn explained_by_all(call: &Call, agents: &[ambit_tests::Agent; 2]) -> Result<Explained> {
    let question = call.question()?;
    let [one, other] = agents.each_ref().map(|agent| agent.explain(&question));
    let (one, other) = (one?, other?);
    ensure!(one == other, "{one} and {other}");
    Explained::read(&one)
}

const MISSPELT: &str = "
apiVersion: security.istio.io/v1
kind: AuthorisationPolicy
metadata: {name: deny, namespace: orders}
spec: {action: DENY, rules: [{}]}
";

const BROKEN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: right, namespace: orders}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: wrong, namespace: orders}
spec:
  action: DENY
  rules:
  - to:
    - operation:
        paths: ['/a{b}']
";

fn configuration_is_validated_before_it_is_used(lab: &Lab) -> Result<()> {
    let _mesh = Reference::build(lab)?;
    let directory = lab.manifests().directory().to_str().context("no text")?;
    let right = ambit(&["validate", "-f", directory])?;
    ensure!(right.status.code() == Some(0), "{right:?}");
    let broken = lab.directory().join("broken.yaml");
    fs::write(&broken, BROKEN)?;
    let broken = broken.to_str().context("no text")?;
    let wrong = ambit(&["validate", "-o", "json", "-f", directory, broken])?;
    ensure!(wrong.status.code() == Some(1), "{wrong:?}");
    let report: Value = serde_json::from_str(&wrong.stdout)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let found = findings
        .iter()
        .find(|finding| finding["severity"] == "error");
    let found = found.with_context(|| format!("no error in {report}"))?;
    ensure!(
        found["file"] == broken
            && found["document"] == 2
            && found["field"] == "spec.rules[0].to[0].operation.paths[0]"
            && found["line"] == 15,
        "{found}"
    );
    let said = ambit(&["validate", "-f", broken])?.stdout;
    let place = "broken.yaml:2 (line 15) AuthorizationPolicy orders/wrong";
    ensure!(said.contains(place), "{said}");
    let misspelt = lab.directory().join("misspelt.yaml");
    fs::write(&misspelt, MISSPELT)?;
    let misspelt = misspelt.to_str().context("no text")?;
    let wrong = ambit(&["validate", "-f", misspelt])?;
    ensure!(wrong.status.code() == Some(1), "{wrong:?}");
    let hint = "write AuthorizationPolicy if you mean that";
    ensure!(wrong.stdout.contains(hint), "{wrong:?}");
    Ok(())
}
