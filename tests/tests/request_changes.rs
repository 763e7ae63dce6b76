//! Live requests and connections while policies change that depend on requests.

use std::process::ExitCode;

use ambit_tests::{
    Agent, HeldConnection, Lab, LabServer, Mode, SOON, Site, eventually, run_tests, tests,
};
use anyhow::{Result, ensure};
use serde_json::Value;

/// A port that [`Site::declare`] declares.
const DECLARED: u16 = 8090;

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";
const DENY_SLOW: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/slow, /ws]}}]}]";
const DENY_SLOW_HOST: &str = "action: DENY\nrules: [{to: [{operation: {hosts: [slow]}}]}]";

fn main() -> ExitCode {
    run_tests(tests![
        a_request_that_is_denied_now_ends_and_others_go_on,
        a_connection_that_could_carry_anything_ends_when_requests_matter,
        a_pods_new_label_ends_what_its_policies_deny,
    ])
}

/// A live request.
fn start(lab: &Lab, site: &Site, name: &str, path: &str, host: &str) -> Result<HeldConnection> {
    let backend = site.backend(name)?;
    let mut connection = HeldConnection::open(lab, site.caller.place(), backend.service.at())?;
    let upgrade = match path {
        "/ws" => "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        _ => "",
    };
    connection.send(&format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r"
    ))?;
    let status = connection.received()?;
    let is_begun = status == "HTTP/1.1 200 OK" || status == "HTTP/1.1 101 Switching Protocols";
    ensure!(is_begun, "{path}: {status}");
    Ok(connection)
}

/// Makes a request on a persistent connection, and checks the status of its answer.
fn ensure_answered(connection: &mut HeldConnection, path: &str, status: u16) -> Result<()> {
    connection.send(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r"))?;
    let expected = format!("HTTP/1.1 {status}");
    connection.wait_for(&expected)
}

/// The access log's lines about requests for a path that were ended.
fn terminated(agent: &Agent, path: &str) -> Vec<Value> {
    let log = agent.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .map(|line| line["fields"].clone())
        .filter(|fields| fields["outcome"] == "terminated")
        .filter(|fields| path.is_empty() || fields["request.path"] == path)
        .collect()
}

fn a_request_that_is_denied_now_ends_and_others_go_on(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let mut download = start(lab, &site, "web", "/slow", "web")?;
    let mut other_download = start(lab, &site, "web", "/slow", "slow")?;
    let mut socket = start(lab, &site, "web", "/ws", "web")?;
    socket.echo("before")?;
    let mut idle =
        HeldConnection::open(lab, site.caller.place(), site.backend("web")?.service.at())?;
    ensure_answered(&mut idle, "/ok", 200)?;

    // Another rule denies one of the two downloads.
    Site::set_policies(lab, "web", &[DENY_ADMIN, DENY_SLOW_HOST])?;
    ensure!(
        other_download.end()? != "closed",
        "a cut answer looked whole"
    );
    socket.echo("after the first change")?;
    download.more()?;
    let ended = eventually(SOON, "the end in the log", || {
        let ended = terminated(&site.agents[1], "/slow");
        (!ended.is_empty()).then_some(ended)
    })?;
    ensure!(ended.len() == 1, "{ended:?}");
    ensure!(
        ended[0]["request.host"] == "slow"
            && ended[0]["decider"] == "AuthorizationPolicy web/web-1 rule 0"
            && ended[0]["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("terminated by policy change")),
        "{ended:?}"
    );

    // A rule about the path denies both that are left.
    Site::set_policies(lab, "web", &[DENY_ADMIN, DENY_SLOW])?;
    ensure!(download.end()? != "closed", "a cut answer looked whole");
    socket.end()?;
    for path in ["/slow", "/ws"] {
        let what = format!("the end of {path} in the log");
        eventually(SOON, &what, || terminated(&site.agents[1], path).pop())?;
    }
    // The idle connection stays open, and its requests are judged by the new policies.
    ensure_answered(&mut idle, "/ok", 200)?;
    ensure_answered(&mut idle, "/slow", 403)?;
    ensure_answered(&mut idle, "/ok", 200)?;
    let requests = &site.agents[1].ask("status")?["proxy"]["requests"];
    ensure!(requests["terminated"] == 3, "{requests}");
    Ok(())
}

fn a_connection_that_could_carry_anything_ends_when_requests_matter(lab: &Lab) -> Result<()> {
    Site::declare(lab, "web", DECLARED, "http")?;
    Site::declare(lab, "other", DECLARED, "http")?;
    let site = Site::start(lab, &[("web", &[]), ("other", &[])])?;
    let (web, other) = (site.backend("web")?, site.backend("other")?);
    let _echo = LabServer::in_pod(lab, &web.pod, Mode::Echo, DECLARED)?;
    let _other_echo = LabServer::in_pod(lab, &other.pod, Mode::Echo, DECLARED)?;
    let caller = site.caller.place();
    let mut carried = HeldConnection::open(lab, caller, web.pod.at(DECLARED))?;
    let mut elsewhere = HeldConnection::open(lab, caller, other.pod.at(DECLARED))?;
    let mut silent = HeldConnection::open(lab, caller, web.service.at())?;
    carried.echo("anything")?;
    elsewhere.echo("anything")?;
    eventually(SOON, "the silent one at the server", || {
        (web.web.connections() > 0).then_some(())
    })?;

    // It allows by identity what the caller does, and nothing depends on requests.
    let allow = format!(
        "rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]",
        Site::CALLER
    );
    Site::set_policies(lab, "web", &[&allow])?;
    eventually(SOON, "the policy in force", || {
        let shown = site.agents[1].ask("policies").ok()?.to_string();
        shown.contains("web-0").then_some(())
    })?;
    carried.echo("still anything")?;

    Site::set_policies(lab, "web", &[&allow, DENY_ADMIN])?;
    carried.end()?;
    silent.end()?;
    elsewhere.echo("still anything")?;
    let is_ours = |fields: &Value| {
        fields["destination.address"] == web.pod.at(DECLARED).to_string().as_str()
            && fields["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("requests"))
    };
    eventually(SOON, "the end in the log", || {
        terminated(&site.agents[1], "").into_iter().find(is_ours)
    })?;
    let ended = &site.agents[1].ask("status")?["proxy"]["terminated"];
    ensure!(ended["policy-changed"] == 2, "{ended}");
    // A new one is judged by its requests.
    let mut anew = HeldConnection::open(lab, caller, web.service.at())?;
    ensure_answered(&mut anew, "/admin", 403)?;
    ensure_answered(&mut anew, "/ok", 200)
}

fn a_pods_new_label_ends_what_its_policies_deny(lab: &Lab) -> Result<()> {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: closed, namespace: web}\n\
                  spec:\n  selector: {matchLabels: {tier: closed}}\n  action: DENY\n  \
                  rules: [{to: [{operation: {methods: [GET], paths: [/slow]}}]}]\n";
    lab.manifests().write("closed.yaml", policy)?;
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let mut download = start(lab, &site, "web", "/slow", "web")?;
    let mut socket = start(lab, &site, "web", "/ws", "web")?;
    let pod = &site.backend("web")?.pod;
    let mut labelled = pod.manifest();
    labelled["metadata"]["labels"]["tier"] = "closed".into();
    lab.manifests().write_object(&pod.file_name(), &labelled)?;
    ensure!(download.end()? != "closed", "a cut answer looked whole");
    socket.echo("still allowed")
}
