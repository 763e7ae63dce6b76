//! Nothing that a sender on the wire chooses counts as the pod's own or as the agent's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Family, ForgedSyns, Lab, LabServer, Membership, Mode, Netns, NodeName, PinnedMap, Place,
    Pod, Reference, SOON, Way, eventually, get_from, output, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

const PORT: u16 = Reference::PORT;
const HBONE_PORT: u16 = 15008;

/// A port on which nothing listens.
const CLOSED_PORT: u16 = 9;

/// `net.ipv4.tcp_fastopen`: every listener takes data in a SYN, and demands no cookie.
const FAST_OPEN_FOR_ANYONE: &str = "1539";

fn main() -> ExitCode {
    run_tests(tests![
        a_pods_own_address_as_a_source_lets_nothing_in,
        a_flood_from_a_pods_own_address_makes_nothing_half_open,
        a_source_port_of_0_is_not_taken_for_a_look_up,
        a_pod_reaches_itself_in_every_way,
        no_handshakes_record_outlives_it,
        plaintext_from_hbones_port_does_not_survive_strict,
        plaintext_from_hbones_port_does_not_survive_enrolment,
    ])
}

/// Sets values below `/proc/sys/net`.
fn sysctl(netns: &Netns, settings: &[(&str, &str)]) -> Result<()> {
    netns.enter(|| {
        settings.iter().try_for_each(|(name, value)| {
            let path = format!("/proc/sys/net/{name}");
            fs::write(&path, value).with_context(|| format!("cannot set {path}"))
        })
    })?
}

/// `frontend`, which is STRICT, with a server that takes fast open from anyone, and a network that does not drop forged sources.
struct Victim {
    mesh: Reference,
    agents: [Agent; 2],
    server: LabServer,
}

impl Victim {
    fn start(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let frontend = mesh.frontend.place();
        sysctl(
            frontend.netns(),
            &[("ipv4/tcp_fastopen", FAST_OPEN_FOR_ANYONE)],
        )?;
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let own = Family::ALL.map(|family| mesh.frontend.ip(family));
        let listen = [own, loopback].concat();
        let listen: Vec<_> = listen.into_iter().map(|ip| (ip, PORT).into()).collect();
        let server = LabServer::start(lab, frontend, Mode::Http, &listen)?;
        let nodes = [lab.node(NodeName::A)?, lab.node(NodeName::B)?];
        for netns in nodes.iter().map(Place::netns).chain([frontend.netns()]) {
            believe_every_source(netns)?;
        }
        // The sender must have resolved the neighbour before.
        for place in [mesh.intruder.place(), &nodes[0]] {
            let reply = get_from(place, mesh.frontend.at(PORT))?;
            ensure!(reply.is_refusal(), "{reply:?}");
        }
        Ok(Self {
            mesh,
            agents,
            server,
        })
    }

    fn ip(&self, family: Family) -> IpAddr {
        self.mesh.frontend.ip(family)
    }

    /// The node's device at the other end of the pod's.
    fn device(&self) -> String {
        format!("pod{}", self.mesh.frontend.addresses().v4.octets()[3])
    }

    /// The packets that the kernel refused although they claim to be a pod's own.
    fn refused(&self) -> Result<u64> {
        let status = self.agents[0].ask("status")?;
        status["kernel"]["loopback_refused"]
            .as_u64()
            .context("no such counter")
    }

    /// All packets to its pods that the kernel refused.
    fn all_refused(&self) -> Result<u64> {
        let status = self.agents[0].ask("status")?;
        let counters = [
            "loopback_refused",
            "plaintext_denied",
            "sk_lookup_refused",
            "sk_lookup_refused_again",
        ];
        let counted = counters.map(|name| status["kernel"][name].as_u64());
        counted
            .into_iter()
            .try_fold(0, |sum, count| Some(sum + count?))
            .context("no such counters")
    }

