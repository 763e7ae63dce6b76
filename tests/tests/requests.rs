//! Requests as attackers write them, through two nodes. The numbers are those of the cases that the
//! specification of policies lists: P for paths, H for hosts, R for headers, M for methods, J for
//! tokens, I for identity, T for what surrounds requests.

use std::process::ExitCode;

use ambit_tests::{
    Backend, Lab, RawCall, RawEnd, RawReply, SOON, Site, TokenIssuer, Until, eventually, run_tests,
    tests, unsigned,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run_tests(tests![
        p_paths_are_judged_as_the_application_gets_them,
        h_r_m_hosts_headers_and_methods,
        i_plaintext_is_judged_without_an_identity,
        what_could_be_read_in_two_ways_is_refused,
        j_tokens,
    ])
}

/// What must become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    /// 403, and the application sees nothing.
    Denied,
    /// The application answers, and has seen a head that begins with `METHOD TARGET HTTP/1.1`.
    Passes(&'static str),
    /// Refused with this status, and the application sees nothing.
    Refused(u16),
}

use Expected::{Denied, Passes, Refused};

/// Makes a call that takes one answer, and ensures that it is the expected one.
fn ensure_comes(site: &Site, backend: &Backend, bytes: &[u8], expected: Expected) -> Result<()> {
    let shown = String::from_utf8_lossy(bytes).escape_debug().to_string();
    let seen = backend.web.heads().len();
    let call = RawCall {
        to: backend.service.at(),
        bytes,
        until: Until::Answers(1),
    };
    let reply = call.make(site.caller.place())?;
    let name = backend.pod.name();
    let answer = reply.answers.first();
    let answer = answer.with_context(|| format!("{name}: {shown}: {reply:?}"))?;
    let heads = backend.web.heads();
    let as_expected = match expected {
        Denied => answer.is_denial() && heads.len() == seen,
        Refused(status) => answer.status == status && heads.len() == seen,
        Passes(line) => {
            let [head] = &heads[seen..] else {
                anyhow::bail!("{name}: {shown}: the application saw {:?}", &heads[seen..]);
            };
            answer.status == 200 && head.starts_with(&format!("{line} HTTP/1.1\r\n"))
        }
    };
    let seen = &heads[seen..];
    ensure!(
        as_expected,
        "{name}: {shown}: not {expected:?} but {answer:?}, and the application saw {seen:?}"
    );
    Ok(())
}

/// A request with more header lines.
fn request(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: web\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    (text + "\r\n").into_bytes()
}

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

/// The ConfigMap with Istio's mesh configuration.
fn mesh_config(normalization: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data:\n  mesh: |\n    pathNormalization: {{normalization: {normalization}}}\n"
    )
}

/// For each path what becomes of it under `DENY paths: [/admin]`, in the modes NONE, BASE,
/// MERGE_SLASHES and DECODE_AND_MERGE_SLASHES: `D` where it is denied, else what the application
/// gets; `=` is what was sent.
const PATHS: [(&str, &str, [&str; 4]); 32] = [
    ("P-1", "/admin?x=1", ["D"; 4]),
    ("P-1", "/admin?", ["D"; 4]),
    ("P-1", "/ok?/admin", ["="; 4]),
    ("P-2", "/admin#frag", ["D"; 4]),
    ("P-2", "/app#foo", ["/app"; 4]),
    ("P-2", "/admin#frag?x", ["D"; 4]),
    ("P-3", "/admin%23frag", ["="; 4]),
    ("P-4", "//admin", ["=", "=", "D", "D"]),
    ("P-4", "///admin", ["=", "=", "D", "D"]),
    ("P-5", "/%2fadmin", ["=", "=", "=", "D"]),
    ("P-5", "/%2Fadmin", ["=", "=", "=", "D"]),
    ("P-6", "/%5cadmin", ["=", "=", "=", "D"]),
    ("P-6", "/\\admin", ["=", "//admin", "D", "D"]),
    ("P-7", "/x/../admin", ["=", "D", "D", "D"]),
    ("P-7", "/./admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/%2e%2e/admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/.%2E/admin", ["=", "D", "D", "D"]),
    ("P-7", "/x/..\\admin", ["=", "D", "D", "D"]),
    ("P-7", "/../../admin", ["=", "D", "D", "D"]),
    ("P-8", "/%61dmin", ["=", "D", "D", "D"]),
    ("P-8", "/adm%69n", ["=", "D", "D", "D"]),
    ("P-9", "/%2561dmin", ["="; 4]),
    ("P-9", "/%252e%252e/admin", ["="; 4]),
    ("P-10", "/Admin", ["="; 4]),
    ("P-10", "/admin/", ["="; 4]),
    ("P-10", "/admin;a=b", ["="; 4]),
    ("P-10", "/..;/admin", ["="; 4]),
    ("P-10", "/%c0%ae%c0%ae/admin", ["="; 4]),
    ("P-11", "/admin%00", ["400"; 4]),
    (
        "section 13",
        "/app//../admin",
        ["=", "/app/admin", "/app/admin", "/app/admin"],
    ),
    ("section 13", "/app//../../admin", ["=", "D", "D", "D"]),
    (
        "section 13",
        "/xyz%30..//abc",
        ["=", "/xyz0..//abc", "/xyz0../abc", "/xyz0../abc"],
    ),
];

