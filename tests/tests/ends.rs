//! How connections end: places are given back, half-closed connections live on, and the log and the metrics
//! say who ended a connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ambit_tests::{
    Agent, HeldConnection, Lab, ReaderOrder, Readers, Reading, Reference, SOON, Swarm, eventually,
    run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::SockRef;

const PORT: u16 = Reference::PORT;

/// Clients that never close.
const CLIENTS: usize = 500;

/// How long a half-closed connection has to live on: longer than Linux keeps a closed one
/// (`tcp_fin_timeout`, 60 s).
const HALF_CLOSED: Duration = Duration::from_secs(65);

/// How long a client may take nothing of what a server has left behind.
const STALLED: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    run_tests(tests![
        whoever_has_closed_gives_places_back,
        whoever_has_closed_gives_places_back_behind_a_tunnel,
        a_server_that_half_closes_and_goes_on_reading_is_not_cut,
        the_log_and_the_metrics_say_who_ended_a_connection,
        both_agents_say_who_ended_a_tunnelled_connection,
        a_client_that_takes_nothing_for_minutes_is_reset_and_that_is_told,
    ])
}

/// How `frontend` calls a server.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By its own Service: nothing leaves the pod.
    OwnPod,
    /// `orders` on the other node, through a tunnel.
    Tunnel,
}

/// Who closes.
#[derive(Clone, Copy, Debug)]
enum Party {
    Server,
    Clients,
}

/// `frontend`, a server that it calls, and the agents.
struct Scene {
    mesh: Reference,
    way: Way,
    called: SocketAddr,
    agents: [Agent; 2],
}

impl Scene {
    fn start(lab: &Lab, way: Way) -> Result<Self> {
        let mesh = Reference::build(lab)?;
        let service = lab.add_service(&mesh.frontend, 80, PORT)?;
        lab.manifests().write_service(&service)?;
        Ok(Self {
            agents: lab.start_agents()?,
            called: match way {
                Way::OwnPod => service.at(),
                Way::Tunnel => mesh.orders.at(PORT),
            },
            way,
            mesh,
        })
    }

    /// Listens in the server's pod, in this process: what happens to the sockets is up to the test.
    fn listen(&self) -> Result<TcpListener> {
        let pod = match self.way {
            Way::OwnPod => &self.mesh.frontend,
            Way::Tunnel => &self.mesh.orders,
        };
        let listen = || TcpListener::bind(pod.at(PORT));
        Ok(pod.place().netns().enter(listen)??)
    }

    /// Opens connections that never end by themselves. Returns the server's ends of them.
    fn hold(
        &self,
        lab: &Lab,
        listener: &TcpListener,
        clients: usize,
    ) -> Result<(Swarm, Vec<TcpStream>)> {
        let from = self.mesh.frontend.place();
        let mut swarm = Swarm::hold(lab, from, self.called, clients)?;
        let accepted = (0..clients).map(|_| {
            let mut stream = listener.accept()?.0;
            let mut asked = [0; 64];
            let length = stream.read(&mut asked)?;
            stream.write_all(asked.get(..length).context("a length")?)?;
            Ok(stream)
        });
        let accepted = accepted.collect::<Result<_>>()?;
        let outcome = swarm.outcome()?;
        ensure!(outcome == (clients as u64, 0), "{outcome:?}");
        Ok((swarm, accepted))
    }

    /// How many connections each agent carries.
    fn connections(&self) -> Result<Vec<usize>> {
        let of_each = self.agents.iter().map(|agent| {
            let connections = agent.ask("connections")?;
            Ok(connections.as_array().context("no list")?.len())
        });
        of_each.collect()
    }

    /// What [`Self::connections`] shows while so many are open.
    fn carried(&self, connections: usize) -> [usize; 2] {
        match self.way {
            Way::OwnPod => [connections, 0],
            Way::Tunnel => [connections; 2],
        }
    }

    /// Waits until each agent has said this of the last connection.
    fn ensure_ended(&self, end: &str) -> Result<()> {
        let carrying = match self.way {
            Way::OwnPod => &self.agents[..1],
            Way::Tunnel => &self.agents,
        };
        for agent in carrying {
            eventually(SOON, end, || {
                let log = agent.log();
                let mut lines = log
                    .lines()
                    .filter_map(|line| serde_json::from_str(line).ok());
                lines.find(|line: &Value| line["fields"]["end"] == end)
            })?;
            let metric = format!("ambit_connections_ended_total{{end=\"{end}\"}} 1");
            let metrics = agent.metrics()?;
            ensure!(metrics.contains(&metric), "{metric} is not in {metrics}");
        }
        Ok(())
    }
}

fn whoever_has_closed_gives_places_back(lab: &Lab) -> Result<()> {
    ensure_places_are_given_back(lab, Way::OwnPod)
}

fn whoever_has_closed_gives_places_back_behind_a_tunnel(lab: &Lab) -> Result<()> {
    ensure_places_are_given_back(lab, Way::Tunnel)
}

/// The other side never closes.
fn ensure_places_are_given_back(lab: &Lab, way: Way) -> Result<()> {
    let scene = Scene::start(lab, way)?;
    let listener = scene.listen()?;
    for leaving in [Party::Server, Party::Clients] {
        let (clients, accepted) = scene.hold(lab, &listener, CLIENTS)?;
        let connections = scene.connections()?;
        ensure!(connections == scene.carried(CLIENTS), "{connections:?}");
        let _staying = match leaving {
            Party::Server => {
                drop(accepted);
                (Some(clients), None)
            }
            Party::Clients => {
                drop(clients);
                (None, Some(accepted))
            }
        };
        let what = format!("no connection in the accounts when {leaving:?} has closed");
        eventually(SOON, &what, || {
            (scene.connections().ok()? == [0, 0]).then_some(())
        })?;
    }
    Ok(())
}

