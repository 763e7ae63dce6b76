//! What a pod can try with its own sockets and its own network namespace, in which it has all rights:
//! nothing gives it another identity, a way around policy, or a way out in plaintext.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::thread;

use ambit_tests::{
    Agent, Capture, Family, Lab, LabServer, LogMark, Mode, NodeName, Pod, Reference, SOON, Way,
    accept_by_ring, get, get_from, meddle, run_tests, tests,
};
use anyhow::{Context, Result, ensure};

const PORT: u16 = Reference::PORT;
const HBONE_PORT: u16 = 15008;
const FRONTEND: &str = "ns/frontend/sa/default";

fn main() -> ExitCode {
    run_tests(tests![
        no_way_of_connecting_reaches_a_pod_that_denies_the_caller,
        no_way_of_connecting_leaves_in_plaintext,
        a_socket_that_leaves_the_mesh_and_enters_it_is_redirected,
        a_pod_with_anothers_address_is_not_taken_for_it,
        a_forged_source_gives_no_identity,
        whoever_listens_on_the_agents_ports_gets_nothing,
        a_namespace_within_a_pod_has_no_identity,
        a_link_local_address_gives_no_access,
        datagrams_pass,
        packets_that_no_socket_makes_reach_no_pod_that_denies_them,
        a_server_with_io_uring_sees_its_caller,
        kernel_objects_are_out_of_reach,
        unspecified_addresses_mean_the_pods_own_loopback,
    ])
}

/// The reference example with a server in `payments`, which allows only `orders`, and a
/// server outside the mesh.
struct Scene {
    mesh: Reference,
    agents: [Agent; 2],
    payments: LabServer,
    outside: SocketAddr,
    _outside: LabServer,
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        let (mesh, agents) = Reference::start(lab)?;
        let outside = SocketAddr::new(NodeName::B.link_addresses().of(Family::V4), PORT);
        let node = lab.node(NodeName::B)?;
        Ok(Self {
            payments: LabServer::in_pod(lab, &mesh.payments, Mode::Http, PORT)?,
            _outside: LabServer::start(lab, &node, Mode::Http, &[outside])?,
            outside,
            mesh,
            agents,
        })
    }

    /// Every way, with arguments that make sense against `payments`.
    fn ways(&self, attacker: &Pod) -> Vec<Way> {
        let forged = SocketAddr::new(self.mesh.orders.ip(Family::V4), 40_000);
        let own_port = SocketAddr::new(attacker.ip(Family::V4), HBONE_PORT);
        vec![
            Way::Plain,
            Way::Device("eth0"),
            Way::Mark(1),
            Way::Mark(0x539),
            Way::Mark(u32::MAX),
            Way::Source(forged),
            Way::Source(own_port),
            Way::Mptcp,
            Way::Mapped,
            Way::FastOpen,
            Way::Ring,
            Way::Reconnect(self.outside),
            Way::Race(self.outside),
        ]
    }

    fn ensure_payments_unreached(&self) -> Result<()> {
        let reached = self.payments.connections();
        ensure!(reached.is_empty(), "payments was reached: {reached:?}");
        Ok(())
    }
}

fn no_way_of_connecting_reaches_a_pod_that_denies_the_caller(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let payments = scene.mesh.payments.at(PORT);
    for attacker in [&scene.mesh.frontend, &scene.mesh.intruder] {
        for way in scene.ways(attacker) {
            let reply = way.go(attacker.place(), payments)?;
            scene
                .ensure_payments_unreached()
                .with_context(|| format!("{way:?} from {}: {reply:?}", attacker.name()))?;
        }
    }
    // The control: the same destination, called by the only allowed caller.
    let reply = Way::Plain.go(scene.mesh.orders.place(), payments)?;
    ensure!(reply.is_ok(), "the control: {reply:?}");
    Ok(())
}

