//! Requests and their answers as applications exchange them, through two nodes and policies that
//! depend on requests: persistent connections, HTTP/2, upgrades, large bodies.

use std::fs;
use std::process::ExitCode;

use ambit_tests::{
    Backend, HeldConnection, Http2Call, Http2Request, Lab, Nginx, Place, RawCall, RawEnd, RawReply,
    SOON, Site, Until, eventually, output, run_tests, tests,
};
use anyhow::{Result, ensure};
use serde_json::Value;

/// Bytes of a large body.
const LARGE: usize = 64 << 20;

/// Ports that [`Site::declare`] declares.
const DECLARED: u16 = 8090;

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

fn main() -> ExitCode {
    run_tests(tests![
        each_request_of_a_connection_is_judged,
        each_stream_of_http_2_is_judged,
        an_upgrade_is_judged_and_carried,
        large_bodies_arrive_whole,
        a_client_that_gives_up_is_noticed,
        old_forms_that_have_one_reading_are_taken,
        an_answer_that_breaks_off_arrives_as_far_as_it_was_sent,
    ])
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

/// Calls URLs with one curl; the words that `format` (of `--write-out`) prints for each.
fn curl(from: &Place, format: &str, arguments: &[&str], urls: &[String]) -> Result<Vec<String>> {
    let mut command = from.command("curl")?;
    command.args(["--silent", "--show-error", "--path-as-is", "--noproxy", "*"]);
    command.args(["--max-time", "18", "--write-out", &format!("{format}\n")]);
    command.args(arguments);
    for url in urls {
        command.args(["--output", "/dev/null", url.as_str()]);
    }
    let outcome = output(&mut command)?;
    ensure!(outcome.status.success(), "curl: {}", outcome.stderr);
    Ok(outcome.stdout.lines().map(str::to_owned).collect())
}

fn each_request_of_a_connection_is_judged(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let base = format!("http://{}", web.service.at());
    let urls = ["/order", "/admin", "/order"].map(|path| format!("{base}{path}"));
    let said = curl(
        site.caller.place(),
        "%{http_code} %{num_connects}",
        &[],
        &urls,
    )?;
    ensure!(said == ["200 1", "403 0", "200 0"], "kept: {said:?}");
    ensure!(web.web.heads().len() == 2 && web.web.connections() == 1);

    let pipelined = requests(&[
        "GET /a",
        "GET /admin",
        "GET /x/../admin",
        "GET /b",
        "GET /admin",
    ]);
    let reply = raw(site.caller.place(), web, &pipelined, Until::Answers(5))?;
    ensure!(
        reply.statuses() == [200, 403, 403, 200, 403],
        "pipelined: {reply:?}"
    );
    ensure!(reply.end == RawEnd::Open, "{reply:?}");
    let lines = seen_lines(web);
    ensure!(
        lines[2..] == ["GET /a HTTP/1.1", "GET /b HTTP/1.1"],
        "{lines:?}"
    );

    a_refused_body_is_not_a_request(&site)?;
    expectations(&site)?;
    the_pods_own_requests_are_judged(&site)
}

/// The first lines of what the application saw.
fn seen_lines(backend: &Backend) -> Vec<String> {
    let heads = backend.web.heads();
    let lines = heads.iter().filter_map(|head| head.lines().next());
    lines.map(str::to_owned).collect()
}

fn a_refused_body_is_not_a_request(site: &Site) -> Result<()> {
    let web = site.backend("web")?;
    let known = web.web.heads().len();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n";
    let sized = format!(
        "POST /admin HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let both = [sized.as_bytes(), &requests(&["GET /after"])].concat();
    let reply = raw(site.caller.place(), web, &both, Until::Answers(2))?;
    ensure!(
        reply.statuses() == [403, 200],
        "a body with a length: {reply:?}"
    );
    // If the length of a body is not known, nothing after it is read.
    let chunked = format!(
        "POST /admin HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{smuggled}\r\n0\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let reply = raw(site.caller.place(), web, chunked.as_bytes(), Until::End)?;
    ensure!(
        reply.statuses() == [403] && reply.end == RawEnd::Closed,
        "a body in chunks: {reply:?}"
    );
    let lines = seen_lines(web);
    ensure!(lines[known..] == ["GET /after HTTP/1.1"], "{lines:?}");
    Ok(())
}

/// `Expect: 100-continue`: the application sends the 100, and a refused request does not get one.
fn expectations(site: &Site) -> Result<()> {
    let web = site.backend("web")?;
    let known = web.web.heads().len();
    let expecting = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\
             \r\n{body}"
        )
    };
    let refused = expecting("/admin", "");
    let reply = raw(site.caller.place(), web, refused.as_bytes(), Until::End)?;
    ensure!(
        reply.statuses() == [403] && reply.end == RawEnd::Closed,
        "refused: {reply:?}"
    );
    // It sends the body only after the 100, so only the 100 is awaited.
    let asked = expecting("/ok", "");
    let reply = raw(
        site.caller.place(),
        web,
        asked.as_bytes(),
        Until::Answers(1),
    )?;
    ensure!(reply.statuses() == [100], "asked: {reply:?}");
    let whole = expecting("/ok", "hello");
    let reply = raw(
        site.caller.place(),
        web,
        whole.as_bytes(),
        Until::Answers(2),
    )?;
    ensure!(reply.statuses() == [100, 200], "whole: {reply:?}");
    ensure!(web.web.heads().len() == known + 2 && web.web.bodies().last() == Some(&5));

    let file = "x".repeat(2 << 20);
    let upload = ["--header", "Expect: 100-continue", "--data-binary", "@-"];
    for (path, status) in [("/ok", "200"), ("/admin", "403")] {
        let url = format!("http://{}{path}", web.service.at());
        let code = upload_with_curl(site.caller.place(), &upload, &url, &file)?;
        ensure!(code == status, "curl {path}: {code}");
    }
    ensure!(web.web.bodies().last() == Some(&(2 << 20)));
    ensure!(web.web.heads().len() == known + 3);
    Ok(())
}

/// With the body from a file, since curl's standard input is the runner's.
fn upload_with_curl(from: &Place, options: &[&str], url: &str, body: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), body)?;
    let at = format!("@{}", file.path().display());
    let options: Vec<&str> = options
        .iter()
        .map(|option| if *option == "@-" { at.as_str() } else { option })
        .collect();
    Ok(curl(from, "%{http_code}", &options, &[url.to_owned()])?.concat())
}

