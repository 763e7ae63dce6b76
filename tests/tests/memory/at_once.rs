//! Floods of every kind at the same time.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use ambit_tests::{
    Agent, Family, Hoard, Hoarded, Lab, LabServer, Membership, Mode, NodeName, Pod, PodSpec,
    Policies, Reference, SOON, Unhelpful, UnhelpfulServer, get_from,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    ACCOUNT, BESIDE, BETWEEN, EACH, Footprints, KEEPS, PORT, WATCHED, ensure_the_account_is_empty,
    start_agents,
};

/// One of several floods at the same time.
struct Part {
    /// The pod that floods: one of those that may call `orders`.
    from: usize,
    to: Target,
    port: u16,
    server: Unhelpful,
    client: Hoarded,
    connections: usize,
}

/// Who is flooded.
#[derive(Clone, Copy)]
enum Target {
    /// `orders`, which judges requests.
    Orders,
    /// A pod without policies.
    Open,
}

/// Pods that flood, beside `frontend`. They have its identity.
const FLOODING: [&str; 2] = ["frontend-2", "frontend-3"];

impl Part {
    const fn answers(to: Target, port: u16, connections: usize) -> Self {
        Self {
            from: 0,
            to,
            port,
            server: Unhelpful::Endless,
            client: Hoarded::Answers,
            connections,
        }
    }

    const fn streams(connections: usize) -> Self {
        Self {
            from: 1,
            to: Target::Orders,
            port: 9001,
            server: Unhelpful::Closed,
            client: Hoarded::Streams,
            connections,
        }
    }

    const fn heads(client: Hoarded, connections: usize) -> Self {
        Self {
            from: 2,
            to: Target::Orders,
            port: 9003,
            server: Unhelpful::Silent,
            client,
            connections,
        }
    }
}

/// Of each kind so little that there is memory for it.
const SMALL: [Part; 5] = [
    Part::heads(Hoarded::Parts, 30),
    Part::heads(Hoarded::Heads, 30),
    Part::answers(Target::Orders, 9002, 30),
    Part::streams(1),
    Part::answers(Target::Open, 9000, 100),
];

/// Of each kind more than there is memory for.
const LARGE: [Part; 5] = [
    Part::answers(Target::Open, 9000, 2000),
    Part::streams(20),
    Part::answers(Target::Orders, 9002, 400),
    Part::heads(Hoarded::Heads, 700),
    Part::heads(Hoarded::Parts, 700),
];

/// TLS handshakes that do not go on, from outside the mesh.
const HANDSHAKES: usize = 1000;

/// Pods under several floods at the same time, and two on the same nodes that only talk to each other.
struct FloodedNodes {
    mesh: Reference,
    flooding: Vec<Pod>,
    open: Pod,
    near: Pod,
    far: Pod,
}

impl FloodedNodes {
    fn build(lab: &Lab) -> Result<Self> {
        let mesh = Reference::build_with(lab, Policies::PerRequest)?;
        lab.manifests()
            .write_namespace("bystanders", Membership::Ambient)?;
        declare_http(lab)?;
        let pod = |node, namespace, name| -> Result<Pod> {
            let spec = PodSpec {
                namespace,
                ..PodSpec::named(name)
            };
            let pod = lab.add_pod(node, spec)?;
            lab.manifests().write_pod(&pod)?;
            Ok(pod)
        };
        let mut flooding = vec![mesh.frontend.clone()];
        for name in FLOODING {
            flooding.push(pod(NodeName::A, "frontend", name)?);
        }
        Ok(Self {
            mesh,
            flooding,
            open: pod(NodeName::B, "bystanders", "open")?,
            near: pod(NodeName::A, "bystanders", "near")?,
            far: pod(NodeName::B, "bystanders", "far")?,
        })
    }

    fn target(&self, target: Target) -> &Pod {
        match target {
            Target::Orders => &self.mesh.orders,
            Target::Open => &self.open,
        }
    }

    fn server(&self, lab: &Lab, part: &Part) -> Result<UnhelpfulServer> {
        let pod = self.target(part.to);
        UnhelpfulServer::start(lab, pod.place(), part.server, pod.at(part.port))
    }

    fn hoard(&self, lab: &Lab, part: &Part) -> Result<Hoard> {
        let to = self.target(part.to).at(part.port);
        let from = self.flooding[part.from].place();
        Hoard::start(lab, from, part.client, to, part.connections)
    }

    /// Opens TLS connections to `orders` that do not go on. Those over the cap are closed.
    fn begin_handshakes(&self) -> Result<Vec<TcpStream>> {
        let tunnels = SocketAddr::new(self.mesh.orders.ip(Family::V4), 15008);
        let outsider = self.mesh.intruder.place().netns();
        outsider.enter(|| {
            let open = |_| {
                let mut stream = TcpStream::connect_timeout(&tunnels, SOON).ok()?;
                // The type of a TLS record.
                let _ = stream.write_all(&[22]);
                Some(stream)
            };
            (0..HANDSHAKES).filter_map(open).collect()
        })
    }

