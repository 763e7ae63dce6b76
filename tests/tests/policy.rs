//! Authorization: the verdicts of policies, and their changes while connections are open.

use std::net::SocketAddr;
use std::process::ExitCode;

use ambit_tests::{
    Agent, HeldConnection, Lab, LabServer, Mode, NodeName, Place, Reference, SOON, eventually,
    get_from, run_tests, tests,
};
use anyhow::{Result, ensure};

const PORT: u16 = Reference::PORT;
const OTHER_PORT: u16 = 9090;

fn main() -> ExitCode {
    run_tests(tests![
        a_new_policy_closes_an_established_connection,
        a_new_label_closes_an_established_connection,
        denial_wins_over_permission,
        namespaces_and_ports_are_told_apart,
        a_permissive_port_admits_plaintext,
        a_field_that_is_not_enforced_refuses_everything,
        a_broken_file_keeps_its_last_good_version,
        a_policy_of_a_misspelt_kind_is_never_silently_skipped,
    ])
}

fn a_new_policy_closes_an_established_connection(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Echo, PORT)?;
    let mut caller = HeldConnection::open(lab, mesh.frontend.place(), mesh.orders.at(PORT))?;
    caller.echo("allowed")?;
    lab.manifests()
        .write("deny.yaml", &policy("orders", DENY_FRONTEND))?;
    caller.end()?;
    becomes(Mesh::Refuses, mesh.frontend.place(), mesh.orders.at(PORT))
}

fn a_new_label_closes_an_established_connection(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let rule = format!("selector: {{matchLabels: {{tier: closed}}}}\n{DENY_FRONTEND}");
    lab.manifests()
        .write("deny.yaml", &policy("orders", &rule))?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Echo, PORT)?;
    let mut caller = HeldConnection::open(lab, mesh.frontend.place(), mesh.orders.at(PORT))?;
    caller.echo("not selected")?;
    let mut orders = mesh.orders.manifest();
    orders["metadata"]["labels"]["tier"] = "closed".into();
    lab.manifests()
        .write_object(&mesh.orders.file_name(), &orders)?;
    caller.end()?;
    Ok(())
}

fn denial_wins_over_permission(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests()
        .write("deny.yaml", &policy("orders", DENY_FRONTEND))?;
    let _agents = lab.start_agents()?;
    let server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    ensure!(server.connections().is_empty());
    Ok(())
}

fn namespaces_and_ports_are_told_apart(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let rule = format!(
        "rules: [{{from: [{{source: {{namespaces: [payments]}}}}], \
         to: [{{operation: {{ports: ['{OTHER_PORT}']}}}}]}}]"
    );
    lab.manifests()
        .write("allow.yaml", &policy("frontend", &rule))?;
    let _agents = lab.start_agents()?;
    let servers =
        [PORT, OTHER_PORT].map(|port| LabServer::in_pod(lab, &mesh.frontend, Mode::Http, port));
    for (caller, port, answered) in [
        (&mesh.payments, OTHER_PORT, true),
        (&mesh.payments, PORT, false),
        (&mesh.orders, OTHER_PORT, false),
        (&mesh.orders, PORT, false),
    ] {
        let reply = get_from(caller.place(), mesh.frontend.at(port))?;
        let as_ruled = if answered {
            reply.is_answer()
        } else {
            reply.is_refusal()
        };
        ensure!(as_ruled, "{} to port {port}: {reply:?}", caller.name());
    }
    servers.into_iter().try_for_each(|server| server.map(drop))
}

fn a_permissive_port_admits_plaintext(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let _open = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, PORT)?;
    let _strict = LabServer::in_pod(lab, &mesh.frontend, Mode::Http, OTHER_PORT)?;
    let intruder = mesh.intruder.place();
    becomes(Mesh::Refuses, intruder, mesh.frontend.at(PORT))?;
    lab.manifests().write("permissive.yaml", PERMISSIVE_PORT)?;
    becomes(Mesh::Answers, intruder, mesh.frontend.at(PORT))?;
    becomes(Mesh::Refuses, intruder, mesh.frontend.at(OTHER_PORT))?;
    becomes(Mesh::Answers, mesh.orders.place(), mesh.frontend.at(PORT))
}