/// A pod that calls its own Service is judged by the same policies.
fn the_pods_own_requests_are_judged(site: &Site) -> Result<()> {
    let web = site.backend("web")?;
    let both = requests(&["GET /own", "GET /admin", "GET /own"]);
    let reply = raw(web.pod.place(), web, &both, Until::Answers(3))?;
    ensure!(reply.statuses() == [200, 403, 200], "its own: {reply:?}");
    let lines = seen_lines(web);
    let last_two = &lines[lines.len() - 2..];
    ensure!(last_two == ["GET /own HTTP/1.1"; 2], "{lines:?}");
    Ok(())
}

fn each_stream_of_http_2_is_judged(lab: &Lab) -> Result<()> {
    Site::declare(lab, "web", DECLARED, "kubernetes.io/h2c")?;
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let at = web.pod.at(DECLARED);
    let _nginx = Nginx {
        name: "grpc",
        listen: &[at],
        protocol: "http2",
        locations: "location /rpc { add_trailer grpc-status 0 always; \
                    add_trailer grpc-message fine always; \
                    add_header content-type application/grpc; return 200 \"answer\"; }\n\
                    location / { return 200 \"$request_method $request_uri $http_host\"; }",
    }
    .start(lab, web.pod.place())?;
    let caller = site.caller.place();
    let call = |requests: &[Http2Request], at_once| {
        let call = Http2Call {
            to: at,
            requests,
            at_once,
        };
        call.make(caller)
    };
    let paths = ["/a", "/admin", "/x/%2e%2e/admin", "/b?/admin", "/admin?x"];
    let one_by_one = call(&paths.map(Http2Request::get), false)?;
    ensure!(
        statuses(&one_by_one) == [200, 403, 403, 200, 403],
        "{one_by_one:?}"
    );
    ensure!(one_by_one[0]["body"] == "GET /a web", "{one_by_one:?}");
    ensure!(one_by_one[1]["body"] == "RBAC: access denied");

    let many: Vec<Http2Request> = (0..100)
        .map(|number| match number % 2 {
            0 => Http2Request::get(&format!("/ok?{number}")),
            _ => Http2Request::get(&format!("/admin?{number}")),
        })
        .collect();
    let at_once = call(&many, true)?;
    for (number, reply) in at_once.iter().enumerate() {
        let as_ruled = match number % 2 {
            0 => reply["body"] == format!("GET /ok?{number} web"),
            _ => reply["status"] == 403,
        };
        ensure!(as_ruled, "{number}: {reply}");
    }
    // As in gRPC. The refusal of one call does not harm the others.
    let calls = ["/rpc", "/admin", "/rpc"].map(|path| Http2Request {
        method: "POST",
        headers: &[("content-type", "application/grpc"), ("te", "trailers")],
        body: "question",
        ..Http2Request::get(path)
    });
    let replies = call(&calls, true)?;
    ensure!(statuses(&replies) == [200, 403, 200], "{replies:?}");
    for reply in [&replies[0], &replies[2]] {
        let trailers = &reply["trailers"];
        let is_whole = reply["body"] == "answer" && trailers["grpc-status"] == "0";
        ensure!(is_whole && trailers["grpc-message"] == "fine", "{reply}");
    }
    Ok(())
}