/// On every path at once, because it takes a minute.
fn a_server_that_half_closes_and_goes_on_reading_is_not_cut(lab: &Lab) -> Result<()> {
    let clients = 20;
    let mut scene = Scene::start(lab, Way::OwnPod)?;
    let (own, mut accepted) = scene.hold(lab, &scene.listen()?, clients)?;
    scene.way = Way::Tunnel;
    scene.called = scene.mesh.orders.at(PORT);
    let (tunnelled, others) = scene.hold(lab, &scene.listen()?, clients)?;
    accepted.extend(others);
    for stream in &accepted {
        stream.shutdown(Shutdown::Write)?;
        stream.set_nonblocking(true)?;
    }
    thread::sleep(HALF_CLOSED);
    let connections = scene.connections()?;
    ensure!(connections == [2 * clients, clients], "{connections:?}");
    for mut stream in &accepted {
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        ensure!(read == Err(ErrorKind::WouldBlock), "{read:?}");
    }
    drop((own, tunnelled));
    for mut stream in &accepted {
        let read = eventually(SOON, "the clients' end", || match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            read => Some(read.map_err(|error| error.kind())),
        })?;
        let is_end = matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset));
        ensure!(is_end, "{read:?}");
    }
    Ok(())
}

fn the_log_and_the_metrics_say_who_ended_a_connection(lab: &Lab) -> Result<()> {
    ensure_ends_are_told(lab, Way::OwnPod)
}

fn both_agents_say_who_ended_a_tunnelled_connection(lab: &Lab) -> Result<()> {
    ensure_ends_are_told(lab, Way::Tunnel)
}

fn ensure_ends_are_told(lab: &Lab, way: Way) -> Result<()> {
    let scene = Scene::start(lab, way)?;
    let listener = scene.listen()?;
    let connect = || -> Result<(HeldConnection, TcpStream)> {
        let from = scene.mesh.frontend.place();
        let client = HeldConnection::open(lab, from, scene.called)?;
        Ok((client, listener.accept()?.0))
    };

    let (mut client, mut server) = connect()?;
    server.write_all(b"bye\n")?;
    server.shutdown(Shutdown::Write)?;
    ensure!(client.received()? == "bye" && client.end()? == "closed");
    scene.ensure_ended("orderly")?;

    // Bytes that it has not read make close() a reset.
    let (mut client, mut server) = connect()?;
    client.send("not read")?;
    eventually(SOON, "bytes for the server", || {
        (server.peek(&mut [0]).ok()? == 1).then_some(())
    })?;
    server.write_all(b"half of an ans\n")?;
    drop(server);
    ensure!(client.received()? == "half of an ans");
    ensure!(client.end()? == "ConnectionReset");
    scene.ensure_ended("reset-by-server")?;

    // It closes although not all has been read.
    let (client, mut server) = scene.hold(lab, &listener, 1)?;
    server[0].write_all(&[0; 1024])?;
    drop(client);
    scene.ensure_ended("reset-by-client")?;

    let (_client, server) = scene.hold(lab, &listener, 1)?;
    drop(server);
    scene.ensure_ended("closed-by-server")
}

/// On every path at once, because it takes two minutes.
fn a_client_that_takes_nothing_for_minutes_is_reset_and_that_is_told(lab: &Lab) -> Result<()> {
    let mut scene = Scene::start(lab, Way::OwnPod)?;
    let own = leave_unread(lab, &scene)?;
    scene.way = Way::Tunnel;
    scene.called = scene.mesh.orders.at(PORT);
    let tunnelled = leave_unread(lab, &scene)?;
    // Through a tunnel, the server's agent is the first to know that nothing moves.
    let stalled = |agent: &Agent| {
        let metric = "ambit_connections_ended_total{end=\"client-stalled\"} 1";
        agent
            .metrics()
            .is_ok_and(|metrics| metrics.contains(metric))
    };
    thread::sleep(STALLED / 2);
    let early = scene.agents.iter().any(stalled);
    ensure!(!early, "one was reset after half the time");
    let connections = scene.connections()?;
    ensure!(connections == [2, 1], "{connections:?}");
    eventually(STALLED, "the resets", || {
        scene.agents.iter().all(stalled).then_some(())
    })?;
    for agent in &scene.agents {
        let log = agent.log();
        ensure!(log.contains("\"end\":\"client-stalled\""), "{log}");
    }
    drop((own, tunnelled));
    eventually(SOON, "no connection in the accounts", || {
        (scene.connections().ok()? == [0, 0]).then_some(())
    })
}

/// A server sends as much as is taken, and breaks off. Its client never reads.
fn leave_unread(lab: &Lab, scene: &Scene) -> Result<Readers> {
    let listener = scene.listen()?;
    let order = ReaderOrder {
        reading: Reading::Never,
        ..ReaderOrder::get(1, scene.called, "/")
    };
    let client = Readers::start(lab, scene.mesh.frontend.place(), &[order])?;
    let mut server = listener.accept()?.0;
    ensure!(server.read(&mut [0; 64])? > 0, "no request");
    server.set_write_timeout(Some(Duration::from_secs(1)))?;
    while server.write(&[7; 64 << 10]).is_ok() {}
    SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
    Ok(client)
}