    /// Handshakes that became half open and were reset.
    fn embryos(&self) -> Result<u64> {
        let netns = self.mesh.frontend.place().netns();
        let read = || fs::read_to_string("/proc/thread-self/net/netstat");
        counter(&netns.enter(read)??, "EmbryonicRsts")
    }
}

/// Makes the kernel accept packets whose source is the receiver's own.
fn believe_every_source(netns: &Netns) -> Result<()> {
    let devices = netns.enter(|| fs::read_dir("/proc/sys/net/ipv4/conf"))??;
    for device in devices {
        let device = device?.file_name();
        let name = |of: &str| format!("ipv4/conf/{}/{of}", device.to_string_lossy());
        let [accept, route, filter] = ["accept_local", "route_localnet", "rp_filter"].map(name);
        sysctl(netns, &[(&accept, "1"), (&route, "1"), (&filter, "0")])?;
    }
    Ok(())
}

/// A counter of `/proc/net/netstat`: a line of names, then one of numbers.
fn counter(table: &str, name: &str) -> Result<u64> {
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    let found = lines.chunks(2).find_map(|pair| {
        let [names, numbers] = pair else {
            return None;
        };
        let at = names.iter().position(|known| *known == name)?;
        numbers.get(at)?.parse().ok()
    });
    found.with_context(|| format!("no counter {name}"))
}

fn a_pods_own_address_as_a_source_lets_nothing_in(lab: &Lab) -> Result<()> {
    const REQUEST: &str = "GET /forged HTTP/1.1\r\nhost: victim\r\nconnection: close\r\n\r\n";
    let victim = Victim::start(lab)?;
    let (v4, v6) = (victim.ip(Family::V4), victim.ip(Family::V6));
    // The control: this server takes a request in a SYN, without a cookie.
    let reply = Way::FastOpen.go(victim.mesh.frontend.place(), (v6, PORT).into())?;
    ensure!(reply.is_ok(), "the control: {reply:?}");

    let (intruder, node) = (victim.mesh.intruder.place(), lab.node(NodeName::A)?);
    let device = victim.device();
    let loopback = |ip: &str| ip.parse::<IpAddr>();
    let mut reached = Vec::new();
    for (number, (from, device, source, to)) in (0_u16..).zip([
        (intruder, "eth0", v6, v6),
        (intruder, "eth0", v4, v4),
        (intruder, "eth0", loopback("127.0.0.1")?, v4),
        (intruder, "eth0", loopback("127.77.1.2")?, v4),
        (&node, &device, v6, v6),
        (&node, &device, v4, v4),
        (&node, &device, loopback("127.0.0.1")?, v4),
        (&node, &device, v4, loopback("127.0.0.1")?),
        (
            &node,
            &device,
            loopback("127.0.0.1")?,
            loopback("127.0.0.1")?,
        ),
    ]) {
        let (refused, known) = (victim.refused()?, victim.server.connections().len());
        let syns = ForgedSyns {
            device,
            source: (source, 41_000 + number).into(),
            to: (to, PORT).into(),
            count: 1,
            data: REQUEST,
        };
        syns.send(from)?;
        let entered = || (victim.server.connections().len() > known).then_some(true);
        let entered = eventually(SOON, "the packet at the victim", || {
            entered().or_else(|| (victim.refused().ok()? > refused).then_some(false))
        });
        if entered.with_context(|| format!("{syns:?}"))? {
            reached.push((source, to));
        }
    }
    ensure!(
        reached.is_empty(),
        "the server was reached from, at: {reached:?}"
    );
    Ok(())
}

