//! The mesh carries what HTTP/2 servers say of broken connections: h2spec finds the same in a server behind it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ambit_tests::{
    GrpcAuthorizer, Lab, Place, Pod, Process, Site, output_within, peer, run_tests, skip, tests,
};
use anyhow::{Context, Result, anyhow, ensure};

const PORT: u16 = 8090;

/// For all of its tests: some wait for something that does not come.
const PATIENCE: Duration = Duration::from_secs(120);

/// By how many tests a run may differ from another: the server decides some of them by its timing.
const TOLERANCE: u32 = 2;

fn main() -> ExitCode {
    run_tests(tests![
        as_much_of_a_server_of_go_passes_as_without_a_mesh,
        as_much_of_a_server_that_closes_with_unread_bytes_passes_as_without_a_mesh,
    ])
}

fn as_much_of_a_server_of_go_passes_as_without_a_mesh(lab: &Lab) -> Result<()> {
    ensure_as_much_passes(lab, |pod, at| go(lab, pod.place(), at))
}

/// Rust's h2, which hyper and tonic use: behind its GOAWAY it closes, and the kernel resets the connection because of
/// what was not read.
fn as_much_of_a_server_that_closes_with_unread_bytes_passes_as_without_a_mesh(
    lab: &Lab,
) -> Result<()> {
    ensure_as_much_passes(lab, |pod, at| GrpcAuthorizer::start(lab, pod.place(), at))
}

fn ensure_as_much_passes<S>(
    lab: &Lab,
    start: impl FnOnce(&Pod, SocketAddr) -> Result<S>,
) -> Result<()> {
    if let Err(missing) = peer("http2/h2spec").and_then(|_| peer("http2/h2c")) {
        return skip(missing);
    }
    let site = Site::start(lab, &[("plain", &[])])?;
    let pod = &site.backend("plain")?.pod;
    let at = pod.at(PORT);
    let _server = start(pod, at)?;
    let [outsider, caller] = [site.outsider.place(), site.caller.place()];
    let (direct, meshed) = thread::scope(|scope| {
        let direct = scope.spawn(|| findings(outsider, at).context("without a mesh"));
        let meshed = findings(caller, at).context("through a tunnel");
        (direct.join(), meshed)
    });
    let (direct, meshed) = (direct.map_err(|_| anyhow!("panicked"))??, meshed?);
    let (without, through) = (direct.passed, meshed.passed);
    println!("{without} tests passed without a mesh, {through} through a tunnel");
    // Otherwise it did not speak with the server.
    ensure!(without > 100, "{}", direct.said);
    ensure!(
        through + TOLERANCE >= without,
        "{without} tests passed without a mesh, and {through} through a tunnel:\n{}",
        meshed.failures()
    );
    Ok(())
}

/// Go's server closes some time after it has said why.
fn go(lab: &Lab, place: &Place, at: SocketAddr) -> Result<Process> {
    let mut command = place.command(peer("http2/h2c")?)?;
    command.arg(at.to_string());
    let mut server = Process::start(&mut command, &lab.new_log("h2c")?)?;
    server.wait_for_line("a server listening", |line| {
        (line == "listening").then_some(())
    })?;
    Ok(server)
}

/// What h2spec found.
struct Findings {
    passed: u32,
    said: String,
}

impl Findings {
    /// What failed, without what passed.
    fn failures(&self) -> &str {
        let failures = self.said.split_once("Failures:");
        failures.map_or(&self.said, |(_, failures)| failures)
    }
}

fn findings(from: &Place, server: SocketAddr) -> Result<Findings> {
    let mut command = from.command(peer("http2/h2spec")?)?;
    command.args([
        "--host",
        &server.ip().to_string(),
        "--port",
        &server.port().to_string(),
    ]);
    command.args(["--timeout", "2"]);
    // It fails if one of its tests fails.
    let said = output_within(PATIENCE, &mut command)?.stdout;
    let counts = said.lines().find_map(|line| {
        let (_, counts) = line.split_once(" tests, ")?;
        counts.split_once(" passed")?.0.parse().ok()
    });
    let passed = counts.with_context(|| format!("no counts: {said}"))?;
    Ok(Findings { passed, said })
}
