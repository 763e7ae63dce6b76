//! HTTP/2 as unmodified programs speak it, through two nodes and a policy that judges each request: gRPC's
//! own test client and server, connections that a server ends because of their age, many streams, and a test
//! of conformance. The programs are built from tests/peers/http2.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use ambit_tests::{
    FramesCall, Lab, Place, Process, Site, output, output_within, peer, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

/// What [`Site::declare`] declares.
const PORT: u16 = 8090;

const DENY_ADMIN: &str = "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]";

/// gRPC's test cases that need neither TLS nor a cloud.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// How long a server keeps a connection, and how long callers call it.
const AGE: &str = "1s";
const CALLING: &str = "6s";

/// Longer than any test.
const FOREVER: &str = "1h";

/// Streams on one connection.
const STREAMS: u32 = 600;

/// h2spec waits for this many seconds in each of its cases, of which a server that conforms has few.
const H2SPEC_WAITS: &str = "2";
const H2SPEC_PATIENCE: Duration = Duration::from_secs(300);

/// How many cases more than without a mesh may fail.
const H2SPEC_MORE: u32 = 2;

fn main() -> ExitCode {
    run_tests(tests![
        grpcs_own_tests_pass,
        calls_do_not_fail_while_a_server_ends_its_connections,
        a_connection_carries_many_streams,
        a_malformed_head_ends_only_its_own_stream,
        http_2_is_spoken_as_without_a_mesh,
    ])
}

/// A caller, and a pod whose requests are judged.
fn site(lab: &Lab) -> Result<(Site, SocketAddr)> {
    Site::declare(lab, "web", PORT, "kubernetes.io/h2c")?;
    let site = Site::start(lab, &[("web", &[DENY_ADMIN])])?;
    let at = site.backend("web")?.pod.at(PORT);
    Ok((site, at))
}

fn grpcs_own_tests_pass(lab: &Lab) -> Result<()> {
    let (site, at) = site(lab)?;
    let mut command = site
        .backend("web")?
        .pod
        .place()
        .command(peer("http2/server")?)?;
    command.arg(format!("--port={PORT}"));
    let _server = Process::start(&mut command, &lab.new_log("grpc-server")?)?;
    for case in CASES {
        let mut client = site.caller.place().command(peer("http2/client")?)?;
        client.arg(format!("--server_host={}", at.ip()));
        client.args([&format!("--server_port={PORT}"), "--use_tls=false"]);
        let outcome = output(client.arg(format!("--test_case={case}")))?;
        ensure!(outcome.status.success(), "{case}: {}", outcome.stderr);
    }
    Ok(())
}

/// Starts a server, and waits until it listens.
fn serve(lab: &Lab, place: &Place, arguments: &[&str]) -> Result<Process> {
    let mut command = place.command(peer("http2/calls")?)?;
    let mut server = Process::start(command.args(arguments), &lab.new_log("calls")?)?;
    server.wait_for_line("a server", |line| (line == "listening").then_some(()))?;
    Ok(server)
}

/// Serves gRPC, on each connection for `age`.
fn grpc(lab: &Lab, site: &Site, at: SocketAddr, age: &str) -> Result<Process> {
    let place = site.backend("web")?.pod.place();
    serve(lab, place, &["server", &at.to_string(), age])
}

/// Makes calls, and returns their number by gRPC's code.
fn call(from: &Place, arguments: &[&str]) -> Result<(BTreeMap<String, u32>, String)> {
    let outcome = output(from.command(peer("http2/calls")?)?.args(arguments))?;
    ensure!(outcome.status.success(), "{}", outcome.stderr);
    Ok((serde_json::from_str(&outcome.stdout)?, outcome.stderr))
}

fn calls_do_not_fail_while_a_server_ends_its_connections(lab: &Lab) -> Result<()> {
    let (site, at) = site(lab)?;
    let _server = grpc(lab, &site, at, AGE)?;
    let arguments = ["unary", &at.to_string(), "8", CALLING];
    let (made, errors) = call(site.caller.place(), &arguments)?;
    ensure!(made.keys().eq(["OK"]), "{made:?}: {errors}");
    println!("{made:?}");
    Ok(())
}