fn a_field_that_is_not_enforced_refuses_everything(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    becomes(Mesh::Answers, mesh.frontend.place(), mesh.orders.at(PORT))?;
    let rule = "action: DENY\nrules: [{when: [{key: connection.sni, values: [orders]}]}]";
    lab.manifests().write("sni.yaml", &policy("orders", rule))?;
    becomes(Mesh::Refuses, mesh.frontend.place(), mesh.orders.at(PORT))?;
    let shown = agents[1].ask("policies")?.to_string();
    ensure!(
        shown.contains("when[0].key"),
        "the field is not named: {shown}"
    );
    Ok(())
}

fn a_broken_file_keeps_its_last_good_version(lab: &Lab) -> Result<()> {
    let (mesh, agents) = Reference::start(lab)?;
    let _orders = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let _payments = LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?;
    lab.manifests().write(Reference::POLICIES_FILE, "kind: [")?;
    eventually(SOON, "the fault in the status", || {
        let status = agents[0].ask("status").ok()?;
        status
            .to_string()
            .contains(Reference::POLICIES_FILE)
            .then_some(())
    })?;
    becomes(Mesh::Answers, mesh.frontend.place(), mesh.orders.at(PORT))?;
    becomes(Mesh::Refuses, mesh.frontend.place(), mesh.payments.at(PORT))
}

/// Misspelt while the agents run: the last good version stays in force. Misspelt before they start:
/// nothing is served. Both are reported with the suggested kind.
fn a_policy_of_a_misspelt_kind_is_never_silently_skipped(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    let denial = policy("orders", DENY_FRONTEND);
    lab.manifests().write("deny.yaml", &denial)?;
    let agents = lab.start_agents()?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    becomes(Mesh::Refuses, mesh.frontend.place(), mesh.orders.at(PORT))?;
    let told = |agent: &Agent| {
        eventually(SOON, "the fault in the status", || {
            let status = agent.ask("status").ok()?.to_string();
            let is_told = status.contains("write AuthorizationPolicy if you mean that")
                && status.contains("AuthorisationPolicy orders/added");
            is_told.then_some(())
        })
    };
    let misspelt = denial.replace("AuthorizationPolicy", "AuthorisationPolicy");
    lab.manifests().write("deny.yaml", &misspelt)?;
    agents.iter().try_for_each(told)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(reply.is_refusal(), "the denial is gone: {reply:?}");
    drop(agents);
    let agents = [lab.spawn_agent(NodeName::A)?, lab.spawn_agent(NodeName::B)?];
    agents.iter().try_for_each(told)?;
    let reply = get_from(mesh.frontend.place(), mesh.orders.at(PORT))?;
    ensure!(!reply.is_answer(), "the denial is absent: {reply:?}");
    lab.manifests()
        .write("deny.yaml", "# nothing is denied\n")?;
    becomes(Mesh::Answers, mesh.frontend.place(), mesh.orders.at(PORT))
}

const DENY_FRONTEND: &str = "action: DENY
rules: [{from: [{source: {principals: [cluster.local/ns/frontend/sa/default]}}]}]";

const PERMISSIVE_PORT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: frontend}
spec:
  selector: {matchLabels: {app: frontend}}
  mtls: {mode: STRICT}
  portLevelMtls: {8080: {mode: PERMISSIVE}}
";

/// An AuthorizationPolicy of a namespace.
fn policy(namespace: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: added, namespace: {namespace}}}\nspec:\n  {spec}\n"
    )
}

/// The result of a call after a change.
#[derive(Clone, Copy, Debug)]
enum Mesh {
    Answers,
    Refuses,
}

fn becomes(expected: Mesh, caller: &Place, server: SocketAddr) -> Result<()> {
    eventually(SOON, &format!("{server}: the mesh {expected:?}"), || {
        let reply = get_from(caller, server).ok()?;
        let met = match expected {
            Mesh::Answers => reply.is_answer(),
            Mesh::Refuses => reply.is_refusal(),
        };
        met.then_some(())
    })
}
