//! H, R, M: hosts, headers and methods; I: identities in plaintext.

use ambit_tests::{Lab, RawCall, Site, Until};
use anyhow::{Context, Result, ensure};

use crate::expected::{
    DENY_ADMIN,
    Expected::{Denied, Passes, Refused},
    ensure_comes, request,
};

const DENY_ROLE: &str =
    "action: DENY\nrules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}]";

pub(crate) fn h_r_m_hosts_headers_and_methods(lab: &Lab) -> Result<()> {
    let site = Site::start(
        lab,
        &[
            ("p1", &[DENY_ADMIN]),
            (
                "h1",
                &["action: DENY\nrules: [{to: [{operation: {hosts: [secret.com]}}]}]"],
            ),
            (
                "h2",
                &[
                    "action: DENY\nrules: [{to: [{operation: {hosts: [secret.com, 'secret.com:*']}}]}]",
                ],
            ),
            (
                "h3",
                &["action: DENY\nrules: [{to: [{operation: \
                   {hosts: [deny.x.com, '*.suffix.x.com', 'prefix.x.*']}}]}]"],
            ),
            (
                "h4",
                &["rules: [{to: [{operation: {notHosts: [deny.x.com]}}]}]"],
            ),
            ("r1", &[DENY_ROLE]),
            (
                "r7",
                &["rules: [{when: [{key: 'request.headers[x-role]', values: [user]}]}]"],
            ),
            (
                "r8",
                &["rules: [{when: [{key: 'request.headers[x-role]', notValues: [bar]}]}]"],
            ),
            (
                "r9",
                &[
                    "action: DENY\nrules: [{when: [{key: 'request.headers[x-role]', values: ['*']}]}]",
                ],
            ),
            (
                "r12",
                &[
                    "rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/trusted]}}], \
                   to: [{operation: {paths: [/x]}}]}, {to: [{operation: {paths: [/y]}}]}]",
                ],
            ),
            (
                "m2",
                &["action: DENY\nrules: [{to: [{operation: {methods: [GET]}}]}]"],
            ),
            ("m3", &["rules: [{to: [{operation: {notMethods: [PUT]}}]}]"]),
        ],
    )?;
    hosts(&site)?;
    headers(&site)?;
    forged_headers(&site)?;
    methods(&site)
}

fn hosts(site: &Site) -> Result<()> {
    for (case, name, host, expected) in [
        ("H-1", "h1", "Secret.COM", Denied),
        ("H-1", "h1", "secret.com", Denied),
        ("H-1", "h1", "other.com", Passes("GET /")),
        ("H-2", "h1", "secret.com:8080", Passes("GET /")),
        ("H-2", "h2", "secret.com:8080", Denied),
        ("H-2", "h2", "SECRET.com:80", Denied),
        ("H-3", "h3", "DENY.X.COM", Denied),
        ("H-3", "h3", "deny.suffix.x.com", Denied),
        ("H-3", "h3", "PREFIX.x.com", Denied),
        ("H-3", "h3", "allow.x.com", Passes("GET /")),
        ("H-4", "h4", "allow.x.com", Passes("GET /")),
        ("H-4", "h4", "deny.x.com", Denied),
        ("H-4", "h4", "Deny.x.com", Denied),
        ("H-5", "h1", "secret.com.", Denied),
        ("H-5", "h4", "deny.x.com.", Denied),
    ] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        ensure_comes(site, site.backend(name)?, bytes.as_bytes(), expected).context(case)?;
    }
    for (case, target, host, expected) in [
        // Two hosts are refused, whichever of them another reader would use.
        ("H-6, H-7", "http://secret.com/", "ok.com", Refused(400)),
        ("H-6, H-7", "http://ok.com/", "secret.com", Refused(400)),
        ("H-6", "http://secret.com/", "Secret.com", Denied),
        ("H-6", "http://SECRET.com/x", "secret.com", Denied),
        ("H-6", "http://ok.com/x", "ok.com", Passes("GET /x")),
        ("H-7", "/", "ok.com\r\nHost: ok.com", Refused(400)),
        ("H-7", "/", "ok.com\r\nhost: secret.com", Refused(400)),
        ("H-7", "/", "ok.com,secret.com", Refused(400)),
        ("H-7", "/", "user@secret.com", Refused(400)),
        ("T-13", "HTTP://Secret.com/", "secret.com", Denied),
        ("T-13", "hTTp://ok.com/", "ok.com", Passes("GET /")),
        ("T-13", "ftp://ok.com/", "ok.com", Refused(400)),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let backend = site.backend("h1")?;
        ensure_comes(site, backend, bytes.as_bytes(), expected).context(case)?;
    }
    let without = b"GET / HTTP/1.1\r\n\r\n";
    ensure_comes(site, site.backend("h4")?, without, Refused(400)).context("no Host")
}