fn statuses(replies: &[Value]) -> Vec<u64> {
    replies
        .iter()
        .filter_map(|reply| reply["status"].as_u64())
        .collect()
}

const UPGRADE: &str = "Host: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn an_upgrade_is_judged_and_carried(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let caller = site.caller.place();
    let mut socket = HeldConnection::open(lab, caller, web.service.at())?;
    socket.send(&format!(
        "GET /ws HTTP/1.1\r\n{}",
        UPGRADE.trim_end_matches('\n')
    ))?;
    let first = socket.received()?;
    ensure!(first == "HTTP/1.1 101 Switching Protocols", "{first}");
    for line in ["hello", "\u{1}\u{2}binary\u{3}", "GET /admin HTTP/1.1"] {
        socket.echo(line)?;
    }
    socket.half_close();
    ensure!(socket.end()? == "closed");

    let denied = format!("GET /admin HTTP/1.1\r\n{UPGRADE}");
    let reply = raw(caller, web, denied.as_bytes(), Until::Answers(1))?;
    ensure!(reply.statuses() == [403], "denied: {reply:?}");
    // T-13: what comes early is a request if the application does not change the protocol,
    let early = format!("GET /plain HTTP/1.1\r\n{UPGRADE}GET /admin HTTP/1.1\r\nHost: web\r\n\r\n");
    let reply = raw(caller, web, early.as_bytes(), Until::Answers(2))?;
    ensure!(reply.statuses() == [200, 403], "not changed: {reply:?}");
    // and the offer of HTTP/2 is not passed on, because its requests would not be judged.
    let cleartext = "GET /plain HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                     Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n";
    let reply = raw(caller, web, cleartext.as_bytes(), Until::Answers(1))?;
    ensure!(reply.statuses() == [200], "h2c: {reply:?}");
    let seen = web.web.heads().pop().unwrap_or_default().to_lowercase();
    ensure!(
        !seen.contains("h2c") && !seen.contains("settings"),
        "{seen}"
    );
    let heads = web.web.heads().join("\n");
    ensure!(!heads.contains("/admin"), "{heads}");
    Ok(())
}

