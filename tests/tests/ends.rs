//! How connections end: places are given back, half-closed connections live on, and the log and the metrics
//! say who ended a connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ambit_tests::{
    Agent, HeldConnection, Lab, Reference, SOON, Service, Swarm, eventually, run_tests, tests,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PORT: u16 = Reference::PORT;

/// Clients that never close.
const CLIENTS: usize = 500;

/// How long a half-closed connection has to live on: longer than Linux keeps a closed one
/// (`tcp_fin_timeout`, 60 s).
const HALF_CLOSED: Duration = Duration::from_secs(65);

fn main() -> ExitCode {
    run_tests(tests![
        a_server_that_has_closed_gives_its_places_back,
        a_server_that_half_closes_and_goes_on_reading_is_not_cut,
        the_log_and_the_metrics_say_who_ended_a_connection,
    ])
}

/// `frontend`, which calls its own Service, and the agents.
struct Scene {
    mesh: Reference,
    service: Service,
    agents: [Agent; 2],
}

impl Scene {
    fn start(lab: &Lab) -> Result<Self> {
        let mesh = Reference::build(lab)?;
        let service = lab.add_service(&mesh.frontend, 80, PORT)?;
        lab.manifests().write_service(&service)?;
        Ok(Self {
            agents: lab.start_agents()?,
            mesh,
            service,
        })
    }

    /// Listens in the pod, in this process: what happens to the sockets is up to the test.
    fn listen(&self) -> Result<TcpListener> {
        let frontend = &self.mesh.frontend;
        let listen = || TcpListener::bind(frontend.at(PORT));
        Ok(frontend.place().netns().enter(listen)??)
    }

    /// Opens connections that never end by themselves. Returns the server's ends of them.
    fn hold(
        &self,
        lab: &Lab,
        listener: &TcpListener,
        clients: usize,
    ) -> Result<(Swarm, Vec<TcpStream>)> {
        let from = self.mesh.frontend.place();
        let mut swarm = Swarm::hold(lab, from, self.service.at(), clients)?;
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

    fn connections(&self) -> Result<usize> {
        let [agent, _] = &self.agents;
        Ok(agent
            .ask("connections")?
            .as_array()
            .context("no list")?
            .len())
    }

    /// Waits for the next connection that ended like this.
    fn ensure_ended(&self, end: &str) -> Result<()> {
        let [agent, _] = &self.agents;
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
        Ok(())
    }
}

fn a_server_that_has_closed_gives_its_places_back(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let (_clients, accepted) = scene.hold(lab, &scene.listen()?, CLIENTS)?;
    ensure!(scene.connections()? == CLIENTS);
    drop(accepted);
    eventually(SOON, "no connection in the account", || {
        (scene.connections().ok()? == 0).then_some(())
    })
}

fn a_server_that_half_closes_and_goes_on_reading_is_not_cut(lab: &Lab) -> Result<()> {
    let clients = 20;
    let scene = Scene::start(lab)?;
    let (swarm, accepted) = scene.hold(lab, &scene.listen()?, clients)?;
    for stream in &accepted {
        stream.shutdown(Shutdown::Write)?;
        stream.set_nonblocking(true)?;
    }
    thread::sleep(HALF_CLOSED);
    ensure!(scene.connections()? == clients);
    for mut stream in &accepted {
        let read = stream.read(&mut [0]).map_err(|error| error.kind());
        ensure!(read == Err(ErrorKind::WouldBlock), "{read:?}");
    }
    drop(swarm);
    for mut stream in &accepted {
        let read = eventually(SOON, "the clients' end", || match stream.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            read => Some(read.map_err(|error| error.kind())),
        })?;
        ensure!(
            matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)),
            "{read:?}"
        );
    }
    Ok(())
}

fn the_log_and_the_metrics_say_who_ended_a_connection(lab: &Lab) -> Result<()> {
    let scene = Scene::start(lab)?;
    let listener = scene.listen()?;
    let connect = || -> Result<(HeldConnection, TcpStream)> {
        let from = scene.mesh.frontend.place();
        let client = HeldConnection::open(lab, from, scene.service.at())?;
        Ok((client, listener.accept()?.0))
    };

    let (mut client, mut server) = connect()?;
    server.write_all(b"bye\n")?;
    drop(server);
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
