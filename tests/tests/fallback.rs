//! Clients with several addresses to try leave one that cannot be reached, as without a mesh: connects to a
//! destination that has just failed are refused, for a second, to the pod that failed.

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Family, Lab, LabServer, Mode, NodeName, PinnedMap, Place, Process, Reference, SOON,
    eventually, output, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

const PORT: u16 = Reference::PORT;

/// For how long connects are refused after a failure.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// How many destinations of a pod each shard refuses at the same time.
const MOST: u64 = 8;

/// The kernel's map of failures.
const FAILED: &str = "FAILED";

fn main() -> ExitCode {
    run_tests(tests![
        dual_stack_clients_fall_back_to_the_address_that_listens,
        a_failure_concerns_only_the_pod_that_failed_and_a_denial_is_not_a_failure,
        a_failure_ends_although_the_agent_does_not_run_and_the_next_agent_forgets_it,
        a_pod_that_fails_everywhere_has_few_places_and_a_full_table_passes_connects_on,
    ])
}

/// Calls a name with an IPv6 and an IPv4 address until there is an answer. Prints the address that answered and how
/// many calls it took.
const DUAL_STACK: &str = "
import asyncio, socket, sys
kind, v6, v4, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
REQUEST = b'GET / HTTP/1.1\\r\\nhost: orders\\r\\nconnection: close\\r\\n\\r\\n'

def resolve(*_args, **_more):
    tcp = (socket.SOCK_STREAM, socket.IPPROTO_TCP, '')
    return [(socket.AF_INET6, *tcp, (v6, port, 0, 0)), (socket.AF_INET, *tcp, (v4, port))]

def create_connection():
    with socket.create_connection(('orders', port), 10) as caller:
        caller.sendall(REQUEST)
        return caller.recv(100), caller.getpeername()[0]

async def race():
    reader, writer = await asyncio.open_connection('orders', port, happy_eyeballs_delay=10)
    writer.write(REQUEST)
    peer = writer.get_extra_info('peername')[0]
    answer = await reader.read(100)
    writer.close()
    return answer, peer

socket.getaddrinfo = resolve
for calls in range(1, 100):
    try:
        answer, peer = create_connection() if kind == 'create_connection' else asyncio.run(race())
        if answer:
            print(peer, calls)
            break
    except OSError:
        pass
";

fn dual_stack_clients_fall_back_to_the_address_that_listens(lab: &Lab) -> Result<()> {
    let (mesh, [callers, _agent]) = Reference::start(lab)?;
    let [v4, v6] = [Family::V4, Family::V6].map(|family| mesh.orders.ip(family));
    let _server = LabServer::start(lab, mesh.orders.place(), Mode::Http, &[(v4, PORT).into()])?;
    for client in ["create_connection", "asyncio"] {
        sleep(FAILED_FOR);
        let mut command = mesh.frontend.place().command("python3")?;
        command.args(["-c", DUAL_STACK, client, &v6.to_string(), &v4.to_string()]);
        let outcome = output(command.arg(PORT.to_string()))?;
        let said = outcome.stdout.trim();
        // The first call fails. The next one is refused by the hook, unless the machine is very slow.
        let (answered_by, calls) = said
            .split_once(' ')
            .with_context(|| format!("{client} had no answer: {said} {}", outcome.stderr))?;
        ensure!(answered_by == v4.to_string(), "{client}: {said}");
        ensure!((2..=5).contains(&calls.parse::<u8>()?), "{client}: {said}");
    }
    sleep(FAILED_FOR);
    let mut curl = mesh.frontend.place().command("curl")?;
    curl.args(["--silent", "--noproxy", "*", "--max-time", "18"]);
    curl.args(["--happy-eyeballs-timeout-ms", "10000"]);
    curl.args(["--resolve", &format!("orders.test:{PORT}:[{v6}],{v4}")]);
    curl.args(["--write-out", "%{remote_ip} %{http_code}\\n"]);
    for _ in 0..5 {
        curl.args(["--output", "/dev/null"]);
        curl.arg(format!("http://orders.test:{PORT}/"));
    }
    let outcome = output(&mut curl)?;
    let mut said = outcome.stdout.lines();
    let fell_back = said.any(|line| line == format!("{v4} 200"));
    ensure!(fell_back, "curl: {}", outcome.stdout);
    ensure!(refused(&callers)? >= 3);
    Ok(())
}

/// How many connects the hook has refused because of a failure.
fn refused(agent: &Agent) -> Result<u64> {
    let status = agent.ask("status")?;
    let counted = status["kernel"]["outbound_endpoints_failed"].as_u64();
    counted.with_context(|| format!("no such counter: {status}"))
}

/// Connects to some ports, one after the other, as often as said, and prints how many of these connects were
/// refused. Each waits for the end of its connection.
const CALLER: &str = "
import errno, socket, sys
address, first, ports, rounds = sys.argv[1], *map(int, sys.argv[2:5])
for n in range(rounds):
    refused = 0
    for port in range(first, first + ports):
        caller = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
        caller.settimeout(10)
        try:
            caller.connect((address, port))
            caller.recv(1)
        except ConnectionRefusedError:
            refused += 1
        except ConnectionResetError:
            pass
    print(refused, flush=True)
