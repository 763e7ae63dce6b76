//! What a refused caller meets: a refusal is quick, it says what it is, and every listener is still found.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Family, Lab, LabServer, Mode, Place, Process, Reference, SOON, eventually, get_from,
    output, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = Reference::PORT;

/// For how long the hook refuses a caller's connects after a failure.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// The reason in status, metrics and log.
const NOTHING_LISTENS: &str = "nothing-listens";

fn main() -> ExitCode {
    run_tests(tests![
        a_port_without_a_listener_is_refused_at_once_and_called_so,
        a_denied_caller_does_not_learn_whether_anybody_listens,
        every_kind_of_listener_is_found,
        a_refused_connect_has_an_errno_that_programs_know,
    ])
}

fn a_port_without_a_listener_is_refused_at_once_and_called_so(lab: &Lab) -> Result<()> {
    let (mesh, [_callers, agent]) = Reference::start(lab)?;
    for (refused, family) in (1..).zip(Family::ALL) {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let reply = get_from(mesh.frontend.place(), orders)?;
        ensure!(reply.is_refusal(), "{orders}: {reply:?}");
        eventually(SOON, "the refusal under its name", || {
            (agent.refused(NOTHING_LISTENS).ok()? == refused).then_some(())
        })?;
        let line = format!("nothing listens at {orders}");
        ensure!(agent.log().contains(&line), "the log lacks: {line}");
    }
    // At once: a connect that waits for an answer has another reason.
    let counted = unheard(&agent)?;
    ensure!(counted == 2, "the kernel counted {counted}");
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    sleep(FAILED_FOR);
    for family in Family::ALL {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let reply = get_from(mesh.frontend.place(), orders)?;
        ensure!(reply.is_answer(), "{orders}, now with a server: {reply:?}");
    }
    Ok(())
}

fn a_denied_caller_does_not_learn_whether_anybody_listens(lab: &Lab) -> Result<()> {
    let (mesh, [_callers, agent]) = Reference::start(lab)?;
    for family in Family::ALL {
        let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
        let reply = get_from(mesh.payments.place(), orders)?;
        ensure!(reply.is_refusal(), "{orders}: {reply:?}");
    }
    eventually(SOON, "both denials", || {
        (agent.refused("no-allow-policy-matched").ok()? == 2).then_some(())
    })?;
    ensure!(agent.refused(NOTHING_LISTENS)? == 0);
    ensure!(unheard(&agent)? == 0);
    Ok(())
}

/// How many times the kernel's look-up found no listener.
fn unheard(agent: &Agent) -> Result<u64> {
    let status = agent.ask("status")?;
    let counted = status["kernel"]["delivery_nothing_listens"].as_u64();
    counted.with_context(|| format!("no such counter: {status}"))
}

/// A server in Python: its address, whether IPv4 may use an IPv6 socket, a device, and how many sockets share
/// the port.
const SERVER: &str = "
import select, socket, sys
address, only_v6, device, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
listeners = []
for _ in range(count):
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
    if count > 1:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if device:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    one.bind((address, int(sys.argv[5])))
    one.listen()
    listeners.append(one)
print('listening', flush=True)
while True:
    for one in select.select(listeners, [], [])[0]:
        accepted, _ = one.accept()
        accepted.recv(4096)
        accepted.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nhi')
        accepted.close()
";

/// A listener of [`SERVER`], and which families reach it.
struct Listener {
    address: String,
    only_v6: bool,
    device: &'static str,
    count: u8,
    reached_by: &'static [Family],
}