fn a_flood_from_a_pods_own_address_makes_nothing_half_open(lab: &Lab) -> Result<()> {
    const FLOOD: u16 = 500;
    let victim = Victim::start(lab)?;
    let mut begun = Vec::new();
    for family in Family::ALL {
        let (refused, embryos) = (victim.refused()?, victim.embryos()?);
        let syns = ForgedSyns {
            device: "eth0",
            source: (victim.ip(family), 42_000).into(),
            to: (victim.ip(family), PORT).into(),
            count: FLOOD,
            data: "",
        };
        syns.send(victim.mesh.intruder.place())?;
        let arrived = eventually(SOON, "the flood at the victim", || {
            let half_open = victim.embryos().ok()? - embryos;
            let refused = victim.refused().ok()? - refused;
            // This link loses nothing, but a listener with a full backlog may drop packets.
            (half_open > 0 || refused >= FLOOD.into()).then_some(half_open)
        });
        begun.push((family, arrived?));
    }
    ensure!(
        begun.iter().all(|(_, half_open)| *half_open == 0),
        "handshakes began: {begun:?}"
    );
    Ok(())
}

/// The connect hook's own question whether a socket listens has this port, and is let through.
fn a_source_port_of_0_is_not_taken_for_a_look_up(lab: &Lab) -> Result<()> {
    const REQUEST: &str = "GET /forged HTTP/1.1\r\nhost: victim\r\nconnection: close\r\n\r\n";
    let victim = Victim::start(lab)?;
    let (intruder, node) = (victim.mesh.intruder.place(), lab.node(NodeName::A)?);
    let device = victim.device();
    let mut reached = Vec::new();
    for family in Family::ALL {
        let own = victim.ip(family);
        for (from, device, source) in [
            (intruder, "eth0", victim.mesh.intruder.ip(family)),
            (intruder, "eth0", own),
            (&node, device.as_str(), victim.mesh.intruder.ip(family)),
            (&node, device.as_str(), own),
        ] {
            let (refused, known) = (victim.all_refused()?, victim.server.connections().len());
            let syns = ForgedSyns {
                device,
                source: (source, 0).into(),
                to: (own, PORT).into(),
                count: 1,
                data: REQUEST,
            };
            syns.send(from)?;
            let entered = eventually(SOON, "the packet at the victim", || {
                let entered = victim.server.connections().len() > known;
                (entered || victim.all_refused().ok()? > refused).then_some(entered)
            });
            if entered.with_context(|| format!("{syns:?}"))? {
                reached.push(source);
            }
        }
    }
    ensure!(
        reached.is_empty(),
        "the server was reached from: {reached:?}"
    );
    Ok(())
}

fn a_pod_reaches_itself_in_every_way(lab: &Lab) -> Result<()> {
    let victim = Victim::start(lab)?;
    let frontend = victim.mesh.frontend.place();
    let (v4, v6) = (victim.ip(Family::V4), victim.ip(Family::V6));
    let ip = |text: &str| text.parse::<IpAddr>();
    let (loopback, loopback_v6) = (ip("127.0.0.1")?, ip("::1")?);
    let source = |ip: IpAddr| Way::Source((ip, 0).into());
    let mut ways = vec![
        (Way::Plain, ip("0.0.0.0")?, loopback),
        (Way::Plain, ip("::")?, loopback_v6),
        (Way::Mapped, v4, v4),
        (source(loopback), v4, loopback),
        (source(ip("127.5.6.7")?), v4, ip("127.5.6.7")?),
        (source(loopback_v6), v6, loopback_v6),
        (source(v4), loopback, v4),
    ];
    for own in [v4, v6, loopback, loopback_v6] {
        for way in [Way::Plain, Way::FastOpen, Way::Mptcp, Way::Ring] {
            ways.push((way, own, own));
        }
    }
    // As usual, and with SYN cookies for all: then `sk_lookup` sees the ACK, too.
    for cookies in ["1", "2"] {
        sysctl(frontend.netns(), &[("ipv4/tcp_syncookies", cookies)])?;
        for (way, to, seen) in &ways {
            let reply = way.go(frontend, (*to, PORT).into())?;
            let context = || format!("{way:?} to {to}, cookies {cookies}");
            let answer = reply.map_err(anyhow::Error::msg).with_context(context)?;
            for by in ["accepted", "peer"] {
                let caller: SocketAddr = answer[by].as_str().context("no caller")?.parse()?;
                let caller = caller.ip().to_canonical();
                ensure!(caller == *seen, "{}: {by} {caller}", context());
            }
        }
    }
    Ok(())
}