";

/// Returns how many connects each round was refused.
fn call(from: &Place, address: &str, ports: u16, rounds: u32) -> Result<Vec<u64>> {
    let mut command = caller(from, address, ports, rounds)?;
    let outcome = output(&mut command)?;
    ensure!(outcome.status.success(), "python3: {}", outcome.stderr);
    let rounds = outcome.stdout.lines().map(|line| Ok(line.parse()?));
    rounds.collect()
}

fn caller(from: &Place, address: &str, ports: u16, rounds: u32) -> Result<std::process::Command> {
    let mut command = from.command("python3")?;
    command.args(["-c", CALLER, address, &PORT.to_string()]);
    command.args([ports.to_string(), rounds.to_string()]);
    Ok(command)
}

/// Calls a closed port again and again, so that there is a failure of the pod all the time.
fn fail_again_and_again(lab: &Lab, from: &Place, address: &str) -> Result<Process> {
    let mut command = caller(from, address, 1, u32::MAX)?;
    let mut failing = Process::start(&mut command, &lab.new_log("failing")?)?;
    failing.wait_for_line("a refused connect", |line| (line == "1").then_some(()))?;
    Ok(failing)
}

fn a_failure_concerns_only_the_pod_that_failed_and_a_denial_is_not_a_failure(
    lab: &Lab,
) -> Result<()> {
    let (mesh, [callers, _agent]) = Reference::start(lab)?;
    for family in Family::ALL {
        let orders = mesh.orders.ip(family).to_string();
        let before = refused(&callers)?;
        // Policy denies it to payments, which is on the same node as frontend.
        let denied = call(mesh.payments.place(), &orders, 1, 20)?;
        ensure!(denied == [0; 20], "{orders}: {denied:?}");
        ensure!(
            refused(&callers)? == before,
            "{orders}: a denial is a failure"
        );
        let _failing = fail_again_and_again(lab, mesh.frontend.place(), &orders)?;
        let denied = call(mesh.payments.place(), &orders, 1, 20)?;
        ensure!(
            denied == [0; 20],
            "{orders}, while frontend fails: {denied:?}"
        );
        ensure!(refused(&callers)? > before);
    }
    Ok(())
}

fn a_failure_ends_although_the_agent_does_not_run_and_the_next_agent_forgets_it(
    lab: &Lab,
) -> Result<()> {
    let (mesh, [mut callers, _agent]) = Reference::start(lab)?;
    let orders = mesh.orders.ip(Family::V4).to_string();
    let failing = fail_again_and_again(lab, mesh.frontend.place(), &orders)?;
    callers.signal(Signal::SIGSTOP)?;
    let id = callers.id().context("it has ended")?;
    eventually(SOON, "the agent being stopped", || {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        status.contains("State:\tT").then_some(())
    })?;
    // The kernel accepts a connection for the agent, which does not run.
    let mut connect = mesh.frontend.place().command("python3")?;
    connect.args(["-c", UNTIL_ACCEPTED, &orders, &PORT.to_string()]);
    let outcome = output(&mut connect)?;
    ensure!(outcome.stdout.trim() == "accepted", "{outcome:?}");
    let map = PinnedMap::named(lab, NodeName::A, FAILED)?;
    let map = map.first().context("no such map")?;
    ensure!(map.entries()? == 1, "{}", map.entries()?);
    drop(failing);
    callers.kill_at_once()?;
    let _next = lab.start_agent(NodeName::A)?;
    ensure!(map.entries()? == 0, "{}", map.entries()?);
    Ok(())
}

/// Connects until a connect is not refused.
const UNTIL_ACCEPTED: &str = "
import socket, sys, time
while True:
    caller = socket.socket()
    try:
        caller.connect((sys.argv[1], int(sys.argv[2])))
        print('accepted')
        break
    except ConnectionRefusedError:
        time.sleep(0.01)
";

fn a_pod_that_fails_everywhere_has_few_places_and_a_full_table_passes_connects_on(
    lab: &Lab,
) -> Result<()> {
    let (mesh, [callers, _agent]) = Reference::start(lab)?;
    let orders = mesh.orders.ip(Family::V4).to_string();
    let map = PinnedMap::named(lab, NodeName::A, FAILED)?;
    let map = map.first().context("no such map")?;
    map.fill()?;
    let counts = call(mesh.frontend.place(), &orders, 1, 10)?;
    ensure!(counts == [0; 10], "with a full table: {counts:?}");
    ensure!(refused(&callers)? == 0);
    map.empty()?;
    let shards = callers.ask("status")?["shards"]
        .as_u64()
        .context("shards")?;
    let most = MOST * shards;
    let counts = call(mesh.frontend.place(), &orders, 60, 2)?;
    ensure!(counts.iter().all(|&refused| refused <= most), "{counts:?}");
    let entries = map.entries()?;
    ensure!((1..=most).contains(&(entries as u64)), "{entries} entries");
    let mut changed = mesh.orders.manifest();
    changed["metadata"]["labels"]["changed"] = "yes".into();
    lab.manifests()
        .write_object(&mesh.orders.file_name(), &changed)?;
    eventually(SOON, "the failures being forgotten", || {
        (map.entries().ok()? == 0).then_some(())
    })
}