/// Under policies of other shapes, in the mode BASE.
const PATHS_OF_OTHER_POLICIES: [(&str, &str, &str, Option<&str>); 19] = [
    ("P-12", "p12", "/public/../private", None),
    ("P-12", "p12", "/public/%2E%2E/private", None),
    ("P-12", "p12", "/public/%2e/%2e%2e/private", None),
    ("P-12", "p12", "/public/../public", Some("/public")),
    ("P-12", "p12", "/publications", Some("/publications")),
    ("P-13", "p13", "/admin/a*b", None),
    ("P-13", "p13", "/admin/a", None),
    ("P-13", "p13", "/admin/a/b", Some("/admin/a/b")),
    ("P-14", "p14", "/admin/x[0]", None),
    ("P-14", "p14", "/admin/x\"y", None),
    ("P-14", "p14", "/admin/x|y", None),
    ("P-14", "p14", "/admin", Some("/admin")),
    ("P-15", "p15", "/allow/admin?param=v", None),
    (
        "P-15",
        "p15",
        "/allow/admin/?param=v",
        Some("/allow/admin/?param=v"),
    ),
    ("P-15", "p15", "/allow/admin/x/y", Some("/allow/admin/x/y")),
    ("P-16", "p16", "/allow/admin?p=v", None),
    ("P-16", "p16", "/allow", Some("/allow")),
    ("P-16", "p16", "/allow/other", Some("/allow/other")),
    ("P-16", "p16", "/other", None),
];