fn large_bodies_arrive_whole(lab: &Lab) -> Result<()> {
    Site::declare(lab, "web", DECLARED, "http")?;
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let at = web.pod.at(DECLARED);
    let store = lab.directory().join("store");
    let _nginx = Nginx {
        name: "store",
        listen: &[at],
        protocol: "",
        locations: "location / { root .; dav_methods PUT; client_max_body_size 0; }",
    }
    .start(lab, web.pod.place())?;
    let sent: Vec<u8> = (0..LARGE / 8)
        .flat_map(|number| {
            (number as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        })
        .collect();
    let [file, back] = ["sent", "back"].map(|name| lab.directory().join(name));
    fs::write(&file, &sent)?;
    let url = format!("http://{at}/large");
    let caller = site.caller.place();
    for (encoding, target) in [("X:", "large"), ("Transfer-Encoding: chunked", "chunks")] {
        let mut upload = caller.command("curl")?;
        upload.args(["--silent", "--show-error", "--fail", "--header", encoding]);
        upload.args(["--upload-file".as_ref(), file.as_os_str()]);
        let outcome = output(upload.arg(format!("http://{at}/{target}")))?;
        ensure!(outcome.status.success(), "{encoding}: {}", outcome.stderr);
        let stored = fs::read(store.join(target))?;
        ensure!(
            stored == sent,
            "{encoding}: {} bytes were stored",
            stored.len()
        );
    }
    let mut download = caller.command("curl")?;
    download.args(["--silent", "--show-error", "--fail"]);
    download.args(["--output".as_ref(), back.as_os_str()]);
    let outcome = output(download.arg(&url))?;
    ensure!(outcome.status.success(), "download: {}", outcome.stderr);
    ensure!(fs::read(&back)? == sent, "another file came back");
    // The answer to a HEAD has a length and no body; the connection takes another request.
    let head = curl(
        caller,
        "%{http_code} %{num_connects}",
        &["--head"],
        &[url.clone(), url],
    )?;
    ensure!(head == ["200 1", "200 0"], "HEAD: {head:?}");
    Ok(())
}

/// A handler that waits sees the end of its client, and nothing of the connection is left: at the
/// application, and under the caps.
fn a_client_that_gives_up_is_noticed(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let url = format!("http://{}/wait", web.service.at());
    let callers = [site.caller.place(), site.outsider.place(), web.pod.place()];
    for from in callers {
        for _ in 0..5 {
            let mut command = from.command("curl")?;
            command.args(["--silent", "--noproxy", "*", "--max-time", "1", &url]);
            let outcome = output(&mut command)?;
            let timed_out = outcome.status.code() == Some(28);
            ensure!(timed_out, "curl: {}", outcome.stderr);
        }
    }
    ensure!(web.web.connections() == 5 * callers.len());
    web.web.ensure_nothing_left()?;
    for agent in &site.agents {
        eventually(SOON, "no connection in the account", || {
            let left = agent.ask("connections").ok()?;
            left.as_array()?.is_empty().then_some(())
        })?;
    }
    // A client that has ended its side, and is still there, gets its answer.
    for from in callers {
        let waiting = requests(&["GET /wait"]);
        let reply = raw(from, web, &waiting, Until::EndAfterOurs)?;
        let is_answered = reply.statuses() == [200] && reply.end == RawEnd::Closed;
        ensure!(is_answered, "{reply:?}");
    }
    web.web.ensure_nothing_left()
}

fn old_forms_that_have_one_reading_are_taken(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let from = site.caller.place();
    let responses = requests(&["GET /old", "GET /old", "GET /last"]);
    let reply = raw(from, web, &responses, Until::Answers(3))?;
    ensure!(reply.statuses() == [200; 3], "{reply:?}");
    for answer in &reply.answers[..2] {
        let is_new = answer.body == "ok" && answer.head.contains("\r\nX-Old: a b\r\n");
        ensure!(is_new, "{answer:?}");
    }
    let lines =
        b"\r\n\r\nGET /a HTTP/1.1\r\nHost:\r\nConnection: cookie\r\nCookie: c=d\r\n\r\n\r\n\r\n\
                  GET /admin HTTP/1.1\r\nHost: \r\n\r\n";
    let reply = raw(from, web, lines, Until::Answers(2))?;
    ensure!(reply.statuses() == [200, 403], "{reply:?}");
    let heads = web.web.heads();
    let last = heads.last().map(String::as_str);
    let wanted = "GET /a HTTP/1.1\r\nHost: \r\nCookie: c=d";
    ensure!(last == Some(wanted), "{last:?}");
    Ok(())
}

/// Often, since it depends on what is faster.
const BROKEN_CALLS: usize = 20;

fn an_answer_that_breaks_off_arrives_as_far_as_it_was_sent(lab: &Lab) -> Result<()> {
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let web = site.backend("web")?;
    let url = format!("http://{}/broken", web.pod.at(Site::PORT));
    for caller in [&site.caller, &site.outsider] {
        for _ in 0..BROKEN_CALLS {
            let mut curl = caller.place().command("curl")?;
            curl.args([
                "--silent",
                "--show-error",
                "--include",
                "--noproxy",
                "*",
                &url,
            ]);
            let outcome = output(&mut curl)?;
            let whole =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\npart";
            ensure!(outcome.stdout == whole, "{outcome:?}");
            // "Transfer closed with outstanding read data remaining".
            ensure!(outcome.status.code() == Some(18), "{outcome:?}");
        }
    }
    Ok(())
}