fn no_handshakes_record_outlives_it(lab: &Lab) -> Result<()> {
    let victim = Victim::start(lab)?;
    let frontend = &victim.mesh.frontend;
    let orders = LabServer::in_pod(lab, &victim.mesh.orders, Mode::Http, PORT)?;
    for family in Family::ALL {
        let own = SocketAddr::new(frontend.ip(family), PORT);
        ensure!(get_from(frontend.place(), own)?.is_answer());
        let closed = SocketAddr::new(frontend.ip(family), CLOSED_PORT);
        ensure!(get_from(frontend.place(), closed)?.is_refusal());
        let other = SocketAddr::new(victim.mesh.orders.ip(family), PORT);
        ensure!(get_from(frontend.place(), other)?.is_answer());
    }
    // A server with a full backlog: its callers give up while their SYN is unanswered, or are connected
    // and never accepted.
    overflow_a_backlog(frontend)?;

    // From a node to a pod of the other one: that node's kernel sees only the calling end.
    lab.manifests().write("permissive.yaml", PERMISSIVE)?;
    let (node, to) = (lab.node(NodeName::A)?, victim.mesh.orders.at(PORT));
    eventually(SOON, "plaintext is allowed", || {
        get_from(&node, to).ok()?.is_answer().then_some(())
    })?;
    drop(orders);

    for name in ["HANDSHAKES", "NODE_CONNECTIONS"] {
        for map in PinnedMap::named(lab, NodeName::A, name)? {
            eventually(SOON, &format!("{name} is empty"), || {
                (map.entries().ok()? == 0).then_some(())
            })?;
        }
    }
    Ok(())
}

/// Connects to a port of the pod more often than its server accepts, and closes everything: clients
/// first, so that some give up in the middle of their handshake.
const OVERFLOW: &str = "
import socket, sys, time
ip = sys.argv[1]
family = socket.AF_INET6 if ':' in ip else socket.AF_INET
server = socket.socket(family)
server.bind((ip, 9998))
server.listen(1)
calls = [socket.socket(family) for _ in range(8)]
for call in calls:
    call.setblocking(False)
    call.connect_ex((ip, 9998))
time.sleep(0.5)
for call in calls:
    call.close()
";

fn overflow_a_backlog(pod: &Pod) -> Result<()> {
    for family in Family::ALL {
        let mut command = pod.command("python3")?;
        command.args(["-c", OVERFLOW, &pod.ip(family).to_string()]);
        let outcome = output(&mut command)?;
        ensure!(outcome.status.success(), "{}", outcome.stderr);
    }
    Ok(())
}

fn stream(to: SocketAddr) -> std::io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM, None)
}

/// When a listener gets a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepting {
    /// After the handshake.
    AtOnce,
    /// Once its client has sent something: half open until then (TCP_DEFER_ACCEPT).
    WithData,
}

fn listen(at: SocketAddr, accepting: Accepting) -> Result<TcpListener> {
    let socket = stream(at)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    if accepting == Accepting::WithData {
        let seconds: libc::c_int = 120;
        // SAFETY: the kernel reads an int, which lives during the call.
        let deferred = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of_val(&seconds) as libc::socklen_t,
            )
        };
        ensure!(deferred == 0, "{}", std::io::Error::last_os_error());
    }
    socket.listen(16)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A stranger's plaintext connection that its server has not accepted.
struct Waiting {
    name: String,
    listener: TcpListener,
    client: TcpStream,
    accepting: Accepting,
}