fn a_connection_carries_many_streams(lab: &Lab) -> Result<()> {
    let (site, at) = site(lab)?;
    let _server = grpc(lab, &site, at, FOREVER)?;
    let arguments = ["watch", &at.to_string(), &STREAMS.to_string()];
    let (open, errors) = call(site.caller.place(), &arguments)?;
    let all = BTreeMap::from([("OK".to_owned(), STREAMS)]);
    ensure!(open == all, "{open:?}: {errors}");
    Ok(())
}

/// RFC 9113, section 3.4, and SETTINGS without any.
const BEGUN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// HEADERS with END_STREAM and END_HEADERS.
fn head(stream: u8, block: &[u8]) -> Vec<u8> {
    let [a, b] = (block.len() as u16).to_be_bytes();
    [&[0, a, b, 1, 0x5, 0, 0, 0, stream][..], block].concat()
}

/// A GET whose fields are entered into the table (RFC 7541, section 6.2.1).
fn get(path: &[u8], field: (&[u8], &[u8])) -> Vec<u8> {
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"web"),
        (b":path", path),
        field,
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x40);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text);
        }
    }
    block
}

fn a_malformed_head_ends_only_its_own_stream(lab: &Lab) -> Result<()> {
    let (site, at) = site(lab)?;
    let judged = site.backend("web")?.pod.place();
    let _judged = serve(lab, judged, &["http", &at.to_string()])?;
    let kept = (&b"kept"[..], &b"yes"[..]);
    let malformed = [
        get(b"/\xff", kept),
        get(b"/\x7f", kept),
        get(b"/<", kept),
        get(b"/", (b"Upper", b"a")),
        get(b"/", (b"a", b"line\nbreak")),
        get(b"/", (b":unknown", b"")),
        get(b"/", (b"connection", b"close")),
    ];
    let mut sent = BEGUN.to_vec();
    let mut expected = BTreeMap::new();
    for (stream, block) in (1..).step_by(6).zip(&malformed) {
        sent.extend(head(stream, block));
        sent.extend(head(stream + 2, &get(b"/fine", kept)));
        // The same, by the table alone.
        sent.extend(head(stream + 4, &[0xc2, 0xc1, 0xc0, 0xbf, 0xbe]));
        expected.insert(u32::from(stream), "reset: [0, 0, 0, 1]");
        expected.insert(u32::from(stream + 2), "answered");
        expected.insert(u32::from(stream + 4), "answered");
    }
    let call = FramesCall {
        to: at,
        bytes: &sent,
        streams: expected.len(),
    };
    let ends = call.make(site.caller.place())?;
    let said = ends.iter().map(|(stream, end)| (*stream, end.as_str()));
    ensure!(said.clone().eq(expected), "{ends:?}");
    Ok(())
}

fn http_2_is_spoken_as_without_a_mesh(lab: &Lab) -> Result<()> {
    let (site, at) = site(lab)?;
    let outsider = site.outsider.place();
    let alone = site.outsider.at(PORT);
    let _direct = serve(lab, outsider, &["http", &alone.to_string()])?;
    let judged = site.backend("web")?.pod.place();
    let _judged = serve(lab, judged, &["http", &at.to_string()])?;
    let direct = h2spec(outsider, alone)?;
    let judged = h2spec(site.caller.place(), at)?;
    println!(
        "failed: {} directly, {} through the mesh",
        direct.failed, judged.failed
    );
    ensure!(
        judged.failed <= direct.failed + H2SPEC_MORE,
        "directly: {}\nthrough the mesh: {}",
        direct.said,
        judged.said
    );
    Ok(())
}

struct H2spec {
    failed: u32,
    said: String,
}

fn h2spec(from: &Place, to: SocketAddr) -> Result<H2spec> {
    let mut command = from.command(peer("http2/h2spec")?)?;
    command.args([
        "--host",
        &to.ip().to_string(),
        "--port",
        &to.port().to_string(),
    ]);
    let outcome = output_within(H2SPEC_PATIENCE, command.args(["--timeout", H2SPEC_WAITS]))?;
    let said = outcome.stdout;
    let counts = said.lines().find(|line| line.contains(" tests, "));
    let words = counts
        .context("h2spec does not count")
        .map(str::split_whitespace)?;
    let words: Vec<&str> = words.collect();
    let before = words.windows(2).find(|pair| pair[1] == "failed");
    let failed = before.with_context(|| format!("h2spec says: {said}"))?[0].parse()?;
    Ok(H2spec { failed, said })
}