fn headers(site: &Site) -> Result<()> {
    let passes = Passes("GET /");
    for (case, name, headers, expected) in [
        ("R-1", "r1", &["X-ROLE: admin"][..], Denied),
        ("R-2", "r1", &["x-role: user", "x-role: admin"], Denied),
        ("R-2", "r1", &["x-role: admin", "x-role: user"], Denied),
        // One line is one value.
        ("R-3", "r1", &["x-role: user,admin"], passes),
        ("R-4", "r1", &["x-role:   admin  "], Denied),
        ("R-4", "r1", &["x-role:\tadmin\t"], Denied),
        ("R-5", "r1", &["x-role: admin\0"], Refused(400)),
        ("R-6", "r1", &["x-role: Admin"], passes),
        ("R-7", "r7", &["x-role: user", "x-role: admin"], Denied),
        ("R-7", "r7", &["x-role: user"], passes),
        ("R-7", "r7", &[], Denied),
        ("R-8", "r8", &[], passes),
        ("R-8", "r8", &["x-role: bar"], Denied),
        ("R-8", "r8", &["x-role: foo"], passes),
        ("R-8", "r8", &["x-role: foo", "x-role: bar"], Denied),
        ("R-9", "r9", &["x-role:"], Denied),
        ("R-9", "r9", &["x-role: any"], Denied),
        ("R-9", "r9", &[], passes),
        ("R-10", "r1", &["x_role: admin"], passes),
        // Headers that Connection names are removed before the policy is evaluated.
        (
            "hop by hop",
            "r1",
            &["x-role: admin", "connection: x-role"],
            passes,
        ),
        (
            "hop by hop",
            "r7",
            &["x-role: user", "connection: x-role"],
            Denied,
        ),
    ] {
        let backend = site.backend(name)?;
        let bytes = request("GET /", headers);
        let marked = format!("{case} {headers:?}");
        ensure_comes(site, backend, &bytes, expected).context(marked)?;
    }
    let web = &site.backend("r1")?.web;
    let last = web.heads().pop().context("nothing was seen")?;
    ensure!(!last.to_lowercase().contains("x-role"), "{last}");
    Ok(())
}

///
fn forged_headers(site: &Site) -> Result<()> {
    let trusted = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/web/sa/trusted";
    for (name, path, header, expected) in [
        ("p1", "/admin", "x-envoy-original-path: /ok", Denied),
        ("p1", "/admin", "x-original-url: /ok", Denied),
        (
            "p1",
            "/ok",
            "x-envoy-original-path: /admin",
            Passes("GET /ok"),
        ),
        ("r12", "/y", trusted, Passes("GET /y")),
        ("r12", "/x", trusted, Denied),
        (
            "r12",
            "/x",
            "x-istio-attributes: eyJ0cnVzdGVkIjoieSJ9",
            Denied,
        ),
        ("r12", "/x", "baggage: k8s.service.account=trusted", Denied),
        ("r12", "/x", "forwarded: for=trusted;by=trusted", Denied),
    ] {
        let bytes = request(&format!("GET {path}"), &[header]);
        ensure_comes(site, site.backend(name)?, &bytes, expected).context("R-12")?;
    }
    Ok(())
}

fn methods(site: &Site) -> Result<()> {
    let overrides = "X-HTTP-Method-Override: GET";
    for (case, name, line, headers, expected) in [
        ("M-1", "m2", "get /", &[][..], Refused(400)),
        ("M-1", "m3", "Put /", &[], Refused(400)),
        ("M-2", "m2", "GET /", &[], Denied),
        (
            "M-2",
            "m2",
            "POST /",
            &["Content-Length: 0", overrides],
            Passes("POST /"),
        ),
        ("M-3", "m3", "PUT /", &["Content-Length: 0"], Denied),
        ("M-3", "m3", "GET /", &[], Passes("GET /")),
        ("M-3", "m3", "UNHEARD-OF /", &[], Passes("UNHEARD-OF /")),
        ("CONNECT", "m2", "CONNECT web:80", &[], Refused(405)),
    ] {
        let bytes = request(line, headers);
        ensure_comes(site, site.backend(name)?, &bytes, expected).context(case)?;
    }
    let backend = site.backend("m2")?;
    let head = RawCall {
        to: backend.service.at(),
        bytes: &request("HEAD /", &["Connection: close"]),
        until: Until::End,
    };
    let reply = head.make(site.caller.place())?;
    let last = backend.web.heads().pop().unwrap_or_default();
    ensure!(
        reply.statuses() == [200] && reply.answers[0].body.is_empty() && last.starts_with("HEAD /"),
        "M-2: {reply:?}, {last}"
    );
    Ok(())
}

/// I-3, with a rule that depends on the request: in plaintext there is no principal, through the
/// tunnel there is.
pub(crate) fn i_plaintext_is_judged_without_an_identity(lab: &Lab) -> Result<()> {
    let site = Site::start(
        lab,
        &[(
            "i3",
            &[
                "action: DENY\nrules: [{from: [{source: {notPrincipals: ['*']}}], \
               to: [{operation: {paths: [/private]}}]}]",
            ],
        )],
    )?;
    let backend = site.backend("i3")?;
    for (from, path, denied) in [
        (&site.caller, "/private", false),
        (&site.caller, "/open", false),
        (&site.outsider, "/private", true),
        (&site.outsider, "/x/../private", true),
        (&site.outsider, "/open", false),
    ] {
        for to in [backend.service.at(), backend.pod.at(Site::PORT)] {
            let call = RawCall {
                to,
                bytes: &request(&format!("GET {path}"), &[]),
                until: Until::Answers(1),
            };
            let reply = call.make(from.place())?;
            let answer = reply.answers.first().context("no answer")?;
            let as_ruled = if denied {
                answer.is_denial()
            } else {
                answer.status == 200
            };
            ensure!(as_ruled, "{} {path}: {answer:?}", from.name());
        }
    }
    Ok(())
}