    /// Ensures that a pod that takes little is answered.
    fn ensure_bystanders_are_served(&self) -> Result<()> {
        let reply = get_from(self.near.place(), self.far.at(PORT))?;
        ensure!(reply.is_answer(), "a bystander's call: {reply:?}");
        Ok(())
    }
}

/// Declares the flooded ports of `orders`, so that their requests are judged.
fn declare_http(lab: &Lab) -> Result<()> {
    let of_orders = LARGE
        .iter()
        .filter(|part| matches!(part.to, Target::Orders));
    let ports: BTreeSet<u16> = of_orders.map(|part| part.port).collect();
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|port| {
            let name = format!("http-{port}");
            json!({"name": name, "protocol": "TCP", "port": port, "appProtocol": "http"})
        })
        .collect();
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "orders", "name": "flooded"},
        "spec": {"selector": {"app": "orders"}, "clusterIP": "None", "ports": ports},
    });
    lab.manifests()
        .write_object("service-flooded.yaml", &service)
}

pub(crate) fn all_floods_at_once_stay_within_the_account(lab: &Lab) -> Result<()> {
    let nodes = FloodedNodes::build(lab)?;
    let agents = start_agents(lab)?;
    let _far = LabServer::in_pod(lab, &nodes.far, Mode::Http, PORT)?;
    // One server is enough for two floods of the same port.
    let mut servers: Vec<(u16, UnhelpfulServer)> = Vec::new();
    for part in &SMALL {
        if servers.iter().all(|(port, _)| *port != part.port) {
            servers.push((part.port, nodes.server(lab, part)?));
        }
    }
    nodes.ensure_bystanders_are_served()?;
    let before = Footprints::of(&agents)?.most_anonymous();
    let handshakes = nodes.begin_handshakes()?;
    ensure!(!handshakes.is_empty(), "no handshake began");
    let mut hoards = Vec::new();
    for part in SMALL.iter().chain(&LARGE) {
        let hoard = nodes.hoard(lab, part)?;
        let (opened, refused) = hoard.outcome()?;
        println!("    {:?}: {opened} opened, {refused} refused", part.client);
        hoards.push((hoard, opened));
    }
    for (part, (_, opened)) in SMALL.iter().zip(&hoards) {
        ensure!(*opened > 0, "{:?}: none was carried", part.client);
    }
    let all = SMALL.iter().chain(&LARGE);
    let connections = HANDSHAKES + all.map(|part| part.connections).sum::<usize>();
    let bound = before + ACCOUNT + BESIDE + EACH * connections as u64;
    let (mut most, mut answers) = (0, 0_u32);
    let mut left = WATCHED;
    while left > Duration::ZERO {
        most = most.max(Footprints::of(&agents)?.most_anonymous());
        ensure!(most < bound, "an agent takes {} MiB", most >> 20);
        nodes.ensure_bystanders_are_served()?;
        answers += 1;
        sleep(BETWEEN);
        left = left.saturating_sub(BETWEEN);
    }
    println!(
        "    {} MiB more, {} MiB allowed; {answers} answers of a bystander",
        most.saturating_sub(before) >> 20,
        bound.saturating_sub(before) >> 20,
    );
    ensure_refusals_are_shown(&agents)?;
    drop((hoards, handshakes));
    ensure_the_account_is_empty(&agents)?;
    nodes.ensure_bystanders_are_served()?;
    Footprints::wait_below(&agents, before + KEEPS)?.show("after the floods");
    Ok(())
}

/// Ensures that the account was used up, and that status and metrics tell.
fn ensure_refusals_are_shown(agents: &[Agent; 2]) -> Result<()> {
    let mut refused = 0;
    for agent in agents {
        let memory = &agent.ask("status")?["memory"];
        println!("    account: {memory}");
        let number = |field: &str| memory[field].as_u64().context("a number");
        ensure!(number("limit")? == ACCOUNT, "another account: {memory}");
        ensure!(number("peak")? <= ACCOUNT, "over the limit: {memory}");
        let metrics = agent.metrics()?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("ambit_memory_account_refusals_total"));
        let count = line.and_then(|line| line.split_whitespace().last());
        let counted: u64 = count.context("no metric of the refusals")?.parse()?;
        ensure!(
            counted >= number("refused")?,
            "{counted} in the metrics: {memory}"
        );
        refused += agent.refused("no-memory")?;
    }
    println!("    {refused} connections and requests refused for lack of memory");
    ensure!(refused > 0, "nothing was refused");
    Ok(())
}
