//! Authorizers that follow HTTP no better than most servers, and callers that exploit this.

use ambit_tests::{
    Lab, NodeName, PythonAuthorizer, RawCall, RawReply, SOON, Site, Until, eventually,
};
use anyhow::{Context, Result, ensure};

use super::{CARELESS, HTTP, call, custom, ensure_status, mesh_config, outside, seen};

/// Requests of each kind.
const TRIES: usize = 40;

/// Taken for an answer of the authorizer, this allows.
const ALLOWING: &str = "HTTP/1.1%20200%20OK%0d%0acontent-length:%200%0d%0a%0d%0a";

fn send(site: &Site, name: &str, bytes: &[u8], answers: usize) -> Result<RawReply> {
    let call = RawCall {
        to: site.backend(name)?.service.at(),
        bytes,
        until: Until::Answers(answers),
    };
    call.make(site.caller.place())
}

/// A body that should not be there, or that the authorizer takes for a request, is not taken for
/// the answer to another check.
pub(super) fn late_answers_permit_nothing(lab: &Lab) -> Result<()> {
    let body = ", includeRequestBodyInCheck: {maxRequestBytes: 8192}";
    let providers = [
        ("plain", HTTP, CARELESS, ""),
        ("shown", HTTP, CARELESS, body),
    ];
    lab.manifests()
        .write("istio.yaml", &mesh_config(&providers))?;
    let _authorizer = PythonAuthorizer::start(lab, &lab.node(NodeName::B)?, outside(CARELESS))?;
    let policies = ["plain", "shown"].map(custom);
    let site = Site::start(
        lab,
        &[
            ("plain", &[policies[0].as_str()]),
            ("shown", &[policies[1].as_str()]),
        ],
    )?;
    ensure_status(&site, "plain", "/checked/ok", 200, "")?;
    ensure_status(&site, "shown", "/checked/ok", 200, "")?;
    let secret = "GET /checked/secret HTTP/1.1\r\nHost: web\r\n\r\n";
    let head = format!("HEAD /checked?q={ALLOWING} HTTP/1.1\r\nHost: web\r\n\r\n");
    let smuggled = "GET /checked/ok HTTP/1.1\r\nHost: web\r\n\r\n";
    let post = format!(
        "POST /checked HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let mut wrong = Vec::new();
    for (name, first) in [("plain", head), ("shown", post)] {
        let known = seen(&site, name)?;
        let bytes = format!("{first}{secret}").repeat(TRIES);
        let statuses = send(&site, name, bytes.as_bytes(), 2 * TRIES)?.statuses();
        let permitted = statuses.iter().filter(|status| **status != 403).count();
        let new = seen(&site, name)? - known;
        if statuses.len() != 2 * TRIES || permitted > 0 || new > 0 {
            let answers = statuses.len();
            wrong.push(format!(
                "{name}: of {answers} answers {permitted} were not 403, and the application saw {new}"
            ));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// `failOpen` is for an authorizer that fails, not for a request on which it does.
pub(super) fn fail_open_is_not_for_callers_to_bring_about(lab: &Lab) -> Result<()> {
    let providers = mesh_config(&[("open", HTTP, CARELESS, ", failOpen: true")]);
    lab.manifests().write("istio.yaml", &providers)?;
    let authorizer = PythonAuthorizer::start(lab, &lab.node(NodeName::B)?, outside(CARELESS))?;
    let policy = custom("open");
    let site = Site::start(lab, &[("open", &[policy.as_str()])])?;
    ensure_status(&site, "open", "/checked/ok", 200, "")?;
    ensure_status(&site, "open", "/checked/x", 403, "")?;
    let long = format!("/checked/{}", "x".repeat(9_000));
    let refused = || {
        // The answer breaks off.
        ensure_status(&site, "open", &long, 403, "")?;
        // Python answers 501 to unknown methods.
        let known = seen(&site, "open")?;
        let brew = b"BREW /checked/ok HTTP/1.1\r\nHost: web\r\n\r\n";
        let reply = send(&site, "open", brew, 1)?;
        ensure!(
            reply.statuses() == [403] && seen(&site, "open")? == known,
            "{reply:?}"
        );
        Ok(())
    };
    refused()?;
    drop(authorizer);
    eventually(SOON, "failing open", || {
        ensure_status(&site, "open", "/checked/x", 200, "").ok()
    })?;
    refused()
}

/// The application gets the caller's name from the authorizer, and nothing that it could confuse with that.
pub(super) fn only_the_authorizer_says_who_calls(lab: &Lab) -> Result<()> {
    let outputs = ", headersToUpstreamOnAllow: [x-auth-user, x-auth-group]";
    let open = ", headersToUpstreamOnAllow: [x-auth-user], failOpen: true";
    let nobody = super::NOBODY;
    let providers = [
        ("telling", HTTP, CARELESS, outputs),
        ("open", HTTP, nobody, open),
    ];
    lab.manifests()
        .write("istio.yaml", &mesh_config(&providers))?;
    let _authorizer = PythonAuthorizer::start(lab, &lab.node(NodeName::B)?, outside(CARELESS))?;
    let policies = ["telling", "open"].map(custom);
    let site = Site::start(
        lab,
        &[
            ("telling", &[policies[0].as_str()]),
            ("open", &[policies[1].as_str()]),
        ],
    )?;
    let forged = "X-Auth-User: mallory\r\nX_Auth_User: mallory\r\nx-auth_user: mallory\r\n\
                  X.Auth.User: mallory\r\nX-Other: other\r\n";
    for (name, expected) in [
        ("telling", "x-auth-user: alice"),
        ("open", "x-other: other"),
    ] {
        let group = "X-Auth-Group: mallory\r\nX_Auth_Group: mallory\r\n";
        let lines = match name {
            "telling" => format!("{forged}{group}"),
            _ => forged.to_owned(),
        };
        let answer = call(&site, name, "/checked/ok", &lines)?;
        ensure!(answer.status == 200, "{name}: {answer:?}");
        let heads = site.backend(name)?.web.heads();
        let head = heads.last().context("the application saw nothing")?;
        let head = head.to_lowercase();
        let is_right = head.contains(expected) && head.contains("x-other: other");
        ensure!(is_right && !head.contains("mallory"), "{name}: {head}");
    }
    Ok(())
}