impl Waiting {
    /// One from a local port of `stranger` to a listener of its own in `pod`.
    fn open(
        pod: &Pod,
        stranger: &Pod,
        family: Family,
        accepting: Accepting,
        [from, to]: [u16; 2],
    ) -> Result<Self> {
        let at = SocketAddr::new(pod.ip(family), to);
        let listener = pod.place().netns().enter(|| listen(at, accepting))??;
        let source = SocketAddr::new(stranger.ip(family), from);
        // On a thread of this process: no agent's hook sees it.
        let client = stranger.place().netns().enter(|| {
            let socket = stream(at)?;
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
            socket.connect_timeout(&at.into(), SOON)?;
            Ok::<TcpStream, std::io::Error>(socket.into())
        })?;
        Ok(Self {
            name: format!("{source} to {at}, accepted {accepting:?}"),
            listener,
            client: client?,
            accepting,
        })
    }

    /// The client's result: the answer of an application that accepts only now, or the error.
    fn ask(&mut self) -> std::io::Result<String> {
        const PATIENCE: Duration = Duration::from_millis(300);
        self.client.set_read_timeout(Some(PATIENCE))?;
        self.client.write_all(b"request\n")?;
        sleep(PATIENCE);
        if let Ok((mut server, _)) = self.listener.accept() {
            server.set_nonblocking(true)?;
            let mut request = [0; 64];
            if matches!(server.read(&mut request), Ok(length) if length > 0) {
                let _ = server.write_all(b"secret");
            }
        }
        let mut answer = [0; 64];
        let length = self.client.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Whether the client has been reset.
    fn is_reset(&self) -> bool {
        let mut byte = [0];
        self.client.set_nonblocking(true).is_ok()
            && matches!((&self.client).read(&mut byte), Err(error)
                if error.kind() == std::io::ErrorKind::ConnectionReset)
    }
}

/// Connections of a stranger to `frontend` that wait, from HBONE's port and from another; `close`
/// makes plaintext forbidden. Then each of them must be reset, and none answered.
fn ensure_closed(mesh: &Reference, close: impl FnOnce() -> Result<()>) -> Result<()> {
    let (mut from_hbone, mut from_other) = (Vec::new(), Vec::new());
    let mut to = 7000;
    for family in Family::ALL {
        for accepting in [Accepting::AtOnce, Accepting::WithData] {
            for (source, waiting) in [(HBONE_PORT, &mut from_hbone), (25_008, &mut from_other)] {
                to += 1;
                let (pod, stranger) = (&mesh.frontend, &mesh.intruder);
                let ports = [source, to];
                waiting.push(Waiting::open(pod, stranger, family, accepting, ports)?);
            }
        }
    }
    close()?;
    // The control: those from any other port are found. A half-open one shows nothing before it is used.
    for waiting in &from_other {
        if waiting.accepting == Accepting::AtOnce {
            eventually(SOON, &format!("reset: {}", waiting.name), || {
                waiting.is_reset().then_some(())
            })?;
        }
    }
    // The agent looks twice, the second time after a second.
    sleep(Duration::from_secs(2));
    let mut survivors = Vec::new();
    for waiting in from_other.iter_mut().chain(&mut from_hbone) {
        waiting.client.set_nonblocking(false)?;
        match waiting.ask() {
            Err(error) if is_reset(&error) => {}
            other => survivors.push(format!("{}: {other:?}", waiting.name)),
        }
    }
    ensure!(survivors.is_empty(), "not reset: {survivors:#?}");
    Ok(())
}

fn is_reset(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe)
}

fn plaintext_from_hbones_port_does_not_survive_strict(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests().write("permissive.yaml", PERMISSIVE)?;
    let _agents = lab.start_agents()?;
    ensure_closed(&mesh, || lab.manifests().remove("permissive.yaml"))
}

fn plaintext_from_hbones_port_does_not_survive_enrolment(lab: &Lab) -> Result<()> {
    let mesh = Reference::build(lab)?;
    lab.manifests()
        .write_namespace("frontend", Membership::None)?;
    let _agents = lab.start_agents()?;
    ensure_closed(&mesh, || {
        lab.manifests()
            .write_namespace("frontend", Membership::Ambient)
    })
}

/// Plaintext is allowed at `frontend`, and at `orders` if its policies allow it.
const PERMISSIVE: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: frontend}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: open, namespace: orders}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: orders}
spec: {rules: [{}]}
";
