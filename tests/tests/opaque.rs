//! Connections that are not HTTP, under policies that depend on requests, through two nodes. The
//! numbers are those of the cases in the specification of policies.

use std::process::ExitCode;

use ambit_tests::{
    Backend, HeldConnection, Lab, LabServer, Mode, Place, RawCall, RawEnd, RawReply, SOON, Site,
    Until, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A port that [`Site::declare`] declares.
const DECLARED: u16 = 8090;

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

const ALLOW_CALLER: &str =
    "rules: [{from: [{source: {principals: [cluster.local/ns/caller/sa/default]}}]}]";

fn main() -> ExitCode {
    run_tests(tests![t_what_is_not_http_is_judged_as_a_whole])
}

fn raw(from: &Place, backend: &Backend, bytes: &[u8], until: Until) -> Result<RawReply> {
    let to = backend.service.at();
    RawCall { to, bytes, until }.make(from)
}

/// Requests without a body, one after the other.
fn requests(lines: &[&str]) -> Vec<u8> {
    let one = |line: &&str| format!("{line} HTTP/1.1\r\nHost: web\r\n\r\n");
    lines.iter().map(one).collect::<String>().into_bytes()
}

/// The beginning of SSH.
const NOT_HTTP: &[u8] = b"SSH-2.0-OpenSSH_9.6\r\n";

fn t_what_is_not_http_is_judged_as_a_whole(lab: &Lab) -> Result<()> {
    for name in ["web", "first", "tokens"] {
        Site::declare(lab, name, DECLARED, "http")?;
    }
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                  metadata: {name: tokens, namespace: web}\n\
                  spec: {selector: {matchLabels: {app: tokens}}, \
                  jwtRules: [{issuer: i, jwksUri: 'http://127.0.0.1:9/'}]}\n";
    lab.manifests().write("tokens.yaml", tokens)?;
    let site = Site::start(
        lab,
        &[
            ("web", &[DENY_ADMIN]),
            ("first", &[ALLOW_CALLER, DENY_ADMIN]),
            ("tokens", &[]),
            (
                "t1",
                &["action: DENY\nrules: [{to: [{operation: {methods: [GET]}}]}]"],
            ),
            ("t2", &["rules: [{to: [{operation: {methods: [GET]}}]}]"]),
            (
                "t3",
                &["rules: [{to: [{operation: {ports: ['9090']}}, {operation: {methods: [GET]}}]}]"],
            ),
            ("t0", &["rules: [{to: [{operation: {ports: ['9090']}}]}]"]),
        ],
    )?;
    on_a_declared_port(lab, &site)?;
    a_server_that_speaks_first_is_not_waited_for(lab, &site)?;
    on_an_undeclared_port(&site)
}

/// A denial of a path denies connections without one.
fn on_a_declared_port(lab: &Lab, site: &Site) -> Result<()> {
    let web = site.backend("web")?;
    for bytes in [
        NOT_HTTP,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\n\nGET /ok HTTP/1.1\r\nHost: web\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ] {
        let reply = raw(site.caller.place(), web, bytes, Until::End)?;
        ensure!(
            reply.answers.is_empty() && reply.end == RawEnd::Reset,
            "{}: {reply:?}",
            bytes.escape_ascii()
        );
    }
    ensure!(web.web.heads().is_empty(), "{:?}", web.web.heads());
    let ok = raw(
        site.caller.place(),
        web,
        &requests(&["GET /ok"]),
        Until::Answers(1),
    )?;
    ensure!(ok.statuses() == [200], "{ok:?}");
    // If rules are about tokens only, the connection has none, and passes.
    let tokens = site.backend("tokens")?;
    let _echo = LabServer::in_pod(lab, &tokens.pod, Mode::Echo, DECLARED)?;
    let mut held = HeldConnection::open(lab, site.caller.place(), tokens.pod.at(DECLARED))?;
    held.echo("SSH-2.0-OpenSSH_9.6")?;
    held.echo("GET / HTTP/1.1")
}

fn a_server_that_speaks_first_is_not_waited_for(lab: &Lab, site: &Site) -> Result<()> {
    let first = site.backend("first")?;
    let _banner = LabServer::in_pod(lab, &first.pod, Mode::Banner, DECLARED)?;
    let call = RawCall {
        to: first.pod.at(DECLARED),
        bytes: b"",
        until: Until::End,
    };
    let reply = call.make(site.caller.place())?;
    let is_refused = reply.answers.is_empty() && reply.rest.is_empty();
    ensure!(is_refused && reply.end == RawEnd::Reset, "{reply:?}");
    let at = call.to.to_string();
    eventually(SOON, "the refusal in the log", || {
        let log = site.agents[1].log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| {
            let fields = &line["fields"];
            fields["destination.address"] == at.as_str() && fields["outcome"] == "refused"
        })
    })?;
    let events = site.agents[1].ask("events")?;
    let mut events = events.as_array().into_iter().flatten();
    let event = events.find(|event| event["destination"] == at.as_str());
    let event = event.context("the refusal is not an event")?;
    let policy = event["policy"].as_str().unwrap_or_default();
    ensure!(
        event["kind"] == "denial"
            && event["decided_in"] == "proxy"
            && event["request"] == Value::Null
            && policy == "AuthorizationPolicy web/first-1 rule 0",
        "{event}"
    );
    Ok(())
}

fn on_an_undeclared_port(site: &Site) -> Result<()> {
    for (case, name, passes) in [
        ("a denial of a path", "web", false),
        ("T-1", "t1", false),
        ("T-2", "t2", false),
        ("T-3", "t3", false),
        ("a permission of the port alone", "t0", true),
        ("rules for tokens alone", "tokens", true),
    ] {
        let backend = site.backend(name)?;
        let known = backend.web.heads().len();
        let call = RawCall {
            to: backend.pod.at(Site::UNDECLARED_PORT),
            bytes: &requests(&["POST /ok"]),
            until: Until::Answers(1),
        };
        let reply = call.make(site.caller.place())?;
        let heads = backend.web.heads().len();
        let as_ruled = if passes {
            reply.statuses() == [200] && heads == known + 1
        } else {
            reply.answers.is_empty() && reply.end != RawEnd::Silent && heads == known
        };
        ensure!(as_ruled, "{case}: {reply:?}");
    }
    Ok(())
}