fn every_kind_of_listener_is_found(lab: &Lab) -> Result<()> {
    let (mesh, [_callers, agent]) = Reference::start(lab)?;
    let plain = |address: &str, reached_by| Listener {
        address: address.to_owned(),
        only_v6: true,
        device: "",
        count: 1,
        reached_by,
    };
    let own = |family| mesh.orders.ip(family).to_string();
    let (v4, v6): (&[_], &[_]) = (&[Family::V4], &[Family::V6]);
    let cases = [
        plain(&own(Family::V4), v4),
        plain(&own(Family::V6), v6),
        plain("0.0.0.0", v4),
        plain("::", v6),
        Listener {
            only_v6: false,
            ..plain("::", &Family::ALL)
        },
        Listener {
            count: 3,
            ..plain("0.0.0.0", v4)
        },
        Listener {
            count: 3,
            only_v6: false,
            ..plain("::", &Family::ALL)
        },
        plain("127.0.0.1", &[]),
        plain("::1", &[]),
        // The look-up misses it, so the connect goes on. It fails: the answer would leave by the device.
        Listener {
            device: "eth0",
            ..plain("0.0.0.0", &[])
        },
    ];
    for case in cases {
        let mut command = mesh.orders.place().command("python3")?;
        let only_v6 = u8::from(case.only_v6).to_string();
        command.args(["-c", SERVER, &case.address, &only_v6, case.device]);
        command.args([case.count.to_string(), PORT.to_string()]);
        let mut server = Process::start(&mut command, &lab.new_log("listener")?)?;
        server.wait_for_line("a listener", |line| (line == "listening").then_some(()))?;
        let Listener {
            address,
            device,
            count,
            ..
        } = &case;
        sleep(FAILED_FOR);
        let unheard_before = agent.refused(NOTHING_LISTENS)?;
        for family in Family::ALL {
            let orders = SocketAddr::new(mesh.orders.ip(family), PORT);
            let reply = get_from(mesh.frontend.place(), orders)?;
            let is_as_expected = match case.reached_by.contains(&family) {
                true => reply.is_answer(),
                false => reply.is_refusal(),
            };
            let what = format!("{count} at {address} {device}, called at {orders}");
            ensure!(is_as_expected, "{what}: {reply:?}");
        }
        let unheard = agent.refused(NOTHING_LISTENS)? - unheard_before;
        let reached = case.reached_by.len() as u64;
        let expected = if device.is_empty() { 2 - reached } else { 0 };
        ensure!(
            unheard == expected,
            "{count} at {address} {device}: {unheard}"
        );
    }
    Ok(())
}

/// Connects and prints the errno's name, or `none`.
const CALLER: &str = "
import errno, socket, sys
address, port, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]
caller = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM)
caller.settimeout(10)
if device:
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
try:
    caller.connect((address, port))
    print('none')
except TimeoutError:
    print('timeout')
except OSError as error:
    print(errno.errorcode[error.errno])
";

fn a_refused_connect_has_an_errno_that_programs_know(lab: &Lab) -> Result<()> {
    let (mesh, [callers, _other]) = Reference::start(lab)?;
    let _server = LabServer::in_pod(lab, &mesh.orders, Mode::Http, PORT)?;
    let expect = |expected: &str, device: &str| -> Result<()> {
        for family in Family::ALL {
            let orders = mesh.orders.ip(family).to_string();
            let mapped = format!("::ffff:{orders}");
            let forms = match family {
                Family::V4 => vec![orders, mapped],
                Family::V6 => vec![orders],
            };
            for to in forms {
                let met = errno(mesh.frontend.place(), &to, device)?;
                ensure!(met == expected, "{to} {device}: {met}, not {expected}");
            }
        }
        Ok(())
    };
    expect("none", "")?;
    expect("EHOSTUNREACH", "eth0")?;
    let file = mesh.frontend.file_name();
    let mut elsewhere = mesh.frontend.manifest();
    elsewhere["spec"]["nodeName"] = "node-c".into();
    lab.manifests().write_object(&file, &elsewhere)?;
    eventually(SOON, "the pod is closed", || {
        (errno(
            mesh.frontend.place(),
            &mesh.orders.ip(Family::V4).to_string(),
            "",
        )
        .ok()?
            != "none")
            .then_some(())
    })?;
    expect("ECONNREFUSED", "")?;
    expect("ECONNREFUSED", "eth0")?;
    lab.manifests().write_pod(&mesh.frontend)?;
    eventually(SOON, "the pod is served", || {
        (errno(
            mesh.frontend.place(),
            &mesh.orders.ip(Family::V4).to_string(),
            "",
        )
        .ok()?
            == "none")
            .then_some(())
    })?;
    // As the kernel itself answers for an agent that is dead.
    callers.kill()?;
    expect("ECONNREFUSED", "")
}

fn errno(from: &Place, to: &str, device: &str) -> Result<String> {
    let mut command = from.command("python3")?;
    let outcome = output(command.args(["-c", CALLER, to, &PORT.to_string(), device]))?;
    ensure!(outcome.status.success(), "python3: {}", outcome.stderr);
    Ok(outcome.stdout.trim().to_owned())
}