fn p_paths_are_judged_as_the_application_gets_them(lab: &Lab) -> Result<()> {
    let site = Site::start(
        lab,
        &[
            ("p1", &[DENY_ADMIN]),
            (
                "p17",
                &["rules: [{to: [{operation: {notPaths: [/admin]}}]}]"],
            ),
            (
                "p12",
                &["rules: [{to: [{operation: {paths: [/public*]}}]}]"],
            ),
            (
                "p13",
                &["action: DENY\nrules: [{to: [{operation: {paths: ['/admin/{*}']}}]}]"],
            ),
            (
                "p14",
                &["action: DENY\nrules: [{to: [{operation: {paths: ['/admin/{**}']}}]}]"],
            ),
            (
                "p15",
                &["rules: [{to: [{operation: {paths: ['/allow/admin/{**}']}}]}]"],
            ),
            (
                "p16",
                &[
                    "action: DENY\nrules: [{to: [{operation: {paths: [/allow/admin]}}]}]",
                    "rules: [{to: [{operation: {paths: [/allow*]}}]}]",
                ],
            ),
        ],
    )?;
    for (case, name, path, expected) in PATHS_OF_OTHER_POLICIES {
        ensure_path_comes(&site, name, path, expected.unwrap_or("D")).context(case)?;
    }
    let modes = ["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];
    for (index, mode) in modes.into_iter().enumerate() {
        lab.manifests().write("istio.yaml", &mesh_config(mode))?;
        wait_for_mode(&site, index)?;
        for (case, path, expected) in PATHS {
            // P-17: what a denial of a path refuses, a permission of all other paths does, too.
            for name in ["p1", "p17"] {
                let case = || format!("{case} in mode {mode}");
                ensure_path_comes(&site, name, path, expected[index]).with_context(case)?;
            }
        }
    }
    Ok(())
}

fn ensure_path_comes(site: &Site, name: &str, path: &str, expected: &str) -> Result<()> {
    let passed = match expected {
        "=" => path,
        other => other,
    };
    let line: &'static str = format!("GET {passed}").leak();
    let expected = match expected {
        "D" => Denied,
        "400" => Refused(400),
        _ => Passes(line),
    };
    let bytes = request(&format!("GET {path}"), &[]);
    ensure_comes(site, site.backend(name)?, &bytes, expected)
}

/// Waits until paths are normalised as the mode says, whose position among the modes this is.
fn wait_for_mode(site: &Site, mode: usize) -> Result<()> {
    let probe = "/probe/./x//y%2fz";
    let normal = [probe, "/probe/x//y%2fz", "/probe/x/y%2fz", "/probe/x/y/z"];
    eventually(SOON, "the mode of normalisation", || {
        ensure_path_comes(site, "p1", probe, normal[mode]).ok()
    })
}

const DENY_ROLE: &str =
    "action: DENY\nrules: [{when: [{key: 'request.headers[x-role]', values: [admin]}]}]";

fn h_r_m_hosts_headers_and_methods(lab: &Lab) -> Result<()> {
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
        // Two hosts are refused, whichever of them another reader would believe.
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
        // What Connection names is gone before policy looks.
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
fn i_plaintext_is_judged_without_an_identity(lab: &Lab) -> Result<()> {
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

/// Requests that end, or do not end, where two readers would disagree; each carries a second one,
/// for `/smuggled`.
const AMBIGUOUS: [(&str, &[u8]); 27] = [
    (
        "Content-Length, then Transfer-Encoding",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "Transfer-Encoding, then Content-Length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 41\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "two lengths",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "twice the same length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a list of lengths",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0, 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a length with a sign",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: +0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a hexadecimal length",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nContent-Length: 0x0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "two encodings",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\
          Transfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding before chunked",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an obfuscated encoding",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding with a vertical tab",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: \x0bchunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "an encoding in HTTP/1.0",
        b"POST /ok HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a folded line",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a folded first line",
        b"POST /ok HTTP/1.1\r\n Host: web\r\nHost: web\r\n\r\n",
    ),
    (
        "LF by itself in a head",
        b"POST /ok HTTP/1.1\r\nHost: web\nTransfer-Encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "a head that ends with LF by itself",
        b"GET /ok HTTP/1.1\r\nHost: web\r\n\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    (
        "CR by itself in a value",
        b"GET /ok HTTP/1.1\r\nHost: web\r\nX: a\rContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    ("NUL in a value", b"GET /ok HTTP/1.1\r\nHost: web\r\nX: a\0b\r\n\r\n"),
    ("NUL in a target", b"GET /ok\0 HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("two Hosts", b"GET /ok HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
    (
        "a space before the colon",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
    ("a space in a target", b"GET /ok x HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("two spaces in the request line", b"GET  /ok HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("a tab in the request line", b"GET /ok\tx HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("no version", b"GET /ok\r\nHost: web\r\n\r\n"),
    ("another version", b"GET /ok HTTP/1.2\r\nHost: web\r\n\r\n"),
    (
        "Connection that names what has to arrive",
        b"POST /ok HTTP/1.1\r\nHost: web\r\nConnection: content-length\r\nContent-Length: 36\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n",
    ),
];

/// Bodies that go wrong after a head that is right.
const BAD_BODIES: [(&str, &[u8]); 6] = [
    ("a size that is none", b"zz\r\n"),
    ("a size with a sign", b"+5\r\nhello\r\n"),
    ("a size in 0x", b"0x5\r\nhello\r\n"),
    ("LF by itself after the size", b"5\nhello\r\n"),
    ("a longer chunk than its size", b"4\r\nhello\r\n"),
    ("a size beyond all numbers", b"fffffffffffffffff\r\n"),
];

fn what_could_be_read_in_two_ways_is_refused(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("p1", &[DENY_ADMIN]), ("body", &[DENY_ADMIN])])?;
    let backend = site.backend("p1")?;
    let send = |backend: &Backend, bytes: &[u8]| {
        let call = RawCall {
            to: backend.service.at(),
            bytes,
            until: Until::End,
        };
        call.make(site.caller.place())
    };
    for (case, bytes) in AMBIGUOUS {
        let reply = send(backend, bytes)?;
        ensure_refused_and_ended(&reply).context(case)?;
        // After a request that is right, on the same connection.
        let second = [&b"GET /admin HTTP/1.1\r\nHost: web\r\n\r\n"[..], bytes].concat();
        let reply = send(backend, &second)?;
        let is_refused = reply.statuses() == [403, 400] && reply.end == RawEnd::Closed;
        ensure!(is_refused, "{case}, second: {reply:?}");
    }
    backend.web.ensure_nothing_left()?;
    let seen = backend.web.heads();
    ensure!(seen.is_empty(), "the application saw {seen:?}");
    for (case, body) in BAD_BODIES {
        let head = b"POST /ok HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n";
        let reply = send(site.backend("body")?, &[&head[..], body, smuggled].concat())?;
        ensure_refused_and_ended(&reply).context(case)?;
    }
    let web = &site.backend("body")?.web;
    ensure!(
        web.bodies().is_empty() && !web.heads().iter().any(|head| head.contains("smuggled")),
        "the application took a broken body for a whole one: {:?}",
        web.heads()
    );
    Ok(())
}

fn ensure_refused_and_ended(reply: &RawReply) -> Result<()> {
    let is_refused = reply.statuses() == [400] && reply.end == RawEnd::Closed;
    ensure!(is_refused, "{reply:?}");
    Ok(())
}

const ISSUER: &str = "https://issuer.example";

/// Claims of a valid token, with more of them.
fn claims(more: Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "sub": "sub-1", "exp": 4_102_444_800_u64});
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

/// Where nothing listens.
const NO_KEYS: &str = "http://127.0.0.1:9/keys";

/// Rules for the tokens of all pods, and one for `j9` whose keys are not to be had.
fn request_authentication(issuer: &TokenIssuer) -> String {
    let rules = json!([{
        "issuer": ISSUER,
        "jwks": issuer.jwks().to_string(),
        "fromHeaders": [{"name": "Authorization", "prefix": "Bearer "}],
        "fromParams": ["token", "secondary"],
    }]);
    let without_keys = json!([{"issuer": "https://unreachable.example", "jwksUri": NO_KEYS}]);
    let object = |name: &str, selector: &str, rules: &Value| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: {name}, namespace: web}}\n\
             spec:\n  selector: {{matchLabels: {{app: {selector}}}}}\n  jwtRules: {rules}\n"
        )
    };
    let pods = ["j1", "j2", "j3", "j4", "j6", "j7", "j8"];
    let mut objects: Vec<String> = pods.iter().map(|pod| object(pod, pod, &rules)).collect();
    objects.push(object("j9", "j9", &without_keys));
    objects.join("---\n")
}

/// A token, as it comes in the tests.
enum Token {
    None,
    Bearer(String),
    Target(String),
}

fn j_tokens(lab: &Lab) -> Result<()> {
    let (issuer, stranger) = (TokenIssuer::new()?, TokenIssuer::new()?);
    lab.manifests()
        .write("tokens.yaml", &request_authentication(&issuer))?;
    let claim = |claim: &str, value: &str| {
        format!("rules: [{{when: [{{key: 'request.auth.{claim}', values: [{value}]}}]}}]")
    };
    let (audience, scope) = (claim("audiences", "foo"), claim("claims[scope]", "write"));
    let nested = claim("claims[nested][nested-2][key1]", "valueA");
    let site = Site::start(
        lab,
        &[
            ("j1", &[]),
            (
                "j2",
                &["rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"],
            ),
            (
                "j3",
                &["rules: [{from: [{source: \
                   {notRequestPrincipals: ['https://issuer.example/sub-1']}}]}]"],
            ),
            (
                "j4",
                &["action: DENY\nrules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]"],
            ),
            ("j6", &[&audience]),
            ("j7", &[&scope]),
            ("j8", &[&nested]),
            ("j9", &[]),
        ],
    )?;
    let token = |more: Value| issuer.token(&claims(more));
    let bearer = |more: Value| Ok::<_, anyhow::Error>(Token::Bearer(token(more)?));
    let expired = || token(json!({"exp": 1}));
    let header = json!({"alg": "RS256", "kid": "key"});
    let none = format!("{}.", unsigned(&json!({"alg": "none"}), &claims(json!({}))));
    let of_none = format!("{none}x");
    let by_public_key = issuer.token_with_public_key_as_secret(&claims(json!({})));
    let by_path = json!({"alg": "RS256", "kid": "../../../../dev/null"});
    let own_key = json!({"alg": "RS256", "kid": "key", "jwk": stranger.jwks()["keys"][0]});
    let passes = Passes("GET /");
    for (case, name, token, expected) in [
        ("J-1", "j1", Token::None, passes),
        ("J-1", "j1", bearer(json!({}))?, passes),
        ("J-1", "j1", Token::Bearer(expired()?), Refused(401)),
        (
            "J-1",
            "j1",
            bearer(json!({"iss": "https://other.example"}))?,
            Refused(401),
        ),
        ("J-1", "j1", Token::Bearer("rubbish".into()), Refused(401)),
        ("J-2", "j2", Token::None, Denied),
        ("J-2", "j2", bearer(json!({}))?, passes),
        ("J-2", "j2", Token::Bearer(expired()?), Refused(401)),
        ("J-3", "j3", Token::None, passes),
        ("J-3", "j3", bearer(json!({}))?, Denied),
        ("J-3", "j3", bearer(json!({"sub": "sub-2"}))?, passes),
        ("J-4", "j4", Token::None, Denied),
        ("J-4", "j4", bearer(json!({}))?, passes),
        (
            "J-5",
            "j1",
            both(&token(json!({}))?, &expired()?),
            Refused(401),
        ),
        (
            "J-5",
            "j1",
            both(&expired()?, &token(json!({}))?),
            Refused(401),
        ),
        ("J-6", "j6", bearer(json!({"aud": "foo"}))?, passes),
        (
            "J-6",
            "j6",
            bearer(json!({"aud": ["foo", "buzz"]}))?,
            passes,
        ),
        ("J-6", "j6", bearer(json!({"aud": "bar"}))?, Denied),
        ("J-7", "j7", bearer(json!({"scope": "read write"}))?, passes),
        ("J-7", "j7", bearer(json!({"scope": "read"}))?, Denied),
        ("J-7", "j7", bearer(json!({"scope": "writer"}))?, Denied),
        (
            "J-8",
            "j8",
            bearer(json!({"nested": {"nested-2": {"key1": "valueA"}}}))?,
            passes,
        ),
        (
            "J-8",
            "j8",
            bearer(json!({"nested": {"nested-2": {"key2": "valueA"}}}))?,
            Denied,
        ),
        ("J-8", "j8", bearer(json!({"nested": "valueA"}))?, Denied),
        ("J-9", "j9", Token::None, passes),
        (
            "J-9",
            "j9",
            bearer(json!({"iss": "https://unreachable.example"}))?,
            Refused(401),
        ),
        ("J-11", "j1", Token::Bearer(none), Refused(401)),
        ("J-11", "j1", Token::Bearer(of_none), Refused(401)),
        ("J-11", "j1", Token::Bearer(by_public_key), Refused(401)),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&header, &claims(json!({})))?),
            Refused(401),
        ),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&own_key, &claims(json!({})))?),
            Refused(401),
        ),
        (
            "J-11",
            "j1",
            Token::Bearer(stranger.token_with(&by_path, &claims(json!({})))?),
            Refused(401),
        ),
    ] {
        let bytes = match token {
            Token::None => request("GET /", &[]),
            Token::Bearer(token) => request("GET /", &[&format!("Authorization: Bearer {token}")]),
            Token::Target(target) => request(&format!("GET {target}"), &[]),
        };
        ensure_comes(&site, site.backend(name)?, &bytes, expected).context(case)?;
    }
    let seen = site.backend("j2")?.web.heads().join("\n").to_lowercase();
    ensure!(
        !seen.contains("authorization"),
        "a token was passed on: {seen}"
    );
    preflights(&site, &expired()?)
}

fn both(first: &str, second: &str) -> Token {
    Token::Target(format!("/?token={first}&secondary={second}"))
}

/// J-10: a browser asks without its token whether it may ask with it.
fn preflights(site: &Site, expired: &str) -> Result<()> {
    let backend = site.backend("j1")?;
    let bearer = format!("Authorization: Bearer {expired}");
    let origin = "Origin: https://page.example";
    let asked = "Access-Control-Request-Method: POST";
    for (line, headers, expected) in [
        (
            "OPTIONS /",
            &[&bearer, origin, asked][..],
            Passes("OPTIONS /"),
        ),
        ("OPTIONS /", &[&bearer, origin], Refused(401)),
        ("OPTIONS /", &[&bearer, asked], Refused(401)),
        ("GET /", &[&bearer, origin, asked], Refused(401)),
    ] {
        let bytes = request(line, headers);
        ensure_comes(site, backend, &bytes, expected).context("J-10")?;
    }
    Ok(())
}