fn no_way_of_connecting_leaves_in_plaintext(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let orders = &scene.mesh.orders;
    let capture = Capture::start(lab)?;
    let ways = scene.ways(orders);
    let mut answered = Vec::new();
    for way in &ways {
        let reply = way.go(orders.place(), scene.mesh.payments.at(PORT))?;
        answered.push((way.clone(), reply));
    }
    let captured = capture.finish()?;
    for (way, reply) in &answered {
        // A race also reaches the server outside the mesh, correctly in plaintext.
        if !matches!(way, Way::Race(_)) {
            let crossed = captured.contains(way.mark().as_bytes());
            ensure!(!crossed, "{way:?} crossed the link: {reply:?}");
        }
    }
    // Permitted operations work.
    for way in [
        Way::Plain,
        Way::Mapped,
        Way::Mark(1),
        Way::Ring,
        Way::Reconnect(scene.outside),
    ] {
        let reply = answered.iter().find(|(tried, _)| *tried == way);
        ensure!(matches!(reply, Some((_, Ok(_)))), "{way:?}: {reply:?}");
    }
    Ok(())
}

fn a_socket_that_leaves_the_mesh_and_enters_it_is_redirected(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let orders = &scene.mesh.orders;
    let answers = Way::Race(scene.outside).go(orders.place(), scene.mesh.payments.at(PORT))?;
    let answers = answers.map_err(anyhow::Error::msg)?;
    // Each connection of the race ended at one of the two; those to `payments` came through a tunnel,
    // so they have the address of `orders` and not that of its loopback.
    for seen in scene.payments.connections() {
        let caller: SocketAddr = seen["accepted"].as_str().context("no caller")?.parse()?;
        ensure!(caller.ip() == orders.ip(Family::V4), "{seen}");
    }
    ensure!(answers.is_array(), "{answers}");
    Ok(())
}

fn a_pod_with_anothers_address_is_not_taken_for_it(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let payments = scene.mesh.payments.at(PORT);
    let frontend = &scene.mesh.frontend;
    let netns = frontend.place().netns();
    netns.ip(&format!("address add {}/32 dev eth0\n", payments.ip()))?;
    let impostor = LabServer::start(lab, frontend.place(), Mode::Http, &[payments])?;
    let reply = get_from(scene.mesh.orders.place(), payments)?;
    ensure!(reply.is_answer(), "{reply:?}");
    ensure!(scene.payments.connections().len() == 1);
    ensure!(
        impostor.connections().is_empty(),
        "the impostor was reached"
    );

    // Nor does it become another caller: only `orders` may call `payments`.
    let stolen = scene.mesh.orders.ip(Family::V4);
    for thief in [frontend, &scene.mesh.intruder] {
        let netns = thief.place().netns();
        netns.ip(&format!("address add {stolen}/32 dev eth0\n"))?;
        let way = Way::Source(SocketAddr::new(stolen, 0));
        let reply = way.go(thief.place(), SocketAddr::new(payments.ip(), PORT))?;
        ensure!(scene.payments.connections().len() == 1, "{reply:?}");
    }
    Ok(())
}

fn a_forged_source_gives_no_identity(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let payments = scene.mesh.payments.at(PORT);
    let forged = SocketAddr::new(scene.mesh.orders.ip(Family::V4), 0);
    let mark = LogMark::now(&scene.agents);
    // Either the kernel refuses the socket, or the agent names its pod.
    let reply = Way::Source(forged).go(scene.mesh.frontend.place(), payments)?;
    ensure!(reply.is_err(), "{reply:?}");
    scene.ensure_payments_unreached()?;
    let reply = get_from(scene.mesh.frontend.place(), payments)?;
    ensure!(reply.is_refusal(), "{reply:?}");
    let decision = mark.decision_about(&scene.agents, payments)?;
    let log = scene.agents[0].log();
    ensure!(log.contains(FRONTEND), "{decision:?}");
    Ok(())
}

fn whoever_listens_on_the_agents_ports_gets_nothing(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let payments = &scene.mesh.payments;
    let ports = scene.agents[0].listener_ports("payments/payments")?;
    let mut taken = Vec::new();
    for port in ports.into_iter().chain([HBONE_PORT]) {
        for ip in ["0.0.0.0", "127.0.0.1", "127.78.0.1", "::"] {
            let address = SocketAddr::new(ip.parse()?, port);
            taken.extend(payments.place().netns().enter(|| listen_beside(address))?);
        }
    }
    for _ in 0..20 {
        let reply = get_from(scene.mesh.orders.place(), payments.at(PORT))?;
        ensure!(reply.is_answer(), "{reply:?}");
    }
    let reply = get_from(scene.mesh.intruder.place(), payments.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    for listener in taken {
        ensure!(listener.accept().is_err(), "{listener:?} got a connection");
    }
    Ok(())
}

/// A listener with SO_REUSEPORT, if the address can be shared or is free.
fn listen_beside(address: SocketAddr) -> Option<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
    socket.set_reuse_port(true).ok()?;
    socket.bind(&address.into()).ok()?;
    socket.listen(16).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

fn a_namespace_within_a_pod_has_no_identity(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    // `orders` is allowed to call `payments`: a namespace that it makes is not `orders`.
    let nested = lab.nest(&scene.mesh.orders)?;
    let payments = scene.mesh.payments.at(PORT);
    let reply = get_from(&nested, payments)?;
    ensure!(!reply.is_answer(), "{reply:?}");
    scene.ensure_payments_unreached()?;
    let reply = get_from(&nested, scene.outside)?;
    ensure!(reply.is_answer(), "the control: {reply:?}");
    Ok(())
}

fn a_link_local_address_gives_no_access(lab: &Lab) -> Result<()> {
    const ANYWHERE: u16 = 8090;
    let scene = Scene::start(lab)?;
    let payments = &scene.mesh.payments;
    let device = format!("pod{}", payments.addresses().v4.octets()[3]);
    let netns = payments.place().netns();
    netns.ip("address add fe80::2/64 dev eth0 nodad\n")?;
    let node = lab.node(NodeName::A)?;
    let gateway = format!("address add fe80::1/64 dev {device} nodad\n");
    node.netns().ip(&gateway)?;
    let listening: SocketAddr = format!("[::]:{ANYWHERE}").parse()?;
    let server = LabServer::start(lab, payments.place(), Mode::Http, &[listening])?;
    let url = format!("http://[fe80::2%25{device}]:{ANYWHERE}/");
    let reply = get(&node, &url)?;
    ensure!(reply.is_refusal(), "{url}: {reply:?}");
    ensure!(server.connections().is_empty(), "the server was reached");
    Ok(())
}

fn datagrams_pass(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    for family in Family::ALL {
        let to = SocketAddr::new(scene.mesh.payments.ip(family), 5353);
        let netns = scene.mesh.payments.place().netns();
        let server = netns.enter(|| UdpSocket::bind(to))??;
        server.set_read_timeout(Some(SOON))?;
        let echo = thread::spawn(move || -> std::io::Result<usize> {
            let mut buffer = [0; 64];
            let (length, from) = server.recv_from(&mut buffer)?;
            server.send_to(&buffer[..length], from)
        });
        let reply = Way::Udp.go(scene.mesh.frontend.place(), to)?;
        ensure!(reply == Ok("datagram".into()), "{family:?}: {reply:?}");
        let echoed = echo.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        ensure!(echoed? > 0);
    }
    Ok(())
}

fn packets_that_no_socket_makes_reach_no_pod_that_denies_them(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let payments = scene.mesh.payments.at(PORT);
    let orders = scene.mesh.orders.at(41_000);
    for attacker in [&scene.mesh.frontend, &scene.mesh.intruder] {
        // In this order: the first one makes the gateway known to the second.
        let own = attacker.at(41_000);
        for way in [Way::Raw(own), Way::Packet(own)] {
            let reply = way.go(attacker.place(), scene.outside)?;
            ensure!(
                reply == Ok("syn-ack".into()),
                "the control: {way:?}: {reply:?}"
            );
            let reply = way.go(attacker.place(), payments)?;
            ensure!(
                reply == Err("reset".into()),
                "{way:?} from {}: {reply:?}",
                attacker.name()
            );
        }
        // A pod that allows `orders` does not allow packets that only claim to come from it.
        for way in [Way::Raw(orders), Way::Packet(orders)] {
            let reply = way.go(attacker.place(), payments)?;
            ensure!(reply == Err("silence".into()), "{way:?}: {reply:?}");
        }
    }
    scene.ensure_payments_unreached()
}

fn a_server_with_io_uring_sees_its_caller(lab: &Lab) -> Result<()> {
    let (mesh, _agents) = Reference::start(lab)?;
    let orders = mesh.orders.at(PORT);
    let calls = || get_from(mesh.frontend.place(), orders).map(drop);
    let seen = accept_by_ring(lab, mesh.orders.place(), orders, calls)?;
    ensure!(seen.ip() == mesh.frontend.ip(Family::V4), "{seen}");
    Ok(())
}

fn kernel_objects_are_out_of_reach(lab: &Lab) -> Result<()> {
    const WITHOUT_THE_NODES_FILES: &str = "umount --recursive --lazy /sys/fs/bpf \
        && mount -t bpf none /sys/fs/bpf && exec \"$@\"";
    let scene = Scene::start(lab)?;
    let (place, pins) = (scene.mesh.payments.place(), lab.pins(NodeName::A));
    let as_pod = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        WITHOUT_THE_NODES_FILES,
        "sh",
    ];
    let network_admin = [
        "setpriv",
        "--bounding-set=-all,+net_admin,+net_raw",
        "--inh-caps=-all,+net_admin,+net_raw",
    ];
    let own_root = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
    ];
    let had = meddle(place, &[], &pins)?;
    let kinds = ["programs", "maps", "links", "pins"];
    ensure!(
        kinds.iter().all(|kind| had[kind] != 0),
        "the control: {had}"
    );
    ensure!(
        had["detached"] == false,
        "the node's root detached it: {had}"
    );
    for whom in [[&as_pod[..], &network_admin].concat(), own_root.to_vec()] {
        let had = meddle(place, &whom, &pins)?;
        let nothing = kinds.iter().all(|kind| had[kind] == 0) && had["detached"] == false;
        ensure!(nothing, "{whom:?} got {had}");
    }
    let reply = get_from(scene.mesh.intruder.place(), scene.mesh.payments.at(PORT))?;
    ensure!(reply.is_refusal(), "{reply:?}");
    let reply = get_from(scene.mesh.orders.place(), scene.mesh.payments.at(PORT))?;
    ensure!(reply.is_answer(), "{reply:?}");
    Ok(())
}

fn unspecified_addresses_mean_the_pods_own_loopback(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let frontend = scene.mesh.frontend.place();
    let loopback = ["127.0.0.1:8080", "[::1]:8080"].map(str::parse);
    let loopback: Vec<SocketAddr> = loopback.into_iter().collect::<Result<_, _>>()?;
    let own = LabServer::start(lab, frontend, Mode::Http, &loopback)?;
    let targets = [
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "127.0.0.1",
        "::ffff:127.0.0.1",
    ];
    for (known, ip) in targets.into_iter().enumerate() {
        let to = SocketAddr::new(ip.parse()?, PORT);
        let reply = Way::Plain.go(frontend, to)?;
        ensure!(reply.is_ok(), "{to}: {reply:?}");
        let seen = own.next_connection(known)?;
        let caller: SocketAddr = seen["accepted"].as_str().context("no caller")?.parse()?;
        ensure!(caller.ip().to_canonical().is_loopback(), "{to}: {seen}");
    }
    scene.ensure_payments_unreached()
}
